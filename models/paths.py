"""Paths relative to the repository, and files that are written whole or not at all."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
"""The folder that holds `models/` and `configs/`: this repository, or a project that both were copied into."""


def resolve(path: str | os.PathLike[str]) -> Path:
    """Find `path`: as given if it exists in the working directory, else the same path inside the repository.

    `configs/med_config.json` therefore works from any working directory. A path that exists in neither place is
    returned as given, so that an error about it shows what the user wrote.
    """
    path = Path(path).expanduser()
    if not path.is_absolute() and not path.exists() and (REPOSITORY / path).exists():
        return REPOSITORY / path
    return path


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a file whole or not at all: yields a temporary path beside `path`, renamed onto it when the block succeeds.

    The temporary name keeps the suffix (writers such as `numpy.savez` would append a missing one) and is unique, so
    processes that write the same file at once do not disturb each other: the last one wins. The file's permissions
    follow the umask, whichever library writes it (safetensors creates files that only their owner can read).
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{secrets.token_hex(4)}.{path.name}")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)
        _sync(temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if os.name == "posix":  # a rename is durable only once the folder is synced; Windows has no such call
        _sync(path.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
