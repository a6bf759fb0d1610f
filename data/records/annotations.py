"""Annotation files, converted once to memory-mapped tables: 100 million captions take a worker next to no memory.

A JSON list or a JSON Lines file is read once, record by record, checked against its task's format, and written as an
Arrow file (a store) under `cache_dir()/annotations`. The store is named after a hash of the file's content and format:
an edited file gets a new store, a moved one keeps its own. Where several processes start at once, one converts and the
others wait; a store appears whole or not at all.
"""

import bisect
import hashlib
import itertools
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data.records.formats import Format
from data.records.json_values import AnnotationError as AnnotationError
from data.records.json_values import json_records
from data.records.parquet import is_parquet
from data.records.parquet_records import parquet_records
from data.records.published import annotation_file
from data.records.shards import matching_files
from data.records.table import Store, joined, store_once
from files import open_regular

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger("blip.data")

_LAYOUT = 3  # raise it when the stores of older versions must not be used


@dataclass(frozen=True)
class TextLimit:
    """How long the texts may be that a model reads whole.

    Attributes:
        count: a text -> its tokens.
        most: tokens that a text may have.
    """

    count: Callable[[str], int]
    most: int

    @property
    def sure(self) -> int:
        """Characters up to which a text is short enough: one gives at most three tokens, and two begin and end it."""
        return (self.most - 2) // 3

    def check(self, text: str, what: str) -> None:
        """Raise AnnotationError, which says what the text is, where it is too long."""
        if len(text) > self.sure and (tokens := self.count(text)) > self.most:
            raise AnnotationError(
                f"{what} has {tokens:,} tokens, and the text model reads {self.most:,} at most: shorten it "
                f"({text[:40]!r}...)"
            )


class Annotations:
    """The records of one or several annotation files, one after the other, read from their memory-mapped stores.

    `annotations[row]` is a dict with every field of the format (None where an optional one is missing). Copies in
    other processes share the memory. Records without a text in the field that the format needs are left out, and
    counted in the log; AnnotationError where all are.
    """

    def __init__(self, sources: Sequence[str | Path], format: Format) -> None:
        self.sources = [Path(source) for source in sources]
        self._stores = [store_of(source, format) for source in self.sources]
        self._starts = list(itertools.accumulate(map(len, self._stores), initial=0))
        self._decode = {field.name: field.decode for field in format.fields if field.decode}
        self._kept: np.ndarray | None = None  # the rows that are not left out; None where all are kept
        if format.needed and len(self):
            self._leave_out(format.needed)

    def _leave_out(self, needed: str) -> None:
        import pyarrow.compute as pc  # is there: the stores were opened with it

        lengths = pc.call_function("list_value_length", [self.column(needed)]).to_numpy()
        empty = np.flatnonzero(lengths == 0)
        if not len(empty):
            return
        first = self.place(int(empty[0]))
        if len(empty) == len(lengths):
            raise AnnotationError(f"{first}, and all others: {needed!r} is empty, or holds no word")
        logger.warning(
            "%d of %d records are left out, since their %s is empty or holds no word; the first is %s",
            *(len(empty), len(lengths), needed, first),
        )
        self._kept = np.flatnonzero(lengths)

    def __len__(self) -> int:
        return self._starts[-1] if self._kept is None else len(self._kept)

    def __getitem__(self, row: int) -> dict[str, Any]:
        file, row = self._find(row)
        record = self._stores[file][row]
        for name, decode in self._decode.items():
            if record[name] is not None:
                record[name] = decode(record[name])
        return record

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[row] for row in range(len(self)))

    def _find(self, row: int) -> tuple[int, int]:
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        if self._kept is not None:
            row = int(self._kept[row])
        file = bisect.bisect_right(self._starts, row) - 1
        return file, row - self._starts[file]

    def place(self, row: int) -> str:
        """Where row `row` comes from, for messages: the file and the number of the record in it, from 1."""
        file, row = self._find(row)
        return f"{self.sources[file]}, record {row + 1}"

    def column(self, name: str) -> "pa.ChunkedArray":
        """One field of all records, as stored; nothing is copied, unless some are left out."""
        column = joined(self._stores, name)
        return column if self._kept is None else column.take(self._kept)

    def values(self, name: str) -> list[Any]:
        """One field of all records (None where an optional one is missing)."""
        stored, decode = self.column(name).to_pylist(), self._decode.get(name)
        return [value if value is None else decode(value) for value in stored] if decode else stored

    def check_lengths(self, name: str, limit: TextLimit, clean: Callable[[str], str] = str) -> None:
        """Raise AnnotationError for the first text of the field (a text, or a list) that is longer than the limit.

        Args:
            clean: makes of a text what the model reads.
        """
        import pyarrow.compute as pc  # is there: the stores were opened with it

        start = 0
        for chunk in self.column(name).chunks:
            texts, rows = chunk, np.arange(len(chunk))
            if "list" in str(chunk.type):
                texts = pc.call_function("list_flatten", [chunk])
                rows = pc.call_function("list_parent_indices", [chunk]).to_numpy()
            lengths = pc.call_function("utf8_length", [texts]).to_numpy(zero_copy_only=False)
            for found in np.flatnonzero(lengths > limit.sure):
                limit.check(clean(texts[int(found)].as_py()), f"{self.place(start + int(rows[found]))}: {name!r}")
            start += len(chunk)

    def check_distinct(self, name: str, ids: Sequence[Any], rule: str = "it must be its own") -> None:
        """Raise AnnotationError for the first of `ids`, one for each record, that an earlier record has.

        Predictions and ground truth are matched by these ids: of two records with one id, one would be lost.
        """
        row_of: dict[Any, int] = {}
        for row, value in enumerate(ids):
            first = row_of.setdefault(value, row)
            if first != row:
                raise AnnotationError(f"{self.place(row)} has the {name} {value!r} of {self.place(first)}: {rule}")

    def factorize(self, *names: str) -> np.ndarray:
        """A number for each record, equal where their values are equal: int32 [len(self)].

        Numbers count from 0 in the order of first appearance, as by `pandas.factorize`. A record's value is that of
        the first of the fields `names` that it has; without any of them, it is an empty text.
        """
        import pyarrow as pa  # is there: the stores were opened with it
        import pyarrow.compute as pc

        columns = [self.column(name) for name in names]
        values = pc.call_function("coalesce", [*columns, pa.scalar("")]).dictionary_encode()
        return np.concatenate([np.zeros(0, np.int32), *(chunk.indices.to_numpy() for chunk in values.chunks)])


