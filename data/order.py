"""The order in which an epoch uses its samples: made in pieces while it is used, and never kept as a whole.

An index names a record and how often the epoch has used that record before: `index % size` is the record, of `size`
that the epoch can draw from, and `index // size` the pass over its source. In the first pass they are the same.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

_WHOLE = 2**24  # records of a list that are shuffled as a whole, in 64 MB; a longer list is permuted in pieces
_PIECE = 2**12  # indices that are made at once, where not a whole window or list is shuffled; they fit into a cache
_ROUNDS = 4  # of `permutation`; after two, neighbors are apart, and four are the customary number

Pieces = Iterator[np.ndarray]
"""Arrays of indices, of any lengths, one after the other."""


@dataclass(frozen=True)
class Order:
    """The indices of an epoch, in lanes that are read side by side: each fills an equal part of every global batch.

    The first of L lanes fills the first L-th of each global batch, and so on. Lanes are a property of the order, not of
    the processes: where these are at most as many, and L is a multiple of them, each reads lanes of its own.

    Attributes:
        lanes: each makes its indices from the first on, `length` of them or more.
        length: the indices of each lane that the epoch uses.
        left_out: the samples that it does not use, as other lanes are shorter than theirs.
    """

    lanes: Sequence[Callable[[], Pieces]]
    length: int
    left_out: int = 0

    def __len__(self) -> int:
        return len(self.lanes) * self.length

    def share(self, batch_size: int, rank: int = 0, world_size: int = 1, start_batch: int = 0) -> Iterator[np.ndarray]:
        """A process's indices [batch_size] in each whole global batch from `start_batch` on.

        The global batch, `batch_size * world_size`, must be a multiple of the lanes.
        """
        in_lane = batch_size * world_size // len(self.lanes)
        first = rank * batch_size
        own = range(first // in_lane, -(-(first + batch_size) // in_lane))
        readers = [_Reader(self.lanes[lane]()) for lane in own]
        for reader in readers:
            reader.skip(start_batch * in_lane)
        for _ in range(start_batch, self.length // in_lane):
            indices = np.concatenate([reader.take(in_lane) for reader in readers])
            yield indices[first - own[0] * in_lane :][:batch_size]


def in_one_lane(size: int, pieces: Callable[[], Pieces]) -> Order:
    """The order of `size` indices that every process makes, to take its part of each global batch."""
    return Order([pieces], size)


class _Reader:
    """Takes indices off a stream of pieces."""

    def __init__(self, pieces: Pieces) -> None:
        self._pieces = pieces
        self._rest = np.zeros(0, np.int64)

    def _parts(self, count: int) -> Pieces:
        while count:
            if not len(self._rest):
                self._rest = next(self._pieces)
            part, self._rest = self._rest[:count], self._rest[count:]
            count -= len(part)
            yield part

    def take(self, count: int) -> np.ndarray:
        """The next `count` indices."""
        parts = list(self._parts(count))
        return parts[0] if len(parts) == 1 else np.concatenate([self._rest[:0], *parts])

    def skip(self, count: int) -> None:
        """Leave out the next `count` indices."""
        for _ in self._parts(count):
            pass


def shuffled(size: int, key: Sequence[int]) -> np.ndarray:
    """0..size-1 in an order drawn from `key`, as the smallest integers that hold it (4 bytes up to 4 billion)."""
    indices = np.arange(size, dtype=_integers(size))
    np.random.default_rng(key).shuffle(indices)
    return indices


def listed(size: int, key: Sequence[int]) -> Pieces:
    """0..size-1 in an order drawn from `key`."""
    if size <= _WHOLE:
        yield shuffled(size, key)
        return
    permuted = permutation(size, key)
    for first in range(0, size, _PIECE):
        yield permuted(np.arange(first, min(first + _PIECE, size)))


def permutation(size: int, key: Sequence[int]) -> Callable[[np.ndarray], np.ndarray]:
    """A permutation of 0..size-1 drawn from `key`, of which any part can be computed alone: places -> indices.

    A Feistel network whose round functions are drawn as tables, on a rectangle of rows and columns that holds all of
    0..size-1: a row is moved by what its column says, then the column by what its row says, and so on. What lands in
    the rectangle's last cells, past `size`, is sent through again until it does not.
    """
    columns = math.isqrt(max(size - 1, 0)) + 1
    rows = max(-(-size // columns), 1)
    rng = np.random.default_rng(key)
    moves = [
        (rng.integers(rows, size=columns, dtype=np.uint32), rng.integers(columns, size=rows, dtype=np.uint32))
        for _ in range(_ROUNDS)
    ]

    def permuted(places: np.ndarray) -> np.ndarray:
        row, column = (places // columns).astype(np.uint32), (places % columns).astype(np.uint32)
        for of_column, of_row in moves:
            row = _wrapped(row + of_column[column], rows)
            column = _wrapped(column + of_row[row], columns)
        indices = row.astype(np.int64) * columns + column
        outside = indices >= size
        if outside.any():
            indices[outside] = permuted(indices[outside])
        return indices

    return permuted


def _wrapped(sums: np.ndarray, end: int) -> np.ndarray:
    """Sums of two numbers below `end`, modulo `end`; several times as fast as a division."""
    return np.minimum(sums, sums - np.uint32(end))  # unsigned: what would be negative is very large


def by_shard(sizes: Sequence[int] | np.ndarray, key: Sequence[int], window: int = 16) -> Pieces:
    """The indices of samples in shards of `sizes` samples: shards in random order, shuffled within `window` of them.

    Reading stays within `window` files at a time, which is faster on disks and network file systems.
    """
    sizes = np.asarray(sizes)
    rng = np.random.default_rng(key)
    return in_windows(starts_of(sizes), sizes, rng.permutation(len(sizes)), window, rng)


def starts_of(sizes: np.ndarray) -> np.ndarray:
    """The index of the first sample of each shard, in the smallest integers that hold all indices."""
    ends = np.cumsum(sizes, dtype=np.int64)
    return (ends - sizes).astype(_integers(int(ends[-1]) if len(ends) else 0))


def in_windows(
    starts: np.ndarray, sizes: np.ndarray, sequence: np.ndarray, window: int, rng: np.random.Generator
) -> Pieces:
    """The indices of the samples in the shards of `sequence`, shuffled within `window` of these.

    Args:
        starts, sizes: [shards], the first index and the number of samples of each shard there is.
        sequence: numbers of shards.
    """
    for first in range(0, len(sequence), window):
        shards = sequence[first : first + window]
        ranges = zip(starts[shards].tolist(), sizes[shards].tolist(), strict=True)
        piece = np.concatenate([np.arange(start, start + count, dtype=starts.dtype) for start, count in ranges])
        rng.shuffle(piece)
        yield piece


def passes(source: Callable[[int], Pieces], size: int) -> Pieces:
    """The indices that `source` gives for pass 0, then those for pass 1, and so on; `size` is that of the epoch."""
    yield from source(0)
    for number in itertools.count(1):
        for piece in source(number):
            for first in range(0, len(piece), _PIECE):
                yield piece[first : first + _PIECE] + np.int64(number * size)


def mixed(first: Pieces, second: Pieces, size: int, share: float, key: Sequence[int], stretch: int = _WHOLE) -> Pieces:
    """`size` indices at random places from two streams: the share `share` of them from `second`, the rest from `first`.

    Each stream keeps its order. Every stretch of `stretch` indices has this share.
    """
    rng = np.random.default_rng(key)
    of_first, of_second = _Reader(first), _Reader(second)
    for start in range(0, size, stretch):
        end = min(start + stretch, size)
        from_second = np.zeros(end - start, bool)
        from_second[: round(end * share) - round(start * share)] = True
        rng.shuffle(from_second)
        for place in range(0, len(from_second), _PIECE):
            places = from_second[place : place + _PIECE]
            count = int(places.sum())
            indices = np.empty(len(places), np.int64)
            indices[~places] = of_first.take(len(places) - count)
            indices[places] = of_second.take(count)
            yield indices


def _integers(size: int) -> type[np.unsignedinteger]:
    """The smallest integers, of 4 bytes or 8, that hold all below `size`."""
    return np.uint32 if size <= 2**32 else np.uint64
