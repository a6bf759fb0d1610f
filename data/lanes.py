"""Lanes: each epoch, whole shards are dealt to a fixed number of lanes, and a process reads the shards of its own only.

Without lanes all processes read at random from the same few shards, so that each of them opens every shard there is.
"""

import functools
import heapq
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from data.order import Order, Pieces, in_windows, mixed, passes, permutation, starts_of
from settings import ConfigError

_WINDOW = 4
"""Parts of a lane (shards, or row groups of a Parquet file) that are read in turns. With four lanes a process, its
batches come from 16 parts, as without lanes; with more, remote shards would take more room on the local disk."""
_STRETCH = 2**14  # samples of a lane of which each has the same share from lists: few, as a process may have many lanes
_PIECE = 2**12  # indices of lists that are made at once
_DEAL, _SHARDS, _LISTS, _MIX = 1, 2, 3, 4  # what random numbers are drawn for, as a part of their key


def deal(sizes: np.ndarray, lanes: int, key: Sequence[int]) -> list[np.ndarray]:
    """Deal shards of `sizes` samples to `lanes` in a way drawn from `key`: the numbers of the shards of each lane.

    A shard goes to the lane that has the fewest samples so far. Large ones are dealt first, for lanes that are about
    equal at the end; those of about one size in random order, so that every epoch has other lanes.
    """
    sequence = np.random.default_rng(key).permutation(len(sizes))
    magnitudes = np.frexp(sizes[sequence])[1]  # equal for sizes between two powers of two
    dealt: list[list[int]] = [[] for _ in range(lanes)]
    filled = [(0, lane) for lane in range(lanes)]
    for shard in sequence[np.argsort(-magnitudes, kind="stable")].tolist():
        samples, lane = filled[0]
        dealt[lane].append(shard)
        heapq.heapreplace(filled, (samples + int(sizes[shard]), lane))
    return [np.array(shards, np.int64) for shards in dealt]


class Lanes:
    """The order of epochs in `count` lanes, each of which reads the shards dealt to it, one file after the other.

    Records of lists may be dealt among them, too. All that is drawn at random is drawn from (seed, epoch). Raises
    ConfigError where there are fewer shards than lanes.

    Args:
        sizes: [parts], the samples that are read together: of a tar, or of a row group of a Parquet file.
        shard: [parts], the number of the shard that a part belongs to; the parts of one are neighbors.
        window: how many parts a process may read in turns.
    """

    def __init__(self, count: int, sizes: np.ndarray, shard: np.ndarray, *, window: int, seed: int) -> None:
        self.count = count
        self.seed = seed
        self._sizes, self._starts, self._shard = sizes, starts_of(sizes), shard
        self._window = min(_WINDOW, max(1, window // _WINDOW))
        self._of_shard = np.bincount(shard, weights=sizes).astype(np.int64)
        holding = int(np.count_nonzero(self._of_shard))
        if holding < count:
            raise ConfigError(
                f"shard_lanes = {count}: every lane reads shards of its own, and there are {holding} with samples: "
                f"at most {holding} lanes, or more, smaller shards"
            )

    def order(self, epoch: int, in_lists: int = 0, shards_share: float | None = None) -> Order:
        """The order of an epoch over the samples of the shards and, counted after them, `in_lists` records of lists.

        Every lane takes as many samples as the shortest one has, and an equal number of records of lists. With
        `shards_share`, that share of their sum comes from the shards.
        """
        key = (self.seed, epoch)
        dealt = deal(self._of_shard, self.count, (*key, _DEAL))
        in_shards = int(self._of_shard.sum())
        from_shards = min(int(self._of_shard[shards].sum()) for shards in dealt)
        left_out = 0 if shards_share is not None else in_shards - from_shards * self.count
        if not in_lists:
            lanes = [partial(self._pass, key, number, shards, 0) for number, shards in enumerate(dealt)]
            return Order(lanes, from_shards, left_out)
        length = from_shards + max(1, in_lists // self.count)
        if shards_share is not None:
            from_shards = round(length * shards_share)
        from_lists = length - from_shards

        @functools.lru_cache(64)  # all lanes of a process share them
        def permuted(number: int) -> Callable[[np.ndarray], np.ndarray]:
            """The order of the lists' records in a pass."""
            return permutation(in_lists, (*key, _LISTS, number))

        def lane(number: int, shards: np.ndarray) -> Pieces:
            """The samples of a lane's shards, and among them its part of the lists."""
            size = in_shards + in_lists
            places = range(number * from_lists, (number + 1) * from_lists)
            of_lists = (listed + in_shards for listed in _listed(permuted, places, in_lists, size))
            of_shards = passes(partial(self._pass, key, number, shards), size)
            return mixed(of_lists, of_shards, length, from_shards / length, (*key, _MIX, number), _STRETCH)

        return Order([partial(lane, n, shards) for n, shards in enumerate(dealt)], length, left_out)

    def _pass(self, key: tuple[int, int], lane: int, shards: np.ndarray, number: int) -> Pieces:
        """The indices of the samples of a lane's shards, in the order of the lane's pass `number` over them."""
        rng = np.random.default_rng((*key, _SHARDS, lane, number))
        shards = rng.permutation(shards)
        first = np.searchsorted(self._shard, shards).tolist()
        end = np.searchsorted(self._shard, shards, side="right").tolist()
        parts = np.concatenate([rng.permutation(np.arange(*ends)) for ends in zip(first, end, strict=True)])
        return in_windows(self._starts, self._sizes, parts, self._window, rng)


def _listed(
    permuted: Callable[[int], Callable[[np.ndarray], np.ndarray]], places: range, in_lists: int, size: int
) -> Pieces:
    """The indices at `places` of an endless sequence of passes over the records of lists, counted from 0.

    Args:
        permuted: number of a pass -> its permutation of the records.
        size: the records of the epoch, by which indices of a pass are larger than those of the pass before.
    """
    start = places.start
    while start < places.stop:
        number = start // in_lists
        end = min(places.stop, start + _PIECE, (number + 1) * in_lists)
        yield permuted(number)(np.arange(start, end) - number * in_lists) + number * size
        start = end
