"""Files written whole or not at all, in pieces; what goes wrong names the file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from files import atomic_write
from settings import UserError


@contextmanager
def write_whole(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which gets its name when the block succeeds."""
    try:
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            yield file
    except OSError as error:  # a full disk's does not say which file it is about
        if isinstance(error, UserError) or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
