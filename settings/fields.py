"""The parts of a config: dataclasses of documented fields, which scripts combine by inheritance."""

import dataclasses
from typing import Any


@dataclasses.dataclass
class Settings:
    """A part of a config. A script's config class inherits from the parts it needs and adds its own fields.

    A part checks its values in `__post_init__`, which ends with `super().__post_init__()` so that the next part checks
    its own.
    """

    def __post_init__(self) -> None:
        """The last in the chain of checks: nothing to check."""


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
