"""The order of an epoch: made in pieces, the same indices as if it were made as a whole."""

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from data import order as order_module
from data.order import Order, by_shard, in_one_lane, listed, mixed, passes, permutation, shuffled
from files import REPOSITORY


def joined(pieces):
    return np.concatenate([np.zeros(0, np.int64), *pieces])


def test_shards_are_shuffled_within_a_window_of_files():
    sizes = [5, 0, 7, 3, 6, 4]
    indices = joined(by_shard(sizes, (0, 0), window=2))
    assert sorted(indices.tolist()) == list(range(25))
    shard_of = np.repeat(np.arange(6), sizes)[indices]
    seen = [shard for i, shard in enumerate(shard_of) if i == 0 or shard != shard_of[i - 1]]
    first_and_last = {shard: (np.flatnonzero(shard_of == shard)[[0, -1]]) for shard in set(seen)}
    open_at_once = [sum(first <= i <= last for first, last in first_and_last.values()) for i in range(25)]
    assert max(open_at_once) == 2
    assert joined(by_shard(sizes, (0, 1), window=2)).tolist() != indices.tolist()


def test_a_mixture_has_its_share_and_passes_again_through_what_is_too_small():
    asked = []

    def small(number):
        asked.append(number)
        return listed(10, (0, number))

    large = (piece + 10 for piece in listed(100, (1,)))
    indices = joined(mixed(passes(small, 110), large, 80, 0.25, (0,)))
    records = indices % 110
    from_large = records >= 10
    assert from_large.sum() == 20
    assert len(set(records[from_large].tolist())) == 20
    assert np.bincount(records[~from_large]).tolist() == [6] * 10
    assert asked == [0, 1, 2, 3, 4, 5]
    assert 0 < from_large[:40].sum() < 20  # mixed, not one after the other
    number = indices[~from_large] // 110
    assert number.tolist() == sorted(number.tolist())  # a pass after the other
    assert len(set(indices.tolist())) == 80  # no index twice, so no sample is drawn alike twice


def test_what_is_made_in_pieces_is_what_is_made_at_once(monkeypatch):
    """The same draws, and each stretch of a mixture has the share."""
    whole = joined(
        mixed(passes(lambda _: listed(40, (1,)), 100), passes(lambda _: listed(60, (2,)), 100), 100, 0.6, (3,))
    )
    monkeypatch.setattr(order_module, "_PIECE", 7)
    small = joined(
        mixed(passes(lambda _: listed(40, (1,)), 100), passes(lambda _: listed(60, (2,)), 100), 100, 0.6, (3,))
    )
    assert small.tolist() == whole.tolist()
    zeros, ones = itertools.repeat(np.zeros(9, int)), itertools.repeat(np.ones(9, int))
    stretches = joined(mixed(zeros, ones, 100, 0.6, (3,), stretch=30))
    assert [int(stretches[i : i + 30].sum()) for i in range(0, 100, 30)] == [18, 18, 18, 6]
    monkeypatch.setattr(order_module, "_WHOLE", 30)
    parts = list(listed(100, (1,)))
    assert [len(part) for part in parts] == [7] * 14 + [2]
    assert sorted(joined(parts).tolist()) == list(range(100))
    assert joined(parts).tolist() == permutation(100, (1,))(np.arange(100)).tolist()


