"""Samplers: which samples are in which batch, as a pure function of seed, epoch, rank and position.

A training batch is a list of `(epoch, index)` pairs, so a dataset can draw a sample's augmentation from
(seed, epoch, index) whichever worker loads it. Global batch g is a slice of the epoch's order, split among the
processes in rank order: W processes with batches of B see, step by step, what one process with batches of W * B sees.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from settings import ConfigError


class TrainSampler:
    """The batches of one process; `set_epoch` chooses the epoch and the batch to start at.

    `order(epoch)` gives the epoch's indices in the order of use. The last, incomplete global batch is left out.
    """

    def __init__(self, order: Callable[[int], np.ndarray], batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        self.order = order
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size
        self.set_epoch(0)

    def set_epoch(self, epoch: int, start_batch: int = 0) -> None:
        """Go to `epoch`; iteration starts at its batch `start_batch`, reading nothing of those before."""
        self.epoch = epoch
        self.start_batch = start_batch
        self._indices = self.order(epoch)
        if not len(self._indices):
            raise ConfigError(f"the training set of epoch {epoch} has no samples")
        if not len(self):
            raise ConfigError(
                f"the training set has {len(self._indices)} samples, fewer than one step takes (batch size "
                f"{self.batch_size} on {self.world_size} process(es)): lower the batch size"
            )

    def __len__(self) -> int:
        """The batches of a whole epoch, whatever `start_batch`."""
        return len(self._indices) // (self.batch_size * self.world_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for batch in range(self.start_batch, len(self)):
            start = (batch * self.world_size + self.rank) * self.batch_size
            yield [(self.epoch, int(index)) for index in self._indices[start : start + self.batch_size]]


class EvalSampler:
    """The batches of one process's share of 0..size-1; the shares of all processes hold each index exactly once.

    A share is a consecutive range, so results joined in rank order are in the dataset's order.
    """

    def __init__(self, size: int, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        self.share = range(size * rank // world_size, size * (rank + 1) // world_size)
        self.batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self.share) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        return (list(self.share[i : i + self.batch_size]) for i in range(0, len(self.share), self.batch_size))


def shuffled(size: int, key: Sequence[int]) -> np.ndarray:
    """0..size-1 in an order drawn from `key`, as the smallest integers that hold it (4 bytes up to 4 billion)."""
    indices = np.arange(size, dtype=np.uint32 if size <= 2**32 else np.uint64)
    np.random.default_rng(key).shuffle(indices)
    return indices


def shuffled_by_shard(sizes: Sequence[int] | np.ndarray, key: Sequence[int], window: int = 16) -> np.ndarray:
    """The indices of samples in shards of `sizes` samples: shards in random order, shuffled within `window` of them.

    Reading stays within `window` files at a time, which is faster on disks and network file systems.
    """
    starts = [0, *np.cumsum(sizes, dtype=np.int64).tolist()]
    rng = np.random.default_rng(key)
    shards = rng.permutation(len(sizes))
    pieces: list[np.ndarray] = []
    for first in range(0, len(shards), window):
        piece = np.concatenate([np.arange(starts[s], starts[s + 1]) for s in shards[first : first + window]])
        rng.shuffle(piece)
        pieces.append(piece)
    return np.concatenate(pieces)


def mixed(
    first: Callable[[int], np.ndarray], second: Callable[[int], np.ndarray], size: int, share: float, key: Sequence[int]
) -> np.ndarray:
    """`size` indices at random places from two sources: the share `share` of them from `second`, the rest from `first`.

    Each source gives its indices for a pass number, and keeps their order; where one pass is too short, the next
    follows.
    """
    from_second = np.zeros(size, dtype=bool)
    from_second[: round(size * share)] = True
    np.random.default_rng(key).shuffle(from_second)
    indices = np.empty(size, dtype=np.int64)
    for source, places in ((first, ~from_second), (second, from_second)):
        count = int(places.sum())
        taken: list[np.ndarray] = []
        while (have := sum(map(len, taken))) < count:
            taken.append(source(len(taken))[: count - have])
        indices[places] = np.concatenate([np.zeros(0, np.int64), *taken])
    return indices
