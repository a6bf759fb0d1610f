"""The sizes of every network, as frozen dataclasses. They check the arguments of the constructors, once for all."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from models.errors import ConfigError, MissingFile, check
from models.paths import resolve
from models.vocabulary import Vocabulary

VIT_SIZES: dict[str, dict[str, int]] = {
    "tiny": {"embed_dim": 192, "depth": 12, "num_heads": 3, "patch_size": 16},
    "small": {"embed_dim": 384, "depth": 12, "num_heads": 6, "patch_size": 16},
    "base": {"embed_dim": 768, "depth": 12, "num_heads": 12, "patch_size": 16},
    "large": {"embed_dim": 1024, "depth": 24, "num_heads": 16, "patch_size": 16},
}
# ViT-L is the only size that was trained with stochastic depth.
DEFAULT_DROP_PATH = {"large": 0.1}


@dataclass(frozen=True)
class VisionConfig:
    """The sizes of the image encoder.

    Attributes:
        image_size: side of the square input, in pixels; a multiple of `patch_size`.
        embed_dim: width of the hidden states.
        depth: number of blocks.
        num_heads: attention heads of a block; they divide `embed_dim`.
        patch_size: side of a patch, in pixels.
        drop_path_rate: stochastic depth of the last block; it rises linearly from 0 in the first.
        checkpointed_blocks: how many of the last blocks recompute their activations in the backward pass.
    """

    image_size: int
    embed_dim: int
    depth: int
    num_heads: int
    patch_size: int = 16
    drop_path_rate: float = 0.0
    checkpointed_blocks: int = 0

    @classmethod
    def read(
        cls,
        vit: str | Mapping[str, int],
        image_size: int,
        vit_grad_ckpt: bool = False,
        vit_ckpt_layer: int = 0,
        drop_path_rate: float | None = None,
    ) -> "VisionConfig":
        """Read the sizes from the arguments of a constructor.

        Args:
            vit: a name of `VIT_SIZES`, or a mapping `{embed_dim, depth, num_heads, patch_size}`.
            image_size: side of the square input, in pixels; a multiple of the patch size.
            vit_grad_ckpt: recompute activations in the backward pass, to save memory.
            vit_ckpt_layer: how many of the last blocks do so; all, if there are fewer.
            drop_path_rate: stochastic depth; when None, 0.1 for 'large' and 0 for other sizes.

        Raises:
            ConfigError: an impossible `vit` (see `vit_size`), an image size that is no multiple of the patch size, or a
                negative `vit_ckpt_layer`.
        """
        size = vit_size(vit)
        check_image_size(image_size, size["patch_size"])
        check(vit_ckpt_layer >= 0, "vit_ckpt_layer", vit_ckpt_layer, "0 or more")
        if drop_path_rate is None:
            drop_path_rate = DEFAULT_DROP_PATH.get(vit, 0.0) if isinstance(vit, str) else 0.0
        checkpointed = min(vit_ckpt_layer, size["depth"]) if vit_grad_ckpt else 0
        return cls(image_size, **size, drop_path_rate=drop_path_rate, checkpointed_blocks=checkpointed)


def vit_size(vit: str | Mapping[str, int]) -> dict[str, int]:
    """The sizes that `vit` names or holds: `{embed_dim, depth, num_heads, patch_size}`.

    Raises:
        ConfigError: an unknown name, a mapping with missing or unknown keys, sizes that do not fit.
    """
    if isinstance(vit, str):
        check(vit in VIT_SIZES, "vit", vit, f"{', '.join(VIT_SIZES)}, or a mapping of sizes")
        size = dict(VIT_SIZES[vit])
    else:
        size = {"patch_size": 16, **vit}
        keys = set(VIT_SIZES["base"])
        check(set(size) == keys, "vit", dict(vit), "a name, or a mapping of embed_dim, depth, num_heads and patch_size")
        check(min(size.values()) >= 1, "vit", dict(vit), "of sizes of at least 1")
    divides = size["embed_dim"] % size["num_heads"] == 0
    check(divides, "vit", size, "of an embed_dim that num_heads divides")
    return size


def check_image_size(image_size: int, patch_size: int) -> None:
    """Raise ConfigError unless the image size is a multiple of the patch size."""
    check(image_size % patch_size == 0, "image_size", image_size, f"a multiple of the patch size, {patch_size}")


@dataclass(frozen=True)
class TextConfig:
    """The sizes of a `TextModel`, under the names of BERT's configuration files."""

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    max_position_embeddings: int = 512
    layer_norm_eps: float = 1e-12
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    initializer_range: float = 0.02
    pad_token_id: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            number, rule = (int, "a whole number") if field.type is int else ((int, float), "a number")
            value = getattr(self, field.name)
            check(isinstance(value, number), f"med_config: {field.name}", value, rule)
        sizes = (
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "intermediate_size",
            "max_position_embeddings",
        )
        for name in sizes:
            check(getattr(self, name) >= 1, f"med_config: {name}", getattr(self, name), "at least 1")
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
            check(0 <= getattr(self, name) < 1, f"med_config: {name}", getattr(self, name), "from 0 to below 1")
        heads = self.num_attention_heads
        divides = self.hidden_size % heads == 0
        check(divides, "med_config: hidden_size", self.hidden_size, f"a multiple of num_attention_heads = {heads}")

    @classmethod
    def read(cls, med_config: str | Path | Mapping[str, Any]) -> "TextConfig":
        """Read a BERT configuration from a JSON file or a mapping; other keys are ignored.

        `vocab_size` is ignored too: the tokenizer's length is the number of word embeddings. A relative path is looked
        for in the working directory, then in the repository.

        Raises:
            MissingFile: there is no such file.
            ConfigError: it is no JSON; impossible sizes; an activation other than exact GELU.
        """
        values = med_config if isinstance(med_config, Mapping) else _read_json(resolve(med_config))
        activation = values.get("hidden_act", "gelu")
        check(activation == "gelu", "med_config: hidden_act", activation, "'gelu', the exact one")
        names = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in names})


def _read_json(file: Path) -> Mapping[str, Any]:
    if not file.is_file():
        raise MissingFile(f"med_config {file} does not exist; it should be a BERT configuration in JSON")
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"med_config {file} is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"med_config {file} holds a {type(values).__name__}, where BERT's sizes by name are expected")
    return values


@dataclass(frozen=True)
class ModelConfig:
    """What every BLIP network is built from.

    Attributes:
        vision: the image encoder.
        text: the text models.
        vocabulary: the tokens of the tokenizer.
    """

    vision: VisionConfig
    text: TextConfig
    vocabulary: Vocabulary

    @classmethod
    def read(
        cls,
        med_config: str | Path | Mapping[str, Any],
        image_size: int,
        vit: str | Mapping[str, int],
        vit_grad_ckpt: bool,
        vit_ckpt_layer: int,
        drop_path_rate: float | None,
        vocab_file: str | Path | Vocabulary | None,
    ) -> "ModelConfig":
        """Read the arguments of a constructor; see `VisionConfig.read`, `TextConfig.read` and `Vocabulary.read`.

        Raises:
            ConfigError, MissingFile: as those three.
        """
        return cls(
            VisionConfig.read(vit, image_size, vit_grad_ckpt, vit_ckpt_layer, drop_path_rate),
            TextConfig.read(med_config),
            Vocabulary.read(vocab_file),
        )
