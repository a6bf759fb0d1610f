"""What every BLIP network starts from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.med_layer import TextConfig
from models.tokenizer import build_tokenizer
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
