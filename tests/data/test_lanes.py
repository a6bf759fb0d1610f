"""Lanes: shards dealt to the processes, and still one sequence of global batches."""

import logging

import numpy as np
import pytest

from data.lanes import Lanes, deal
from data.sampler import TrainSampler
from settings import ConfigError

SIZES = np.random.default_rng(0).integers(20, 40, 30)
TARS = np.arange(30)


def lanes(count=8, sizes=SIZES, shard=TARS, window=16, seed=3):
    return Lanes(count, sizes, shard, window=window, seed=seed)


def sampler(rank=0, world_size=1, *, batch=48, epoch=1, start=0, in_lists=0, share=None, **values):
    made = lanes(**values)
    found = TrainSampler(lambda epoch: made.order(epoch, in_lists, share), batch // world_size, rank, world_size)
    found.set_epoch(epoch, start)
    return found


def batches(*args, **values):
    return [[index for _, index in batch] for batch in sampler(*args, **values)]


def shards_of(indices, sizes=SIZES):
    return np.repeat(np.arange(len(sizes)), sizes)[np.asarray(indices)]


@pytest.mark.parametrize("values", [{}, {"in_lists": 200}, {"in_lists": 200, "share": 0.9}, {"in_lists": 3}])
def test_global_batches_are_the_same_for_any_number_of_processes_and_after_a_resume(values):
    one = batches(**values)
    assert one == batches(**values)
    assert one != batches(epoch=2, **values)
    assert one != batches(seed=4, **values)
    for world_size in (2, 4, 8):
        shares = [batches(rank, world_size, **values) for rank in range(world_size)]
        assert [sum(parts, []) for parts in zip(*shares, strict=True)] == one
        resumed = [batches(rank, world_size, start=7, **values) for rank in range(world_size)]
        assert [sum(parts, []) for parts in zip(*resumed, strict=True)] == one[7:]


@pytest.mark.parametrize("values", [{}, {"in_lists": 200}, {"in_lists": 200, "share": 0.9}])
@pytest.mark.parametrize("world_size", [2, 4, 8])
def test_no_shard_is_read_by_two_processes(world_size, values):
    size = SIZES.sum() + values.get("in_lists", 0)
    seen = []
    for rank in range(world_size):
        records = np.concatenate(batches(rank, world_size, **values)) % size
        seen.append(set(shards_of(records[records < SIZES.sum()]).tolist()))
    assert sum(map(len, seen)) == len(set.union(*seen))
    assert max(map(len, seen)) <= -(-30 // world_size) + 2  # the shards are shared out about evenly


def test_an_epoch_uses_every_sample_once_as_far_as_the_shortest_lane_goes(caplog):
    with caplog.at_level(logging.INFO):
        indices = np.concatenate(batches(batch=8))
    dealt = deal(SIZES, 8, (3, 1, 1))
    shortest = min(SIZES[shards].sum() for shards in dealt)
    assert len(indices) == len(set(indices.tolist())) == 8 * shortest
    left_out = SIZES.sum() - 8 * shortest
    assert f"epoch 1 leaves out {left_out} samples of shards ({100 * left_out / SIZES.sum():.1f}% of" in caplog.text
    first, second = (set(np.concatenate(batches(batch=8, epoch=epoch)).tolist()) for epoch in (1, 2))
    assert first != second


def test_lanes_of_very_different_lengths_are_warned_of(caplog):
    found = batches(batch=4, count=2, sizes=np.array([100, 10, 10]), shard=np.arange(3))
    assert len(found) == 10
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "leaves out 80 samples of shards (66.7% of all samples)" in record.message
    assert record.message.endswith("Fewer shard_lanes, or more and smaller shards, leave out less")


def test_shards_are_dealt_evenly_and_otherwise_every_epoch():
    sizes = np.random.default_rng(1).integers(7_000, 9_000, 1150)
    dealt = [deal(sizes, 64, (0, epoch)) for epoch in range(2)]
    for lanes_of_epoch in dealt:
        assert sorted(np.concatenate(lanes_of_epoch).tolist()) == list(range(1150))
        totals = [sizes[shards].sum() for shards in lanes_of_epoch]
        assert max(totals) - min(totals) <= 9_000
    together = sum(len(set(a.tolist()) & set(b.tolist())) for a, b in zip(*dealt, strict=True))
    assert together < 3 * 1150 / 64  # by chance, a 64th of the shards comes into the same lane again


def test_small_shards_fill_what_large_ones_leave():
    sizes = np.array([1] * 40 + [100, 100, 100, 80])
    assert [int(sizes[shards].sum()) for shards in deal(sizes, 4, (0,))] == [105] * 4


@pytest.mark.parametrize("kind", ["tars", "row groups"])
def test_a_lane_reads_a_file_after_the_other_within_its_window(kind):
    """With row groups, those of one file come together, and only a window of them is in memory."""
    shard = TARS if kind == "tars" else np.repeat(np.arange(10), 3)
    dealt = deal(np.bincount(shard, weights=SIZES).astype(int), 2, (3, 1, 1))
    for lane in range(2):
        parts = shards_of(np.concatenate(batches(lane, 2, count=2, shard=shard, batch=2)))
        places = {part: np.flatnonzero(parts == part) for part in set(parts.tolist())}
        turns = [sum(p[0] <= i <= p[-1] for p in places.values()) for i in range(len(parts))]
        assert max(turns) <= 4
        files = shard[parts]
        spans = {file: np.flatnonzero(files == file) for file in set(files.tolist())}
        assert set(spans) <= set(dealt[lane].tolist())
        assert max(sum(p[0] <= i <= p[-1] for p in spans.values()) for i in range(len(files))) <= (
            4 if kind == "tars" else 3
        )


def test_large_row_groups_make_the_window_smaller():
    parts = shards_of(np.concatenate(batches(0, 2, count=2, window=2, batch=2)))
    assert (np.diff(parts) != 0).sum() == len(set(parts.tolist())) - 1  # one after the other


def test_records_of_lists_are_dealt_evenly_anew_each_epoch_and_pass():
    size = SIZES.sum() + 200
    made = np.concatenate(batches(in_lists=200, batch=8))
    records = made % size
    listed = records[records >= SIZES.sum()]
    assert np.bincount(listed - SIZES.sum(), minlength=200).tolist() == [1] * 200
    assert (made < size).all()

    more = np.concatenate(batches(in_lists=200, share=0.4, batch=8))
    assert len(set(more.tolist())) == len(more)  # a repeat has an index of its own
    rows = more % size
    in_lists = np.bincount(rows[rows >= SIZES.sum()] - SIZES.sum(), minlength=200)
    assert (rows < SIZES.sum()).mean() == pytest.approx(0.4, abs=0.01)
    assert in_lists.max() - in_lists.min() == 1

    own = [np.concatenate(batches(0, 8, in_lists=200, epoch=epoch)) % size for epoch in (1, 2)]
    first, second = (set(indices[indices >= SIZES.sum()].tolist()) for indices in own)
    assert len(first & second) < len(first) / 2


def test_fewer_records_than_lanes_are_still_read():
    indices = np.concatenate(batches(in_lists=3, batch=8))
    size = SIZES.sum() + 3
    listed = indices[indices % size >= SIZES.sum()]
    assert len(listed) == len(set(listed.tolist())) == 8
    assert np.bincount(listed % size - SIZES.sum()).tolist() in ([3, 3, 2], [3, 2, 3], [2, 3, 3])


@pytest.mark.parametrize(
    ("count", "batch", "world_size", "message"),
    [
        (6, 48, 4, "shard_lanes = 6: must be a multiple of the 4 processes, .* global batch of 48: 4 or 8$"),
        (20, 48, 4, "each of 4 process.es. reads 5 of them, .* its batch of 12: set shard_lanes to 16 or 24, or the"),
        (30, 48, 2, "set shard_lanes to 24 or 48, or the batch size to a multiple of 15$"),
        (4, 48, 8, "must be a multiple of the 8 processes, .*: 8$"),
    ],
)
def test_lanes_that_the_processes_cannot_share_out_are_refused_with_the_nearest_that_they_can(
    count, batch, world_size, message
):
    with pytest.raises(ConfigError, match=message):
        sampler(0, world_size, count=count, batch=batch)


def test_fewer_shards_than_lanes_are_refused():
    with pytest.raises(ConfigError, match=r"shard_lanes = 40: .* there are 29 with samples: at most 29 lanes"):
        lanes(40, np.where(TARS == 4, 0, SIZES))
