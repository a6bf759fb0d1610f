"""Annotation files as memory-mapped stores: a hundred million captions cost a loader worker next to no memory.

A JSON list or a JSON Lines file is read once, record by record, checked against its task's format, and written as an
Arrow file under `cache_dir()/annotations`. The store's name is made of the source's content and the format, so an
edited file gets a new store and a moved one keeps its own. Of several processes that start at once, one converts and
the others wait; a store appears whole or not at all.
"""

import bisect
import hashlib
import itertools
import json
import logging
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data.records.formats import Format
from data.records.table import Store, joined, store_once
from files import atomic_write, cache_dir
from settings import UserError

if TYPE_CHECKING:
    import pyarrow as pa

_log = logging.getLogger("blip.data")

_LAYOUT = 1  # raised when stores of an older program must not be read
_CHUNK = 1 << 22  # characters parsed at once
_LONGEST_RECORD = 1 << 26  # characters; what is longer is taken for broken JSON instead of being read to the file's end
_BETWEEN = re.compile(r"[\s,]*")


class AnnotationError(UserError, ValueError):
    """A file that is no list of records, or a record that is not in its format; names the file and the record."""


def records(source: Path) -> Iterator[Any]:
    """The values of a JSON list or JSON Lines file, one after the other, whatever the file's size.

    Raises AnnotationError where the file stops being JSON.
    """
    decode = json.JSONDecoder().raw_decode
    count = 0
    with source.open(encoding="utf-8-sig") as file:
        try:
            buffer = file.read(_CHUNK)
            position = _BETWEEN.match(buffer).end()
            listed = buffer[position : position + 1] == "["
            position += listed
            while True:
                position = _BETWEEN.match(buffer, position).end()
                if position == len(buffer):
                    buffer, position = file.read(_CHUNK), 0
                    if not buffer:
                        break
                    continue
                if listed and buffer[position] == "]":
                    rest = buffer[position + 1 :]
                    while rest:
                        if rest.strip():
                            raise AnnotationError(f"{source}: more follows the closing ]; are these several lists?")
                        rest = file.read(_CHUNK)
                    return
                try:
                    value, position = decode(buffer, position)
                except json.JSONDecodeError as error:
                    more = file.read(_CHUNK)
                    buffer, position = buffer[position:] + more, 0
                    if not more or len(buffer) > _LONGEST_RECORD:
                        raise AnnotationError(f"{source}, record {count + 1}: not valid JSON ({error.msg})") from None
                    continue
                count += 1
                yield value
        except UnicodeDecodeError as error:
            raise AnnotationError(f"{source}, after record {count}: not UTF-8 text ({error.reason})") from None
    if listed:
        raise AnnotationError(f"{source} ends after record {count} without the closing ]: is it a part of a file?")


class Annotations:
    """The records of one or several annotation files in one row, read from their memory-mapped stores.

    `annotations[row]` is a dict with every field of the format (None where an optional one is missing). Copies in
    other processes share the pages.
    """

    def __init__(self, sources: Sequence[str | Path], format: Format) -> None:
        self.sources = [Path(source) for source in sources]
        self._stores = [Store(store_of(source, format)) for source in self.sources]
        self._starts = list(itertools.accumulate(map(len, self._stores), initial=0))
        self._restore = {field.name: field.restore for field in format.fields if field.restore}

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, row: int) -> dict[str, Any]:
        file, row = self._find(row)
        record = self._stores[file][row]
        for name, restore in self._restore.items():
            if record[name] is not None:
                record[name] = restore(record[name])
        return record

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[row] for row in range(len(self)))

    def _find(self, row: int) -> tuple[int, int]:
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        file = bisect.bisect_right(self._starts, row) - 1
        return file, row - self._starts[file]

    def place(self, row: int) -> str:
        """Where row `row` comes from, for messages: the file and the number of the record in it, from 1."""
        file, row = self._find(row)
        return f"{self.sources[file]}, record {row + 1}"

    def column(self, name: str) -> "pa.ChunkedArray":
        """One field of all records, as stored; nothing is copied."""
        return joined(self._stores, name)

    def values(self, name: str) -> list[Any]:
        """One field of all records, as they have it (None where an optional one is missing)."""
        stored, restore = self.column(name).to_pylist(), self._restore.get(name)
        return [value if value is None else restore(value) for value in stored] if restore else stored

    def check_distinct(self, name: str, ids: Sequence[Any], rule: str = "it must be its own") -> None:
        """Raise AnnotationError for the first of `ids`, those of all records, that an earlier record has.

        Predictions meet what they are compared with by their ids: of two with one id, one would be lost.
        """
        row_of: dict[Any, int] = {}
        for row, value in enumerate(ids):
            first = row_of.setdefault(value, row)
            if first != row:
                raise AnnotationError(f"{self.place(row)} has the {name} {value!r} of {self.place(first)}: {rule}")

    def consecutive(self, *names: str) -> np.ndarray:
        """Equal values get equal numbers, counted from 0 by first appearance: int32 [len(self)].

        A record's value is that of the first of the fields `names` that it has.
        """
        import pyarrow.compute as pc  # is there: the stores were opened with it

        values = pc.coalesce(*(self.column(name) for name in names)).dictionary_encode()
        return np.concatenate([np.zeros(0, np.int32), *(chunk.indices.to_numpy() for chunk in values.chunks)])


def store_of(source: Path, format: Format) -> Path:
    """The store of `source` in `format`; made now if there is none yet.

    Raises AnnotationError for the first record that is wrong.
    """
    kind = repr((_LAYOUT, format.name, format.columns, format.either))
    key = hashlib.blake2b((_digest(source) + kind).encode(), digest_size=16).hexdigest()
    return store_once("annotations", key, format.columns, lambda: _rows(source, format))


def _rows(source: Path, format: Format) -> Iterator[list[Any]]:
    _log.info("reading %s (once: later starts find it in the cache)", source)
    for number, record in enumerate(records(source), start=1):
        try:
            yield format.row(record)
        except ValueError as error:
            raise AnnotationError(f"{source}, record {number}: {error}") from None


def _digest(source: Path) -> str:
    """The hash of the file's content, remembered for as long as its path, size and times of change stay the same."""
    status = os.stat(source)
    version = repr((str(source.absolute()), status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
    memo = cache_dir() / "annotations" / "digests" / hashlib.blake2b(version.encode(), digest_size=16).hexdigest()
    if memo.exists():
        return memo.read_text()
    digest = hashlib.blake2b(digest_size=16)
    with source.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    with atomic_write(memo) as temporary:
        temporary.write_text(digest.hexdigest())
    return digest.hexdigest()
