"""Lists of uids: which are in them is found whether uids were drawn or counted."""

import time

import numpy as np
import pytest

from data.records.uids import DTYPE, UidList, uid_numbers, uid_of


@pytest.mark.parametrize(
    "uid",
    [
        lambda n: f"{n:032x}",
        lambda n: uid_of(str(n)),
        lambda n: f"{n % 3:016x}{n:016x}",
        lambda n: f"{n:016x}{'f' * 16}",
    ],
    ids=["counted", "drawn", "of three groups", "alike at the end"],
)
def test_exactly_the_listed_uids_are_found(tmp_path, uid):
    uids = uid_numbers([uid(n) for n in range(40_000)])
    np.save(tmp_path / "uids.npy", np.sort(uids[::2], order=["f0", "f1"]))
    began = time.perf_counter()
    found = UidList(tmp_path / "uids.npy").contain(uids)
    assert time.perf_counter() - began < 5
    assert found.tolist() == [True, False] * 20_000


def test_a_uid_beyond_all_others_is_not_in_the_list(tmp_path):
    np.save(tmp_path / "uids.npy", np.array([(5, 5), (5, 7)], DTYPE))
    asked = np.array([(4, 9), (5, 4), (5, 5), (5, 6), (5, 7), (5, 8), (6, 0)], DTYPE)
    assert UidList(tmp_path / "uids.npy").contain(asked).tolist() == [False, False, True, False, True, False, False]
    assert UidList(tmp_path / "uids.npy").contain(asked[:0]).tolist() == []
