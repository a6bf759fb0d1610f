"""The sizes of every network, as frozen dataclasses. They check the arguments of the constructors, once for all."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from models.errors import ConfigError, MissingFile, UnreadableFile, check
from models.paths import open_regular, resolve
from models.vocabulary import Vocabulary

VIT_SIZES: dict[str, dict[str, int]] = {
    "tiny": {"embed_dim": 192, "depth": 12, "num_heads": 3, "patch_size": 16},
    "small": {"embed_dim": 384, "depth": 12, "num_heads": 6, "patch_size": 16},
    "base": {"embed_dim": 768, "depth": 12, "num_heads": 12, "patch_size": 16},
    "large": {"embed_dim": 1024, "depth": 24, "num_heads": 16, "patch_size": 16},
}
# What no model of this kind exceeds; a number far above it is a mistake, and would fill the memory.
_MOST = {
    "image_size": 10_000,
    "embed_dim": 65_536,
    "depth": 1_000,
    "num_heads": 65_536,
    "patch_size": 10_000,
    "hidden_size": 65_536,
    "num_hidden_layers": 1_000,
    "num_attention_heads": 65_536,
    "intermediate_size": 1_000_000,
    "max_position_embeddings": 1_000_000,
    "queue_size": 10_000_000,
}
_MOST_PATCHES = 65_536  # each of which attends to all others
_MOST_WEIGHTS = 4_000_000_000  # of an encoder, or numbers of a queue: 16 GB; the largest released model has 0.5e9
LONGEST_TEXT = 40  # tokens at which the models cut captions, questions and answers, the longest
_LARGEST_FILE = 2**20  # bytes of a configuration in JSON
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
            ConfigError: an impossible `vit` (see `vit_size`), image size (see `check_image_size`), `vit_ckpt_layer` or
                `drop_path_rate`.
        """
        size = vit_size(vit)
        check_image_size(image_size, size["patch_size"])
        _check_number("vit_ckpt_layer", vit_ckpt_layer, int)
        check(vit_ckpt_layer >= 0, "vit_ckpt_layer", vit_ckpt_layer, "0 or more")
        if drop_path_rate is None:
            drop_path_rate = DEFAULT_DROP_PATH.get(vit, 0.0) if isinstance(vit, str) else 0.0
        else:
            _check_number("drop_path_rate", drop_path_rate)
            check(0 <= drop_path_rate < 1, "drop_path_rate", drop_path_rate, "from 0 to below 1")
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
        rule = "a name, or a mapping of embed_dim, depth, num_heads and patch_size"
        _check_kind("vit", vit, Mapping, rule)
        size = {"patch_size": 16, **vit}
        check(set(size) == set(VIT_SIZES["base"]), "vit", dict(vit), rule)
        for name, value in size.items():
            check_size(name, value, place="vit: ")
    divides = size["embed_dim"] % size["num_heads"] == 0
    check(divides, "vit", size, "of an embed_dim that num_heads divides")
    _check_weights("vit", 12 * size["depth"] * size["embed_dim"] ** 2 + 3 * size["embed_dim"] * size["patch_size"] ** 2)
    return size


def check_image_size(image_size: int, patch_size: int) -> None:
    """Raise ConfigError unless the image is cut into whole patches, and into no more than attention can handle."""
    check_size("image_size", image_size)
    check(image_size % patch_size == 0, "image_size", image_size, f"a multiple of the patch size, {patch_size}")
    most = int(_MOST_PATCHES**0.5) * patch_size
    check(image_size <= most, "image_size", image_size, f"at most {most:,}, with patches of {patch_size} pixels")


def check_size(name: str, value: Any, place: str = "") -> None:
    """Raise ConfigError unless the size of this name is a whole number from 1 to what a model could have.

    Args:
        place: stands before the name in messages.
    """
    key, most = f"{place}{name}", _MOST[name]
    _check_number(key, value, int)
    check(value >= 1, key, value, "at least 1")
    check(value <= most, key, value, f"at most {most:,}")


