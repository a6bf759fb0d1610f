"""The config keys of the models. A script's config inherits from them, and passes their values to a constructor."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from models.config import LONGEST_TEXT, TextConfig, check_image_size, check_queue, check_size, vit_size
from models.errors import check
from models.generation import MOST_BEAMS, SearchOptions
from models.paths import resolve
from settings.fields import Settings, setting
from settings.prompt import PromptSettings


class ModelArguments(TypedDict):
    """The arguments that every constructor of `models` takes."""

    image_size: int
    vit: str | dict[str, int]
    vit_grad_ckpt: bool
    vit_ckpt_layer: int
    med_config: str | dict[str, Any]
    vocab_file: Path | None


@dataclass
class ModelSettings(Settings):
    """Which model, and which weights it starts from.

    The `image_size` of its input is a key of the data, with which a script's config combines this.
    """

    pretrained: str = setting("", "weights to start from or to evaluate: a released name, a path, an address")
    vit: str | dict[str, int] = setting(
        "base", "image encoder: tiny, small, base, large, or {embed_dim, depth, num_heads, patch_size}"
    )
    vit_grad_ckpt: bool = setting(False, "recompute activations of the image encoder in the backward pass, for memory")
    vit_ckpt_layer: int = setting(0, "how many of the last blocks vit_grad_ckpt applies to; all, if there are fewer")
    med_config: str | dict[str, Any] = setting(
        "configs/med_config.json", "sizes of the text models: a BERT configuration, as a file or a mapping"
    )
    vocab_file: str = setting(
        "", "the tokenizer's vocabulary: a file, one token a line, or a checkpoint that carries it; empty: BERT's"
    )

    def __post_init__(self) -> None:
        patch_size = vit_size(self.vit)["patch_size"]
        if self._image_size is not None:
            check_image_size(self._image_size, patch_size)
        check(self.vit_ckpt_layer >= 0, "vit_ckpt_layer", self.vit_ckpt_layer, "0 or more")
        positions = TextConfig.read(self.med_config).max_position_embeddings
        longest = max(LONGEST_TEXT, getattr(self, "max_length", 0))
        rule = f"at least {longest}, the tokens of the longest text (raise it, or lower max_length)"
        check(positions >= longest, "med_config: max_position_embeddings", positions, rule)
        super().__post_init__()

    @property
    def _image_size(self) -> int | None:
        return getattr(self, "image_size", None)

    def architecture(self) -> ModelArguments:
        """The arguments of these names that every constructor of `models` takes."""
        if self._image_size is None:
            raise TypeError(f"{type(self).__name__} has no image_size: mix a data config into it")
        return {
            "image_size": self._image_size,
            "vit": self.vit,
            "vit_grad_ckpt": self.vit_grad_ckpt,
            "vit_ckpt_layer": self.vit_ckpt_layer,
            "med_config": self.med_config,
            "vocab_file": self._vocabulary(),
        }

    def _vocabulary(self) -> Path | None:
        """The file of the vocabulary: where `vocab_file` is gone, the checkpoint, which carries its own."""
        file = resolve(self.vocab_file) if self.vocab_file else None
        checkpoint = resolve(self.pretrained)
        if file is not None and self.pretrained and not os.path.exists(file) and os.path.exists(checkpoint):
            return checkpoint
        return file


@dataclass
class CaptionSettings(PromptSettings):
    """The prompt of captions, and the beam search that generates them."""

    max_length: int = setting(20, "most tokens of a caption, the prompt's counted")
    min_length: int = setting(5, "fewest tokens of a caption, the prompt's counted")
    num_beams: int = setting(3, "beams of the search; 1 is greedy")

    def __post_init__(self) -> None:
        check(self.num_beams >= 1, "num_beams", self.num_beams, "at least 1")
        check(self.num_beams <= MOST_BEAMS, "num_beams", self.num_beams, f"at most {MOST_BEAMS:,}")
        words = len(self.prompt.split())  # of which each is a token or more; the search itself counts them
        check(
            self.max_length > 1 + words, "max_length", self.max_length, f"above {1 + words}, the start and the prompt"
        )
        rule = f"from 1 to max_length = {self.max_length}"
        check(1 <= self.min_length <= self.max_length, "min_length", self.min_length, rule)
        super().__post_init__()

    def search(self) -> SearchOptions:
        """These keys as the options of a search."""
        return SearchOptions(num_beams=self.num_beams, max_length=self.max_length, min_length=self.min_length)


class ContrastArguments(TypedDict):
    """The arguments that the constructors of contrastive models take besides `ModelArguments`."""

    embed_dim: int
    queue_size: int


@dataclass
class EmbeddingSettings(Settings):
    """The common space of images (or clips) and texts."""

    embed_dim: int = setting(256, "width of the space in which images and texts are compared")

    def __post_init__(self) -> None:
        check_size("embed_dim", self.embed_dim)
        super().__post_init__()


@dataclass
class ContrastSettings(EmbeddingSettings):
    """The contrastive loss, with a momentum model and queues of its features."""

    queue_size: int = setting(57600, "features kept as further candidates of the contrastive loss")
    alpha: float = setting(
        0.4, "share of the momentum model's similarities in the targets, after one epoch (pre-training: two)"
    )

    def __post_init__(self) -> None:
        check_queue(self.queue_size, self.embed_dim)
        check(0 <= self.alpha <= 1, "alpha", self.alpha, "from 0 to 1")
        super().__post_init__()

    def contrast(self) -> ContrastArguments:
        """The arguments of these names that `blip_pretrain` and `blip_retrieval` take."""
        return {"embed_dim": self.embed_dim, "queue_size": self.queue_size}


@dataclass
class RerankSettings(Settings):
    """The second stage of retrieval: re-ranking by the matching head."""

    k_test: int = setting(256, "candidates of each query that the matching head re-ranks")
    states_gib: float = setting(
        16.0, "GiB of image states that a process keeps for re-ranking; where they take more, images are encoded again"
    )

    def __post_init__(self) -> None:
        check(self.k_test >= 1, "k_test", self.k_test, "at least 1")
        check(self.states_gib >= 0, "states_gib", self.states_gib, "0 or more")
        super().__post_init__()
