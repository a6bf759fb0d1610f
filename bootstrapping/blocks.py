"""The rows of a run's scores, read in blocks of whole images, so that memory does not grow with the corpus."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from bootstrapping.arrow import compute
from bootstrapping.scores import SYNTHETIC, WEB, ScoreFile, UnreadableScores, parquet_file
from bootstrapping.uids import WrongUid, digits_of, number_of
from settings import UserError

if TYPE_CHECKING:
    import pyarrow as pa

Item = TypeVar("Item")
Result = TypeVar("Result")

ALL_COLUMNS = ("uid", "image", "source", "n", "text", "match", "cosine")
"""What the choice needs of a text."""

_ROWS, _BYTES = 1 << 16, 1 << 27  # of a block, about, whichever is less
_THREADS = 2


class CollidingUids(UserError):
    """Two images have the same uid."""


@dataclass(frozen=True)
class Block:
    """All texts of some images that follow each other in one score file: `table`, whose columns are one chunk each."""

    path: Path
    table: "pa.Table"

    def __len__(self) -> int:
        return self.table.num_rows

    def column(self, name: str) -> "pa.Array":
        column = self.table.column(name)
        return column.chunk(0) if column.num_chunks else column.combine_chunks()

    def numbers(self, name: str) -> np.ndarray:
        return self.column(name).to_numpy()

    @cached_property
    def synthetic(self) -> np.ndarray:
        """Whether each text is the captioner's: bool [rows]."""
        pc = compute()
        source = self.column("source")
        synthetic = pc.equal(source, SYNTHETIC).to_numpy(zero_copy_only=False)
        if not (synthetic | pc.equal(source, WEB).to_numpy(zero_copy_only=False)).all():
            raise UnreadableScores(f"{self.path}: column source holds other values than {WEB} and {SYNTHETIC}")
        return synthetic

    @cached_property
    def _images(self) -> tuple[np.ndarray, np.ndarray]:
        """The first row and the uid of each image."""
        uids = self.column("uid")
        try:
            digits = digits_of(uids)
            is_first = np.ones(len(self), bool)
            is_first[1:] = (digits[1:] != digits[:-1]).any(axis=1)
            firsts = np.flatnonzero(is_first)
            numbers = number_of(uids.take(firsts))
        except WrongUid as error:
            raise UnreadableScores(f"{self.path}: {error}") from None
        names = self.column("image")
        renamed = compute().not_equal(names.slice(1), names.slice(0, len(names) - 1)).to_numpy(zero_copy_only=False)
        wrong = np.flatnonzero(renamed & ~is_first[1:])
        if len(wrong):
            row = int(wrong[0])
            raise colliding(str(uids[row]), [(self.path, str(names[row + i])) for i in (0, 1)])
        return firsts, numbers

    @property
    def firsts(self) -> np.ndarray:
        """The first row of each image: int64 [images]. Raises CollidingUids where the next image has the same uid."""
        return self._images[0]

    @property
    def uids(self) -> np.ndarray:
        """The uid of each image: bytes [images], 16 each."""
        return self._images[1]

    @cached_property
    def image_numbers(self) -> np.ndarray:
        """Which of the block's images each row is of, counted from 0: int64 [rows]."""
        return np.repeat(np.arange(len(self.firsts)), np.diff(self.firsts, append=len(self)))

    @cached_property
    def places(self) -> np.ndarray:
        """The order of an image's texts, of which the web's go first: int64 [rows]."""
        return self.synthetic * np.int64(1 << 32) + self.numbers("n")

    @cached_property
    def text_keys(self) -> np.ndarray:
        """Numbers that are equal for equal texts of an image: int64 [rows]."""
        texts = self.column("text").dictionary_encode()
        return self.image_numbers * np.int64(len(texts.dictionary)) + texts.indices.to_numpy()


def colliding(uid: str, places: Sequence[tuple[Path, str]]) -> CollidingUids:
    """The error of a uid that stands in two places (score file and image)."""
    (first, one), (second, other) = places
    if one == other:
        return CollidingUids(
            f"image {one} stands twice in the scores, in {first} and in {second}: if a run with other settings wrote "
            "one of them, delete it"
        )
    return CollidingUids(
        f"uid {uid} is that of two images, {one} ({first}) and {other} ({second}): give each image of the corpus a uid "
        "of its own and run capfilt.py again"
    )


def blocks(files: Iterable[ScoreFile], columns: Sequence[str] = ALL_COLUMNS) -> Iterator[Block]:
    """The rows of the files in their order. Raises UnreadableScores for a damaged file.

    Without "uid" among the columns, blocks are cut between any two rows.
    """
    for file in files:
        rest: pa.Table | None = None
        for read in _tables(file, columns):
            table = read if rest is None else _one_chunk([rest, read])
            if "uid" in columns:
                start = _start_of_last_image(table)
                rest, table = table.slice(start), table.slice(0, start)
            if table.num_rows:
                yield Block(file.path, table)
        if rest is not None:
            yield Block(file.path, rest)


def _tables(file: ScoreFile, columns: Sequence[str]) -> "Iterator[pa.Table]":
    import pyarrow as pa

    rows = 0
    with parquet_file(file.path) as opened:
        groups = map(opened.metadata.row_group, range(opened.num_row_groups))
        size = sum(group.total_byte_size for group in groups)
        at_once = max(1, min(_ROWS, _BYTES * file.rows // max(1, size)))
        for batch in opened.iter_batches(at_once, columns=list(columns)):
            rows += batch.num_rows
            if batch.num_rows == 0:
                continue
            batch.validate(full=True)  # among others, that texts are UTF-8
            empty = [name for name in columns if batch.column(name).null_count]
            if empty:
                raise UnreadableScores(f"{file.path}: column {empty[0]} lacks values")
            yield pa.Table.from_batches([batch])
    if rows != file.rows:  # a damaged header hides a page
        raise UnreadableScores(
            f"{file.path}: {rows} of {file.rows} rows can be read; delete it and run capfilt.py again, which makes it "
            "anew"
        )


def _one_chunk(tables: "list[pa.Table]") -> "pa.Table":
    import pyarrow as pa

    return pa.concat_tables(tables).combine_chunks()


def _start_of_last_image(table: "pa.Table") -> int:
    pc = compute()
    uid = table.column("uid").chunk(0)
    others = np.flatnonzero(pc.not_equal(uid, uid[-1]).to_numpy(zero_copy_only=False))
    return int(others[-1]) + 1 if len(others) else 0


def in_order(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """`work` of each item, in the items' order, done by threads that are a few items ahead of the reader."""
    with ThreadPoolExecutor(_THREADS) as pool:
        waiting: deque[Future[Result]] = deque()
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > 2 * _THREADS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
