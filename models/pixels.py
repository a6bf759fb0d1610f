"""The numbers by which pictures become a model's input; a checkpoint carries those that its model was trained with."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from models.errors import ConfigError, one_line


@dataclass(frozen=True)
class Pixels:
    """How pixels are normalized: scaled to [0, 1], then, in each of red, green and blue, `(pixel - mean) / std`."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def stored(self, image_size: int) -> dict[str, Any]:
        """What a checkpoint holds of it, with the side of the square input."""
        return {"image_size": image_size, "mean": list(self.mean), "std": list(self.std)}


STANDARD = Pixels((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
"""Those of every released checkpoint, which are CLIP's."""


def stored_pixels(checkpoint: Mapping[str, Any], source: str) -> Pixels | None:
    """The numbers that a checkpoint's model was trained with; None where it does not tell, as older ones do not.

    Args:
        checkpoint: what it holds beside its weights; see `models.weights.files.read_state`.
        source: where it comes from, for messages.

    Raises:
        ConfigError: they are not three numbers each, or a deviation is not above 0.
    """
    architecture = checkpoint.get("architecture")
    stored = architecture.get("pixels") if isinstance(architecture, Mapping) else None
    if stored is None:
        return None
    mean, std = (_three_numbers(stored, name) for name in ("mean", "std"))
    if mean is None or std is None or min(std) <= 0:
        raise ConfigError(
            f"{source}: its `pixels` must be a mean and a std of three numbers each, the std above 0, and are "
            f"{one_line(stored)}"
        )
    return Pixels(mean, std)


def _three_numbers(stored: Any, name: str) -> tuple[float, float, float] | None:
    """What a mapping has under this name, if it is three numbers."""
    values = stored.get(name) if isinstance(stored, Mapping) else None
    if not isinstance(values, list | tuple) or len(values) != 3:
        return None
    if not all(type(value) in (int, float) and math.isfinite(value) for value in values):
        return None
    red, green, blue = values
    return red, green, blue
