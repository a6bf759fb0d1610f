"""Processes that wait for each other: as long as the others live, and not longer; in threads, over one store."""

import threading
import time

import pytest
from torch.distributed import HashStore

from engine import presence
from engine.presence import NoAnswer, OthersEnd, Presence, note_leaving

TIMEOUT = 0.4


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(presence, "PULSE", 0.05)
    monkeypatch.setattr(presence, "ROLL_CALL", 0.6)


@pytest.fixture
def members():
    """Three processes; `members[1].leave()` is one that stops: it shows no more signs of life."""
    store = HashStore()
    found = [Presence(store, rank, 3, TIMEOUT) for rank in range(3)]
    yield found
    for one in found:
        one.leave()


def at_once(*calls):
    """What each call returned or raised, made in threads that start together."""
    results = [None] * len(calls)

    def run(number, call):
        try:
            results[number] = call()
        except Exception as error:
            results[number] = error

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return results


@pytest.mark.parametrize("late", [0, 1])
def test_a_process_that_computes_alone_for_longer_than_the_timeout_is_waited_for(members, late):
    began = time.monotonic()

    def come(rank):
        if rank == late:
            time.sleep(3 * TIMEOUT)
        members[rank].meet("the scores")
        return time.monotonic() - began

    came = at_once(*(lambda rank=rank: come(rank) for rank in range(3)))
    assert all(3 * TIMEOUT <= seconds < 10 for seconds in came), came
    assert [one.awaits for one in members] == ["the start of the run"] * 3


def test_meetings_follow_each_other_and_nobody_runs_ahead(members):
    places = [0, 0, 0]

    def run(rank):
        for number in range(1, 20):
            places[rank] = number
            members[rank].meet("the next")
            assert min(places) >= number
        return "done"

    assert at_once(*(lambda rank=rank: run(rank) for rank in range(3))) == ["done"] * 3


@pytest.mark.parametrize("stopped", [0, 2])
def test_one_that_shows_no_life_ends_the_wait_and_is_named_by_the_others(members, stopped):
    members[stopped].leave()
    others = [one for rank, one in enumerate(members) if rank != stopped]

    def come(one):
        try:
            one.meet("the scores of val")
        except (NoAnswer, OthersEnd):
            return one.awaits, one.missing()

    for what, missing in at_once(*(lambda one=one: come(one) for one in others)):
        assert what == "the scores of val"
        assert [name.partition(", pid")[0] for name in missing] == [f"process {stopped}"]


def test_one_that_lives_and_never_comes_is_named_with_what_it_waits_for(members, monkeypatch):
    monkeypatch.setattr(presence, "LONGEST", 2)
    members[2].awaits = "its batch of step 7"

    def come(one):
        try:
            one.meet("the checkpoint")
        except (NoAnswer, OthersEnd):
            return one.missing()

    for missing in at_once(lambda: come(members[0]), lambda: come(members[1])):
        assert len(missing) == 1
        assert missing[0].startswith("process 2, pid ")
        assert missing[0].endswith(", which lives but still waits for its batch of step 7,")


def test_where_a_process_has_left_the_others_end(members):
    note_leaving(members[2]._store)
    assert [type(one) for one in at_once(lambda: members[0].meet("x"), lambda: members[1].meet("x"))] == [OthersEnd] * 2


class StuckStore(HashStore):
    """Answers as long as the process that keeps it does."""

    stuck = False

    def check(self, keys):
        while self.stuck:
            time.sleep(0.05)
        return super().check(keys)


def test_a_store_that_does_not_answer_is_not_waited_for():
    store = StuckStore()
    one = Presence(store, 1, 2, TIMEOUT)
    store.stuck = True
    with pytest.raises(NoAnswer, match="timed out: the store does not answer"):
        one.meet("the scores")
    store.stuck = False
    one.leave()


def test_one_process_of_a_machine_makes_what_all_of_it_get(members, monkeypatch):
    machine = threading.local()
    monkeypatch.setattr(presence, "_node", lambda: machine.name)
    made = []

    def get(rank):
        machine.name = "one" if rank < 2 else "two"

        def make():
            made.append(rank)
            time.sleep(2 * TIMEOUT)
            return f"made on {machine.name}".encode()

        return [members[rank].once_a_node(make, "the shards") for _ in range(2)]

    got = at_once(*(lambda rank=rank: get(rank) for rank in range(3)))
    assert got == [[b"made on one"] * 2, [b"made on one"] * 2, [b"made on two"] * 2]
    assert len(made) == 4  # twice on each machine