@pytest.mark.parametrize("size", [1, 2, 3, 5, 16, 17, 1000, 10_007])
def test_a_permutation_holds_each_index_once_and_depends_on_its_key(size):
    permuted = permutation(size, (5, 1))
    indices = permuted(np.arange(size))
    assert sorted(indices.tolist()) == list(range(size))
    some = np.array([0, size - 1, size // 2, 0])
    assert permuted(some).tolist() == indices[some].tolist()
    if size >= 1000:
        other = permutation(size, (5, 2))(np.arange(size))
        assert (other == indices).sum() < 10  # one in `size` by chance


def test_a_permutation_is_as_random_as_a_shuffle():
    """Where an index goes, how far neighbors come apart, and what follows what: as the even distribution says."""
    size, keys = 2000, 400
    found = np.stack([permutation(size, (key, 1))(np.arange(size)) for key in range(keys)])
    counts = np.bincount((found[:, [0, 1, size - 1]] // 100 + 20 * np.arange(3)).ravel(), minlength=60)
    assert ((counts - 20) ** 2 / 20).sum() < 57 + 4 * np.sqrt(2 * 57)  # chi-square, 3 * 19 degrees of freedom
    distances = np.abs(np.diff(found, axis=1))
    assert distances.mean() == pytest.approx((size**2 - 1) / (3 * size), rel=0.01)
    assert (distances == 1).mean() == pytest.approx(2 / size, rel=0.1)
    correlations = [np.corrcoef(row, np.arange(size))[0, 1] for row in found]
    assert np.std(correlations) == pytest.approx(1 / np.sqrt(size), rel=0.15)


def test_processes_share_out_what_one_reads_and_begin_anywhere():
    order = in_one_lane(103, lambda: iter(np.array_split(shuffled(103, (1,)), 13)))
    whole = list(order.share(12))
    assert np.concatenate(whole).tolist() == shuffled(103, (1,))[:96].tolist()
    for world_size in (2, 3, 12):
        shares = [list(order.share(12 // world_size, rank, world_size)) for rank in range(world_size)]
        assert [np.concatenate(parts).tolist() for parts in zip(*shares, strict=True)] == [b.tolist() for b in whole]
    assert [part.tolist() for part in order.share(4, 2, 3, start_batch=5)] == [b[8:].tolist() for b in whole[5:]]


def test_each_lane_fills_its_part_of_every_batch():
    def lane(number):
        return lambda: iter([np.array([10 * number]), 10 * number + np.arange(1, 9)])

    order = Order([lane(0), lane(1), lane(2), lane(3)], length=7)
    assert [batch.tolist() for batch in order.share(8)] == [
        [0, 1, 10, 11, 20, 21, 30, 31],
        [2, 3, 12, 13, 22, 23, 32, 33],
        [4, 5, 14, 15, 24, 25, 34, 35],
    ]
    assert [batch.tolist() for batch in order.share(4, 1, 2, start_batch=1)] == [[22, 23, 32, 33], [24, 25, 34, 35]]
    assert len(order) == 28


_MEMORY_OF_ORDERS = """
from itertools import islice
from pathlib import Path
import numpy as np
from data.lanes import Lanes
from data.order import by_shard, in_one_lane, listed, mixed, passes

sizes, in_lists = np.random.default_rng(0).integers(9_000, 11_001, 11_500), 1_000_000
in_shards = int(sizes.sum())
lanes = Lanes(384, sizes, np.arange(len(sizes)), window=16, seed=0)
lists, shards = lambda _: listed(in_lists, (1,)), lambda _: by_shard(sizes, (2,))
size = in_shards + in_lists
orders = [
    in_one_lane(in_shards, lambda: by_shard(sizes, (0,))),
    in_one_lane(in_shards, lambda: listed(in_shards, (0,))),
    in_one_lane(size, lambda: mixed(passes(lists, size), passes(shards, size), size, 0.9, (3,))),
    lanes.order(0),
    lanes.order(0, in_lists, 0.9),
]
for order in orders:
    for _ in islice(order.share(9600, start_batch=50), 3):
        pass
print(in_shards)
print(next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")).split()[1])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak memory where Linux tells it")
def test_the_order_of_115_million_samples_in_11_500_shards_takes_less_than_200_mb_on_one_process():
    """Any order, in the midst of an epoch: the whole process, whose memory grew by none that came before."""
    command = [sys.executable, "-c", _MEMORY_OF_ORDERS]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    samples, kibibytes = map(int, done.stdout.split())
    assert samples > 114e6
    assert kibibytes * 1024 < 200e6
