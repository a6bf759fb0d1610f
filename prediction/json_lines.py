"""A file of JSON lines that whatever ends a run leaves with whole lines, and with which a later run can go on."""

import errno
import json
import os
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any

from files import open_regular
from settings import MissingFile, UserError

Record = dict[str, Any]
"""What a task found about one picture, whose path is under `image`."""


class JsonLines:
    """Writes records to a file, a line each, that is in the file when `write` returns.

    The file is opened by the first record: what it held stays until then, or for good if it is appended to.
    """

    def __init__(self, path: Path, *, append: bool) -> None:
        self.path, self.append = path, append
        self._file: FileIO | None = None

    def __enter__(self) -> "JsonLines":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._file:
            self._file.close()

    def write(self, record: Record) -> None:
        try:
            # a name that is no UTF-8 holds lone surrogates, which JSON writes as the escapes that this makes
            line = (json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8", "backslashreplace")
        except ValueError as error:
            raise UserError(
                f"{record['image']}: the model gives numbers that are not finite; use --precision fp32 or bf16"
            ) from error
        try:
            self._write(line)
        except OSError as error:
            reason = "a pipe that nobody reads" if error.errno == errno.ENXIO else error.strerror
            raise UserError(f"{self.path}: cannot be written ({reason}); its lines are whole") from error

    def _write(self, line: bytes) -> None:
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            whole = _whole_bytes(self.path) if self.append else 0
            self._file = FileIO(self.path, "ab" if self.append else "wb", opener=_open_at_once)
            if whole is not None and self.append:
                self._file.truncate(whole)
        written = 0
        try:
            while written < len(line):
                written += self._file.write(line[written:])
        except OSError:
            if written:
                self._file.truncate(self._file.tell() - written)
            raise


def _open_at_once(path: str, flags: int) -> int:
    """Open a file without waiting for the reader of a named pipe, who may never come; writing waits as it should."""
    handle = os.open(path, flags | getattr(os, "O_NONBLOCK", 0), 0o666)  # Windows lacks it
    if os.name == "posix":
        os.set_blocking(handle, True)
    return handle


def finished(path: Path, is_of_task: Callable[[Record], bool]) -> set[str]:
    """The pictures about which a file holds whole lines; none if there is no file.

    Raises:
        UserError: for a line that is no record of the same task, with its number.
    """
    try:
        with open_regular(path) as file:
            lines = file.read().split(b"\n")[:-1]  # a last line without its end was interrupted
    except MissingFile:
        return set()
    images: set[str] = set()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record: Any = json.loads(line.decode())  # of bytes, `loads` takes UTF-16 too
            same_task = isinstance(record["image"], str) and is_of_task(record)
        except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
            same_task, record = False, None
        if not same_task:
            raise UserError(
                f"{path}, line {number}: not written by this command with the same flags; --resume cannot go on with it"
            )
        images.add(record["image"])
    return images


def _whole_bytes(path: Path) -> int | None:
    """How many bytes of a file are whole lines; None if there is no file."""
    try:
        with open_regular(path) as file:
            return file.read().rfind(b"\n") + 1
    except MissingFile:
        return None