def list_files(patterns: Sequence[str], key: str, kind: str = "annotation file") -> list[Path]:
    """The files of lists: published ones, which are fetched when missing, and those of patterns.

    Raises MissingFile, in which a file is called `kind`, for one that is not there.
    """
    files: list[Path] = []
    for pattern in patterns:
        is_pattern = any(mark in pattern for mark in "*?[{") and not os.path.exists(os.path.expanduser(pattern))
        files += matching_files([pattern], key) if is_pattern else [annotation_file(pattern, kind)]
    return files


def records(source: Path, format: Format | None = None) -> Iterator[Any]:
    """The records of a list, a JSON or a Parquet file; of a Parquet file with only the fields of `format`, if given.

    Raises AnnotationError where the file stops being readable, or is in a layout of other tools.
    """
    return parquet_records(source, format) if is_parquet(source) else json_records(source)


def store_of(source: Path, format: Format) -> Store:
    """The store of `source` in `format`; made now if there is none yet.

    Raises AnnotationError for the first record that is wrong.
    """
    kind = repr((_LAYOUT, format.name, format.columns, format.either, format.columns_of))
    key = hashlib.blake2b((content_digest(source) + kind).encode(), digest_size=16).hexdigest()
    return store_once("annotations", key, format.columns, lambda: _rows(source, format))


def _rows(source: Path, format: Format) -> Iterator[list[Any]]:
    logger.info("reading %s (once: later starts find it in the cache)", source)
    for number, record in enumerate(records(source, format), start=1):
        try:
            yield format.to_row(record)
        except ValueError as error:
            raise AnnotationError(f"{source}, record {number}: {error}") from None


def content_digest(source: Path) -> str:
    """The hash of the file's content, cached for as long as its path, inode, size and times stay the same."""
    with open_regular(source) as file:
        status = os.fstat(file.fileno())
    version = repr((str(source.absolute()), status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
    key = hashlib.blake2b(version.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
    return store_once("annotations/digests", key, {"digest": "string"}, lambda: [[_hash(source)]])[0]["digest"]


def _hash(source: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with open_regular(source) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
