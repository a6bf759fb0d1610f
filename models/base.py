"""What every BLIP network starts from."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.med_layer import TextConfig
from models.tokenizer import build_tokenizer, tokenize
from models.vit import create_vit


class VisionLanguageModel(nn.Module):
    """A tokenizer, an image encoder, and the sizes of the text models that a subclass builds on them.

    Args:
        image_size: side of the square input, in pixels.
        vit: a name of `models.vit.VIT_SIZES`, or a mapping `{embed_dim, depth, num_heads, patch_size}`.
        vit_grad_ckpt, vit_ckpt_layer: recompute the activations of that many last ViT blocks in the backward pass.
        drop_path_rate: stochastic depth of the image encoder; by default 0.1 for 'large' and none elsewhere.
        med_config: sizes of the text models: a BERT configuration, as a file or a mapping.
        vocab_file: the tokenizer's vocabulary; bert-base-uncased's when None.

    Attributes:
        tokenizer: a Hugging Face fast tokenizer.
        visual_encoder: images [B, 3, H, W], normalised -> states [B, T, vision_width].
    """

    def __init__(
        self,
        image_size: int,
        vit: str | Mapping[str, int] = "base",
        vit_grad_ckpt: bool = False,
        vit_ckpt_layer: int = 0,
        drop_path_rate: float | None = None,
        med_config: str | Path | Mapping[str, Any] = "configs/med_config.json",
        vocab_file: str | Path | None = None,
    ) -> None:
        super().__init__()
        self.tokenizer = build_tokenizer(vocab_file)
        self.visual_encoder = create_vit(vit, image_size, vit_grad_ckpt, vit_ckpt_layer, drop_path_rate)
        self.text_config = TextConfig.read(med_config)

    @property
    def vision_width(self) -> int:
        return self.visual_encoder.embed_dim

    @property
    def device(self) -> torch.device:
        return self.visual_encoder.cls_token.device

    def tokenize_for(self, image: Tensor, text: str | Sequence[str], **options: Any) -> tuple[Tensor, Tensor]:
        """Ids and mask [B, L] of the texts that look at images; `options` are those of `tokenize`.

        One text is that of all images, and one image that of all texts, as it was in 2022.

        Raises:
            ValueError: several images, and another number of texts.
        """
        ids, mask = tokenize(self.tokenizer, text, self.device, **options)
        images, texts = len(image), len(ids)
        if images != texts and 1 not in (images, texts):
            raise ValueError(f"{texts} texts do not fit {images} images: give as many, or one for all")
        return (ids.repeat(images, 1), mask.repeat(images, 1)) if texts == 1 else (ids, mask)
