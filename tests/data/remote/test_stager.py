"""When batches use which shards, and how much room that takes."""

import os
import tempfile

import numpy as np
import pytest

from data.remote.stage import Staging
from data.remote.stager import first_needed, largest_need, uses_of
from settings import UserError


def drawn(rng, batches, shards):
    """Batches of random shards, in passes that follow each other."""
    turns = np.sort(rng.integers(0, 3, batches))
    return [(rng.integers(0, shards, 5), np.full(5, turn)) for turn in turns]


@pytest.mark.parametrize("seed", range(20))
def test_uses_are_the_least_intervals_that_cover_every_pass(seed):
    batches = drawn(np.random.default_rng(seed), batches=30, shards=6)
    uses = uses_of(batches)
    assert [use.first for use in uses] == sorted(use.first for use in uses)
    for shard in range(6):
        staged = [number for use in uses if use.shard == shard for number in range(use.first, use.last + 1)]
        assert len(staged) == len(set(staged))
        needed = set()
        for turn in range(3):
            read = [n for n, (shards, turns) in enumerate(batches) if turns[0] == turn and shard in shards]
            needed |= set(range(min(read), max(read) + 1)) if read else set()
        assert set(staged) == needed


@pytest.mark.parametrize("seed", range(20))
def test_the_largest_need_is_that_of_the_neediest_batch(seed):
    rng = np.random.default_rng(seed)
    uses, start = uses_of(drawn(rng, batches=30, shards=6)), int(rng.integers(0, 25))
    sizes = dict(enumerate(rng.integers(1, 100, 6).tolist()))
    held = [[use.shard for use in uses if use.first <= batch <= use.last] for batch in range(start, 30)]
    expected = max((sum(sizes[shard] for shard in shards), len(shards)) for shards in held)
    found = largest_need(uses, sizes, start)
    assert found[0] == expected[0]
    assert found in [(sum(sizes[shard] for shard in shards), len(shards)) for shards in held]


def test_what_is_needed_first_ends_where_the_room_does():
    made = []

    def batches():
        for shards in ([3, 1, 3], [1, 4], [], [0, 2], [5]):
            made.append(shards)
            yield np.array(shards, int)

    sizes = dict.fromkeys(range(6), 10)
    assert first_needed(batches(), sizes, 35) == [1, 3, 4]
    assert len(made) == 4  # no more than it took
    assert first_needed(batches(), sizes, 60) == [1, 3, 4, 0, 2, 5]
    assert first_needed(batches(), sizes, 9) == []


def test_nothing_is_needed_of_an_epoch_that_reads_no_remote_shard():
    assert uses_of([(np.zeros(0, int), np.zeros(0, int))]) == []
    assert largest_need([], {}, 0) == (0, 0)


def test_the_folder_by_default_is_refused_where_another_user_made_it(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert Staging().path() == tmp_path / "blip-staged-12345"
    (tmp_path / "blip-staged-12345").mkdir()
    with pytest.raises(UserError, match="blip-staged-12345 belongs to another user: name a folder of your own"):
        Staging().path()
    assert Staging(str(tmp_path)).path() == tmp_path


def test_shards_keep_whole_numbers_beside_passes_over_more_than_four_billion_samples():
    (use,) = uses_of([(np.array([12]), np.array([0], np.uint64))])
    assert (type(use.shard), use.shard) == (int, 12)
