"""Command lines: a dataclass whose fields are flags.

    @dataclass(frozen=True, kw_only=True)
    class Match:
        text: list[str] = flag(..., "may be given several times", action="append")
        batch_size: int = flag(32, "pictures at once (default: %(default)s)", type=at_least(1))

    add_flags(parser, Match)
    match = Match(**values_of(Match, parser.parse_args()))

Rules between values live in its `__post_init__`, as ConfigErrors.
"""

import argparse
import dataclasses
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from settings import interrupts, messages


class Parser(argparse.ArgumentParser):
    """A command line whose errors, in which arguments are quoted, are as `message` makes them.

    From its making on, Ctrl-C ends the program with one line.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        interrupts.show_in_one_line()

    def error(self, message: str) -> NoReturn:
        super().error(messages.message(message, sys.stderr.encoding))


_OPTIONS = "add_argument"  # the key, in a field's metadata, of what argparse is told about it


def flag(default: Any, meaning: str, **options: Any) -> Any:
    """A field of a dataclass that is `--NAME` on the command line.

    Args:
        default: `...` marks a flag that must be given; a list is copied for each instance.
        meaning: what `--help` shows.
        options: those of argparse's `add_argument`: `type`, `action`, `choices`, `metavar`.
    """
    options["help"] = meaning
    if default is ...:
        return dataclasses.field(metadata={_OPTIONS: options | {"required": True}})
    metadata = {_OPTIONS: options | {"default": default}}
    if isinstance(default, list):
        return dataclasses.field(default_factory=default.copy, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def add_flags(parser: argparse.ArgumentParser, kind: type) -> None:
    """Give a parser every flag of a dataclass; its other fields are left out."""
    for field in dataclasses.fields(kind):
        if _OPTIONS in field.metadata:
            parser.add_argument(f"--{field.name}", **field.metadata[_OPTIONS])


def values_of(kind: type, flags: argparse.Namespace) -> dict[str, Any]:
    """The arguments of a dataclass's constructor among all that was parsed."""
    names = {field.name for field in dataclasses.fields(kind)}
    return {name: value for name, value in vars(flags).items() if name in names}


def file_path(text: str) -> Path:
    """A type of flags: a path, in which `~` is the home (a shell expands it only where a word begins with it)."""
    path = os.path.expanduser(text)
    if "\0" in path:
        raise argparse.ArgumentTypeError(f"{text!a}: no name of a file")
    if path.startswith("~") and "/" in path:
        raise argparse.ArgumentTypeError(f"{text!a}: there is no such user; a folder of this name is ./{text}")
    return Path(path)


_MOST = 10**12  # of a number of things


def at_least(least: int) -> Callable[[str], int]:
    """A type of flags: whole numbers from `least` on."""

    def whole_number(text: str) -> int:
        if not least <= int(text) <= _MOST:
            rule = f"at least {least}" if int(text) < least else f"at most {_MOST:,}"
            raise argparse.ArgumentTypeError(f"{text} must be {rule}")
        return int(text)

    return whole_number


def seed(text: str) -> int:
    """A type of flags: a random generator's seed, of at most 63 bits, as torch takes it on every device."""
    try:
        number = int(text)
    except ValueError:  # also of more digits than Python converts
        number = -1
    if not 0 <= number < 2**63:
        shown = text if len(text) <= 40 else f"{text[:40]}..."
        raise argparse.ArgumentTypeError(f"{shown} must be a whole number, 0 or more, and less than 2**63")
    return number
