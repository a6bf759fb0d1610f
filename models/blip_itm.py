"""Image-text matching and similarity (paper, section 3.2)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from models.config import ModelConfig
from models.face import make_callable
from models.image_text import MAX_TEXT_LENGTH, ImageTextModel, similarities
from models.names_2022 import load_checkpoint as load_checkpoint
from models.vocabulary import Vocabulary
from models.weights.load import load_checkpoint as load_weights


class BLIPMatcher(ImageTextModel):
    """Compares images with texts: matching logits and cosine similarities, equal to those of the 2022 model.

    Args:
        med_config: sizes of the text models: a BERT configuration, as a file or a mapping.
        image_size: side of the square input, in pixels.
        vit: a name ('tiny', 'small', 'base', 'large'), or a mapping `{embed_dim, depth, num_heads, patch_size}`.
        vit_grad_ckpt, vit_ckpt_layer: with the first, the last `vit_ckpt_layer` ViT blocks recompute their activations
            in the backward pass, to save memory.
        embed_dim: width of the space in which images and texts are compared.
        drop_path_rate: stochastic depth of the image encoder; when None, 0.1 for 'large' and 0 for other sizes.
        vocab_file: the tokenizer's vocabulary (see `Vocabulary.read`); bert-base-uncased's when None.
    """

    def __init__(
        self,
        med_config: str | Path | Mapping[str, Any] = "configs/med_config.json",
        image_size: int = 384,
        vit: str | Mapping[str, int] = "base",
        vit_grad_ckpt: bool = False,
        vit_ckpt_layer: int = 0,
        embed_dim: int = 256,
        *,
        drop_path_rate: float | None = None,
        vocab_file: str | Path | Vocabulary | None = None,
    ) -> None:
        super().__init__(
            ModelConfig.read(med_config, image_size, vit, vit_grad_ckpt, vit_ckpt_layer, drop_path_rate, vocab_file),
            embed_dim,
        )

    def forward(self, image: Tensor, caption: str | Sequence[str], match_head: str = "itm") -> Tensor:
        """Compare images with captions.

        Args:
            image: `[B, 3, H, W]`, normalized.
            caption: B texts; those over 35 tokens are cut.
            match_head: 'itm' -> logits `[B, 2]` of the pairs (i, i), index 1 meaning "they match"; 'itc' -> cosine
                similarities `[B, B]`, a row for each image. 'itm' starts the text with `[CLS]`, as in 2022, although
                the head was trained with `[ENC]`; `score` uses `[ENC]`.

        Raises:
            ValueError: an unknown head; with 'itm', numbers of images and captions that differ, neither being one.
        """
        if match_head == "itc":
            return similarities(self.encode_image(image), self.encode_text(caption))
        if match_head != "itm":
            raise ValueError(f"match_head={match_head!r} must be 'itm' or 'itc'")
        ids, mask = self.tokenize_for(image, caption, max_length=MAX_TEXT_LENGTH)
        return self.match_logits(self.text_encoder.project(self.visual_encoder(image)), ids, mask)


def blip_itm(
    pretrained: str | Path = "",
    med_config: str | Path | Mapping[str, Any] = "configs/med_config.json",
    image_size: int = 384,
    vit: str | Mapping[str, int] = "base",
    vit_grad_ckpt: bool = False,
    vit_ckpt_layer: int = 0,
    embed_dim: int = 256,
    *,
    drop_path_rate: float | None = None,
    vocab_file: str | Path | Vocabulary | None = None,
) -> BLIPMatcher:
    """A matcher, with the weights of `pretrained` (a released name, path, URL or hub name) if given.

    The other arguments are those of `BLIPMatcher`.
    """
    model = BLIPMatcher(
        med_config,
        image_size,
        vit,
        vit_grad_ckpt,
        vit_ckpt_layer,
        embed_dim,
        drop_path_rate=drop_path_rate,
        vocab_file=vocab_file,
    )
    if pretrained:
        load_weights(model, pretrained)
    return model


BLIP_ITM = BLIPMatcher  # its name in 2022
make_callable(__name__)
