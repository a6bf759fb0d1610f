"""Processes meet in a store that earlier starts have written to, whatever each launcher counts."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from torch.distributed import TCPStore

from engine.meeting import meet
from settings import UserError


@pytest.fixture
def server():
    return TCPStore("localhost", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=20))


def client(server):
    return TCPStore("localhost", server.port, is_master=False, timeout=timedelta(seconds=20))


def test_each_start_has_a_part_of_its_own(server):
    """The others of a start come first, so that they find the part of the start before."""
    for number, size in enumerate((2, 3, 2, 4), 1):
        with ThreadPoolExecutor(size) as pool:
            others = [pool.submit(meet, client(server), rank, size, 20.0) for rank in range(1, size)]
            first = pool.submit(meet, client(server), 0, size, 20.0).result()
            stores = [other.result() for other in others]
        assert not first.check(["address of rank 0"])  # of the start before
        first.set("address of rank 0", f"of start {number}")
        assert [store.get("address of rank 0") for store in stores] == [f"of start {number}".encode()] * (size - 1)


def test_who_does_not_come_is_named(server):
    client(server).set("start_1/here 2", "somebody")
    with pytest.raises(UserError, match="of 4 processes, these did not come: 1, 3; look at their machines"):
        meet(client(server), 0, 4, 0.2)
    with pytest.raises(UserError, match="process 0 did not come, or waits for another"):
        meet(client(server), 1, 4, 0.2)
