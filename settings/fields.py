"""What a config is made of: documented fields, in parts that scripts mix together."""

import dataclasses
from typing import Any


@dataclasses.dataclass
class Settings:
    """A part of a config: what a script's config class mixes in is made of these.

    Rules between values are a part's `__post_init__`, which ends with `super().__post_init__()`: the next part's.
    """

    def __post_init__(self) -> None:
        """The end of the row."""


def setting(default: Any, meaning: str) -> Any:
    """A field of a config dataclass with its default and the meaning that `--help` shows.

    A list or dict default is copied for each instance. `...` marks a key that every config must give.
    """
    metadata = {"help": meaning}
    if default is ...:
        return dataclasses.field(metadata=metadata, kw_only=True)
    if isinstance(default, (list, dict)):
        return dataclasses.field(default_factory=default.copy, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)
