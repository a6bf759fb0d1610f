"""What the simulation of many loader workers counts, on epochs small enough to follow by hand."""

import numpy as np
import pytest

from benchmarks import readers as readers_module
from benchmarks.readers import Readers, figures, follow, neighbors_apart
from benchmarks.shard_orders import order_of
from data.order import in_one_lane


def test_shards_are_counted_for_the_worker_that_reads_a_sample():
    """Two processes with two workers, batches of 2; shards of 4, 4 and 2 samples."""
    sizes = np.array([4, 4, 2])
    order = [0, 4, 1, 8, 2, 5, 3, 9, 6, 7]
    reading = follow(in_one_lane(10, lambda: iter([np.array(order)])), sizes, Readers(2, 2, 2))
    # Batch 0 is {0, 4 | 1, 8}, for the first workers; batch 1 is {2, 5 | 3, 9}, for the second; 6 and 7 are left out.
    assert reading.opened.astype(int).tolist() == [[[1, 1, 0], [1, 1, 0]], [[1, 0, 1], [1, 0, 1]]]
    assert reading.place.tolist() == [0, 2, 4, 6, 1, 5, 10, 10, 3, 7]
    assert (reading.in_batch, reading.in_global_batch) == (2, 3)
    found = figures(reading, sizes, Readers(2, 2, 2))
    assert (found["opened_by_worker"], found["opened_by_process"], found["opened_in_all"]) == (2, 2, 8)
    assert found["read_bytes_of_process"] == 4 * 40_000
    assert found["opened_bytes_of_process"] == 8 * 40_000
    assert found["left_out"] == pytest.approx(0.2)
    # Neighbors: 0-1, 1-2, 2-3 are 2 apart, 4-5 are 4, 8-9 are 4.
    assert found["median_steps_apart"] == 2 / 4


def test_neighbors_of_two_shards_are_none():
    place = np.array([5, 0, 3, 6, 1, 2], np.uint32)  # the fourth is not used
    assert neighbors_apart(place, np.array([2, 4])).tolist() == [5, 1]


def test_lanes_open_less_and_mix_more(monkeypatch):
    """By the arithmetic: 64 shards of 100 samples on 4 processes of 2 workers, in 8 lanes."""
    monkeypatch.setattr(readers_module, "_LOOKED_INTO", 1)
    sizes, readers = np.full(64, 100), Readers(4, 2, 10)
    without = figures(follow(order_of(sizes, 0), sizes, readers), sizes, readers)
    found = figures(follow(order_of(sizes, 8), sizes, readers), sizes, readers)
    assert (without["opened_by_worker"], without["opened_in_all"]) == (64, 64 * 8)
    assert (found["opened_by_worker"], found["opened_in_all"]) == (16, 16 * 8)  # a fourth: those of two lanes
    assert found["opened_bytes_of_process"] == found["read_bytes_of_process"] == 1600 * 40_000
    assert without["opened_bytes_of_process"] == 4 * found["opened_bytes_of_process"]
    # The median distance of two random places among n is 0.29 n. Without lanes n is the samples of 16 shards; a lane
    # mixes 4, and between two of its samples come those of 7 others.
    assert without["median_steps_apart"] == pytest.approx((1 - np.sqrt(0.5)) * 1600 / 40, rel=0.05)
    assert found["median_steps_apart"] == pytest.approx((1 - np.sqrt(0.5)) * 400 * 8 / 40, rel=0.05)
    # Of 40 samples, 40 are drawn from 16 shards; from each lane 5, of 4 shards: so many are not missed.
    assert without["shards_in_global_batch"] == pytest.approx(16 * (1 - (15 / 16) ** 40), rel=0.06)
    assert found["shards_in_global_batch"] == pytest.approx(8 * 4 * (1 - (3 / 4) ** 5), rel=0.06)
    assert found["left_out"] == 0
