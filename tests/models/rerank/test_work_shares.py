"""Work is shared out in stretches that hold about equally much."""

import numpy as np
import pytest

from models.rerank.work_shares import Processes, split_evenly


@pytest.mark.parametrize("count", [1, 2, 3, 8, 50])
@pytest.mark.parametrize("parts", [0, 1, 7, 300])
def test_no_stretch_exceeds_an_even_share_by_more_than_one_part(parts, count):
    work = np.random.default_rng(parts).lognormal(sigma=2, size=parts)
    shares = split_evenly(work, count)
    assert [part for share in shares for part in share] == list(range(parts))
    assert len(shares) == count
    assert max(work[share].sum() for share in shares) <= work.sum() / count + work.max(initial=0) + 1e-9


def test_equal_parts_are_shared_equally():
    assert split_evenly([1] * 12, 4) == [range(0, 3), range(3, 6), range(6, 9), range(9, 12)]


def test_each_process_takes_its_own_share():
    assert [Processes(rank, 2).share([1, 1, 4, 4]) for rank in range(2)] == [range(0, 3), range(3, 4)]


def test_parts_without_work_are_not_lost():
    assert sum(map(len, split_evenly([0, 0, 0], 2))) == 3