def check_queue(queue_size: int, embed_dim: int) -> None:
    """Raise ConfigError unless a queue of so many vectors of this width can be."""
    check_size("queue_size", queue_size)
    check_size("embed_dim", embed_dim)
    _check_weights("queue_size", queue_size * embed_dim)


def _check_number(key: str, value: Any, kind: type[int | float] = float) -> None:
    kinds, rule = (int, "a whole number") if kind is int else ((int, float), "a number")
    rule += ", without quotation marks" if isinstance(value, str) else ""
    check(not isinstance(value, bool), key, value, rule)
    _check_kind(key, value, kinds, rule)


def _check_kind(key: str, value: Any, kinds: type | tuple[type, ...], rule: str) -> None:
    check(isinstance(value, kinds), key, value, rule)


def _check_weights(key: str, count: int) -> None:
    if count > _MOST_WEIGHTS:
        raise ConfigError(
            f"{key}: these sizes make {count:,} numbers; more than {_MOST_WEIGHTS:,} are refused as a mistake"
        )


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
            if field.name in _MOST:
                check_size(field.name, getattr(self, field.name))
            else:
                _check_number(field.name, getattr(self, field.name), int if field.type is int else float)
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
            check(0 <= getattr(self, name) < 1, name, getattr(self, name), "from 0 to below 1")
        check(0 < self.layer_norm_eps <= 1, "layer_norm_eps", self.layer_norm_eps, "above 0, at most 1")
        check(0 <= self.initializer_range <= 1, "initializer_range", self.initializer_range, "from 0 to 1")
        check(self.pad_token_id >= 0, "pad_token_id", self.pad_token_id, "0 or more")
        heads, width = self.num_attention_heads, self.hidden_size
        check(width % heads == 0, "hidden_size", width, f"a multiple of num_attention_heads = {heads}")
        layer = 8 * width**2 + 2 * width * self.intermediate_size  # with a cross-attention
        _check_weights("hidden_size", self.num_hidden_layers * layer + self.max_position_embeddings * width)

    @classmethod
    def read(cls, med_config: str | Path | Mapping[str, Any]) -> "TextConfig":
        """Read a BERT configuration from a JSON file or a mapping; other keys are ignored.

        `vocab_size` and `encoder_width` are ignored too: the tokenizer's length is the number of word embeddings, and
        the image encoder has its own width. A relative path is looked for in the working directory, then in the
        repository.

        Raises:
            MissingFile: there is no such file.
            ConfigError: it is no JSON; impossible sizes; an activation other than exact GELU, or positions that are not
                absolute.
        """
        if isinstance(med_config, Mapping):
            values, place = med_config, "med_config"
        else:
            _check_kind("med_config", med_config, (str, os.PathLike), "a file, or a mapping of sizes")
            file = resolve(med_config)
            values, place = _read_json(file), f"med_config {file}"
        for name, only in (("hidden_act", "gelu"), ("position_embedding_type", "absolute")):
            found = values.get(name, only)
            check(found == only, f"{place}: {name}", found, f"{only!r}{', the exact one' if only == 'gelu' else ''}")
        names = {field.name for field in fields(cls)}
        try:
            return cls(**{name: value for name, value in values.items() if name in names})
        except ConfigError as error:
            raise ConfigError(f"{place}: {error}") from None


def _read_json(file: Path) -> Mapping[str, Any]:
    try:
        with open_regular(file) as opened:
            text = opened.read(_LARGEST_FILE + 1).decode("utf-8-sig")
    except MissingFile:
        raise MissingFile(f"med_config {file} does not exist; it should be a BERT configuration in JSON") from None
    except UnreadableFile as error:
        raise ConfigError(f"med_config {error}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"med_config {file} is not JSON: no UTF-8 text ({error.reason})") from None
    if len(text) > _LARGEST_FILE:
        raise ConfigError(f"med_config {file} has more than {_LARGEST_FILE:,} bytes: it is no BERT configuration")
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
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
