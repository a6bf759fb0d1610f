"""Paths relative to the repository, files opened only if they are files, and files written whole or not at all."""

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from models.errors import MissingFile, UnreadableFile, UserError

REPOSITORY = Path(__file__).resolve().parents[1]
"""The folder that holds `models/` and `configs/`: this repository, or a project that both were copied into."""


def resolve(path: str | os.PathLike[str]) -> Path:
    """Find `path`: as given if it exists in the working directory, else the same path inside the repository.

    `configs/med_config.json` therefore works from any working directory. A path that exists in neither place is
    returned as given, so that an error about it shows what the user wrote.
    """
    path = Path(os.path.expanduser(path))  # unlike pathlib's, these two do not raise for an unknown `~user`, a NUL
    if not path.is_absolute() and not os.path.exists(path) and os.path.exists(REPOSITORY / path):  # or a long name
        return REPOSITORY / path
    return path


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file to read its bytes; anything else that a path can name is refused.

    A named pipe, a device or a socket would be waited for, or never end. What is checked is the opened file itself, so
    nothing can be put in its place between the check and the reading; the opening does not wait either.

    Raises:
        MissingFile: there is nothing of this name.
        UnreadableFile: no regular file, or one that cannot be opened; the reason says what it is.
        UserError: this process has too many open files, whichever they are.
    """
    try:
        file = open(path, "rb", opener=_open_if_regular)  # noqa: SIM115 (the caller closes it)
        try:
            file.peek(1)  # what cannot be read, such as /proc/self/mem, is found while its name is known
        except OSError:
            file.close()
            raise
        return file
    except FileNotFoundError as error:
        raise MissingFile(f"{path}: there is no such file") from error
    except UnreadableFile:
        raise
    except ValueError as error:  # a NUL or half a surrogate pair in the name
        raise UnreadableFile(repr(os.fspath(path)), "not a file name") from error
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise UserError(f"{path}: too many files are open; raise the limit (`ulimit -n`)") from error
        kind = _kind_of(path)
        raise UnreadableFile(path, f"{kind}, not a file" if kind else error.strerror or str(error)) from error


def _open_if_regular(path: str, flags: int) -> int:
    handle = os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0))  # Windows lacks both
    mode = os.fstat(handle).st_mode
    if stat.S_ISREG(mode):
        return handle
    os.close(handle)
    raise UnreadableFile(path, f"{_kind(mode) or 'something else'}, not a file")


def _kind_of(path: str | os.PathLike[str]) -> str | None:
    try:
        return _kind(os.stat(path).st_mode)
    except OSError:
        return None


def _kind(mode: int) -> str | None:
    """What a thing of this mode is called, if it is no regular file."""
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return kinds.get(stat.S_IFMT(mode))


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


def remove_unfinished(folder: Path, names: str) -> None:
    """Delete what killed processes left of files that `atomic_write` was writing in `folder`; `names` is a pattern."""
    for path in folder.glob(f".{'[0-9a-f]' * 8}.{names}"):
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
