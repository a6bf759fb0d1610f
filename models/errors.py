"""Errors that a person can mend, told apart from bugs."""

import os
from typing import Any


class UserError(Exception):
    """What a person can mend: the message says what was found, where, and what to do about it.

    It ends a script with the message alone. Every other exception is a bug, and keeps its traceback.

    Attributes:
        is_user_error: the mark by which a script knows such an error. Rooms that import nothing of the others
            (`metrics`) mark errors of their own with it instead of inheriting from this class.
    """

    is_user_error = True


class ConfigError(UserError, ValueError):
    """A setting that cannot work, be it a config's, a flag's or an argument's."""


class MissingFile(UserError, FileNotFoundError):
    """A file that a setting names is not there."""


class UnreadableFile(UserError, OSError):
    """What a path names cannot be opened as a file: which one (`path`), and why (`reason`)."""

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        super().__init__(str(path), reason)
        self.path, self.reason = str(path), reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def check(holds: bool, key: str, value: Any, rule: str) -> None:
    """Raise ConfigError with key, value and rule unless the rule holds."""
    if not holds:
        raise ConfigError(f"{key} = {value}: must be {rule}")
