"""Pieces of work that processes draw: each piece once, and nobody waits but at the end."""

import threading

import pytest
from torch.distributed import HashStore

from engine import shared_work
from engine.shared_work import SharedWork


def test_one_process_draws_every_piece_in_order():
    work = SharedWork(None, 1.0)
    assert list(work.draw(4)) == [0, 1, 2, 3]
    assert work.add("images", 3) == 3
    assert work.add("images", 2) == 5
    work.finish("images")


def test_of_several_processes_each_piece_goes_to_one_and_a_slow_one_holds_up_nobody():
    store, drawn = HashStore(), {"slow": [], "fast": []}
    fast_is_done = threading.Event()

    def slow():
        for piece in SharedWork(store, 1.0).draw(20):
            drawn["slow"].append(piece)
            fast_is_done.wait(10)

    def fast():
        drawn["fast"] += SharedWork(store, 1.0).draw(20)
        fast_is_done.set()

    threads = [threading.Thread(target=slow), threading.Thread(target=fast)]
    for thread in threads:
        thread.start()
        while thread is threads[0] and not drawn["slow"]:
            pass
    for thread in threads:
        thread.join()
    assert drawn == {"slow": [0], "fast": list(range(1, 20))}


def test_where_a_process_has_left_the_others_end():
    store = HashStore()
    store.add("left", 1)
    with pytest.raises(RuntimeError, match="another process has left"):
        list(SharedWork(store, 1.0).draw(3))


def test_the_end_is_waited_for_as_long_as_something_moves(monkeypatch):
    monkeypatch.setattr(shared_work, "world_size", lambda: 2)
    monkeypatch.setattr(shared_work, "_POLL", 0.01)
    met = []
    monkeypatch.setattr(shared_work, "barrier", lambda: met.append("barrier"))
    store = HashStore()
    moving = threading.Event()

    def other():
        work = SharedWork(store, 1.0)
        for _ in range(6):
            work.add("images", 1)
            moving.wait(0.05)
        work.finish("images")

    thread = threading.Thread(target=other)
    thread.start()
    SharedWork(store, 0.2 / 60).finish("images")
    thread.join()
    assert met == ["barrier", "barrier"]
    assert SharedWork(store, 1.0).add("images", 0) == 6
