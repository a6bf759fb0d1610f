"""Packages that only some tasks need: imported where they are used, with one line of help where they are missing."""

from collections.abc import Iterator
from contextlib import contextmanager

from models.errors import UserError


class MissingPackage(UserError, ImportError):
    """A package that this task needs, and that is not installed."""


@contextmanager
def needs_extra(extra: str, purpose: str) -> Iterator[None]:
    """Import optional packages in this block; of one that is missing a MissingPackage tells how to install it.

        with needs_extra("video", "reading clips"):
            import av

    Args:
        extra: the one of pyproject.toml that installs them.
        purpose: what they are needed for; the message begins with it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingPackage(
            f"{purpose} needs {error.name}: in this repository's folder, pip install -e '.[{extra}]'"
        ) from None
