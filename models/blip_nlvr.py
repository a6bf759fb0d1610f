"""Natural language visual reasoning: is a sentence true of two images? (paper, section 5.4)"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from models.base import VisionLanguageModel
from models.config import ModelConfig
from models.face import make_callable
from models.med import TextModel
from models.names_2022 import load_checkpoint as load_checkpoint
from models.packing import Packing
from models.tokenizer import tokenize_and_count
from models.vocabulary import Vocabulary
from models.weights.load import load_checkpoint as load_weights


class BLIPNLVR(VisionLanguageModel):
    """A text encoder with two cross-attentions in each layer, one for each image, and a classifier of true or false.

    Args:
        med_config: sizes of the text models: a BERT configuration, as a file or a mapping.
        image_size: side of the square input, in pixels.
        vit: a name ('tiny', 'small', 'base', 'large'), or a mapping `{embed_dim, depth, num_heads, patch_size}`.
        vit_grad_ckpt, vit_ckpt_layer: with the first, the last `vit_ckpt_layer` ViT blocks recompute their activations
            in the backward pass, to save memory.
        drop_path_rate: stochastic depth of the image encoder.
        vocab_file: the tokenizer's vocabulary (see `Vocabulary.read`); bert-base-uncased's when None.
    """

    def __init__(
        self,
        med_config: str | Path | Mapping[str, Any] = "configs/med_config.json",
        image_size: int = 384,
        vit: str | Mapping[str, int] = "base",
        vit_grad_ckpt: bool = False,
        vit_ckpt_layer: int = 0,
        *,
        drop_path_rate: float = 0.1,
        vocab_file: str | Path | Vocabulary | None = None,
    ) -> None:
        super().__init__(
            ModelConfig.read(med_config, image_size, vit, vit_grad_ckpt, vit_ckpt_layer, drop_path_rate, vocab_file)
        )
        width = self.text_config.hidden_size
        self.text_encoder = TextModel(self.text_config, len(self.tokenizer), self.vision_width, cross_attentions=2)
        self.cls_head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2))

    def forward(
        self, image: Tensor, text: str | Sequence[str], targets: Tensor | None = None, train: bool = True
    ) -> Tensor:
        """Judge whether each of B sentences is true of its two images.

        Args:
            image: `[2B, 3, H, W]`, normalized: the B first images, then the B second ones.
            text: B sentences.
            targets: `[B]`, 1 where the sentence is true; needed in training.
            train: return the loss rather than logits.

        Returns:
            the mean loss; or logits `[B, 2]`, float32; index 1 means "true".

        Raises:
            ValueError: the images are not two for each sentence; no targets in training.
        """
        text = [text] if isinstance(text, str) else text
        if len(image) != 2 * len(text):
            raise ValueError(f"{len(text)} sentences need {2 * len(text)} images, and there are {len(image)}")
        first, second = self.visual_encoder(image).chunk(2)
        tokens = tokenize_and_count(self.tokenizer, text, image.device, first_token=self.special.enc)
        states = self.text_encoder(
            tokens.ids,
            tokens.mask,
            self.text_encoder.project(first, second),
            packing=Packing.of(tokens.lengths, tokens.ids.shape[1], image.device),
            first_only=True,
        )
        logits = self.cls_head(states[:, 0]).float()
        if not train:
            return logits
        if targets is None:
            raise ValueError("training needs targets, and none were given")
        return F.cross_entropy(logits, targets)


def blip_nlvr(
    pretrained: str | Path = "",
    med_config: str | Path | Mapping[str, Any] = "configs/med_config.json",
    image_size: int = 384,
    vit: str | Mapping[str, int] = "base",
    vit_grad_ckpt: bool = False,
    vit_ckpt_layer: int = 0,
    *,
    drop_path_rate: float = 0.1,
    vocab_file: str | Path | Vocabulary | None = None,
) -> BLIPNLVR:
    """An NLVR2 model, with the weights of `pretrained` (a released name, path, URL or hub name) if given.

    A checkpoint with one cross-attention in each layer initializes both. Where it lacks them, the layers that merge two
    images, and the classifier, keep their random initialization.

    The other arguments are those of `BLIPNLVR`.
    """
    model = BLIPNLVR(
        med_config,
        image_size,
        vit,
        vit_grad_ckpt,
        vit_ckpt_layer,
        drop_path_rate=drop_path_rate,
        vocab_file=vocab_file,
    )
    if pretrained:
        load_weights(model, pretrained, reinitialized=("*.merge_layer.*", "cls_head"))
    return model


BLIP_NLVR = BLIPNLVR  # its name in 2022
make_callable(__name__)
