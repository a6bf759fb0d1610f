"""Errors that the user can fix, as opposed to bugs."""

import os
import unicodedata
from typing import Any

_LONGEST = 200  # characters of a value that a message shows


class UserError(Exception):
    """An error that the user can fix. The message says what was found, where, and what to do about it.

    Scripts end with the message alone. Every other exception is a bug, and is shown with its traceback.

    Attributes:
        is_user_error: the mark by which scripts recognize such an error. Packages that do not import this one, such as
            `metrics`, set it on errors of their own.
    """

    is_user_error = True


class ConfigError(UserError, ValueError):
    """An impossible value of a config key, a flag or an argument."""


class MissingFile(UserError, FileNotFoundError):
    """A file that a config key, a flag or an argument names does not exist."""


class UnreadableFile(UserError, OSError):
    """What a path names cannot be opened as a file: which one (`path`), and why (`reason`)."""

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        super().__init__(str(path), reason)
        self.path, self.reason = str(path), reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def check(holds: bool, key: str, value: Any, rule: str) -> None:
    """Raise ConfigError, "KEY = VALUE: must be RULE", unless `holds`; a long value is cut."""
    if not holds:
        text = str(value)
        raise ConfigError(f"{key} = {text if len(text) <= _LONGEST else f'{text[:_LONGEST]}...'}: must be {rule}")


def printable(text: str) -> str:
    """The text with escapes for what a terminal would obey; blanks of every width stay."""
    return "".join(
        c if c.isprintable() or unicodedata.category(c) == "Zs" else c.encode("unicode_escape").decode() for c in text
    )


def one_line(text: object, longest: int = 200) -> str:
    """Text of others (a file's, a server's) for a message: escapes for control characters, and no more than `longest`.

    What is cut out of a longer text is its middle, since names differ at their ends.
    """
    shown = str(text)
    if len(shown) > 2 * longest:  # what lies between is left out below
        shown = shown[:longest] + shown[-longest:]
    line = printable(shown)
    return line if len(line) <= longest else f"{line[: longest // 2]}...{line[-longest // 2 :]}"
