"""The sizes of a model, read from the shapes and the config in its checkpoint, neither of which is trusted."""

from collections.abc import Mapping
from typing import Any

from models.config import TextConfig
from models.weights.files import State
from models.weights.integrity import CheckpointError

# What the keys of a checkpoint's config may hold, if anything.
_KINDS: dict[str, tuple[type, ...]] = {
    "vit": (str, Mapping),
    "med_config": (str, Mapping),
    "vision_config": (Mapping,),
    "text_config": (Mapping,),
    "prompt": (str,),
    "vocab_file": (str,),
}
_MOST_LAYERS = 1000


def count_layers(state: State, prefix: str, source: str) -> int:
    numbers = {key.removeprefix(prefix).split(".")[0] for key in state if key.startswith(prefix)}
    if not 1 <= len(numbers) <= _MOST_LAYERS or numbers != {str(number) for number in range(len(numbers))}:
        raise CheckpointError(
            f"{source}: its layers {prefix}NUMBER are not numbered from 0 to at most {_MOST_LAYERS - 1}"
        )
    return len(numbers)


def count_heads(stored: Any, width: int, source: str, key: str) -> int:
    """The number of attention heads that is stored; without one, heads of 64 dimensions."""
    if stored is None and width % 64:
        raise CheckpointError(f"{source} does not hold its number of attention heads: add `{key}` to its `config`")
    heads = width // 64 if stored is None else stored
    if type(heads) is not int or heads < 1 or width % heads:
        raise CheckpointError(f"{source}: its config's `{key}` must be a whole number that divides the width, {width}")
    return heads


def shape_of(state: State, key: str, dimensions: int, source: str) -> list[int]:
    """The shape of a tensor that the sizes of the model are read from."""
    if key not in state:
        raise CheckpointError(f"{source} lacks {key}, which tells the size of the model")
    shape = list(state[key].shape)
    if len(shape) != dimensions or not all(shape):
        raise CheckpointError(f"{source}: {key} has the shape {shape}, not one of {dimensions} sizes of at least 1")
    return shape


def check_kinds(config: Any, source: str) -> None:
    """Raise CheckpointError for a value of the config that is of another kind than its key has."""
    if not isinstance(config, Mapping):
        raise CheckpointError(f"{source}: its config is of type {type(config).__name__}, not settings by name")
    for key, kinds in _KINDS.items():
        value = config.get(key)
        if value is not None and not isinstance(value, kinds):
            expected = " or ".join("text" if kind is str else "a mapping" for kind in kinds)
            raise CheckpointError(f"{source}: its config's {key} is of type {type(value).__name__}, not {expected}")


def check_size(state: State, vit: Mapping[str, int], text: TextConfig, source: str) -> None:
    """Raise CheckpointError for sizes whose model would be far larger than the checkpoint (and maybe the memory)."""
    wide = text.hidden_size
    needed = 12 * vit["depth"] * vit["embed_dim"] ** 2
    needed += text.num_hidden_layers * wide * (4 * wide + 2 * text.intermediate_size)
    held = sum(tensor.numel() for tensor in state.values())
    if needed > 4 * held + (1 << 22):
        raise CheckpointError(f"{source} holds {held:,} numbers, and a model of its sizes needs at least {needed:,}")
