"""A training that waits for its data says so once an epoch, with the number of workers that would end it."""

import logging
import re

import pytest

from engine.data_wait import DataWait, workers_needed
from engine.log import Speed
from tests.engine import toy


def simulated_share(num_workers: int, reading: float, step: float) -> float:
    """The share of the time spent waiting: each worker reads a batch in `reading`, and a step takes `step`."""
    if num_workers == 0:
        return reading / (reading + step)
    return max(0.0, 1 - step / (reading / num_workers))


@pytest.mark.parametrize("num_workers", [0, 1, 3, 8])
@pytest.mark.parametrize("reading", [0.37, 1.01, 5.25])
def test_with_the_number_named_nothing_waits_and_with_one_fewer_something_does(num_workers, reading):
    step = 0.1
    share = simulated_share(num_workers, reading, step)
    if share == 0:
        return
    needed = workers_needed(num_workers, share)
    assert simulated_share(needed, reading, step) == 0
    assert needed == 1 or simulated_share(needed - 1, reading, step) > 0


def test_the_first_report_does_not_count_and_the_advice_comes_once():
    wait = DataWait(4, 10)
    assert wait.advice(60, {"s_per_step": 9.0, "data_wait": 0.9}) is None  # workers start
    assert wait.advice(100, {"s_per_step": 1.0, "data_wait": 0.2}) is None  # 40 steps say too little
    said = wait.advice(120, {"s_per_step": 1.0, "data_wait": 0.5})
    assert said is not None
    assert said.startswith("data-bound: 30% of the time of 60 steps")
    assert "set num_workers to 6 (now 4)" in said
    assert wait.advice(170, {"s_per_step": 1.0, "data_wait": 0.9}) is None


def test_a_wait_of_five_percent_is_not_spoken_of():
    wait = DataWait(4, 0)
    assert [wait.advice(50 * i, {"s_per_step": 0.5, "data_wait": 0.05}) for i in range(1, 6)] == [None] * 5


def test_a_run_that_waits_says_so_once_an_epoch(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(
        Speed,
        "report",
        lambda speed: {**dict.fromkeys(("samples_per_s", "memory_gib"), 1.0), "s_per_step": 1.0, "data_wait": 0.5},
    )
    settings = ["max_epoch=2", "print_freq=10", "tensorboard=false", "samples=400"]
    with caplog.at_level(logging.WARNING, "blip.engine"):
        toy.main(["--output_dir", str(tmp_path), "--device", "cpu", *settings])
    said = [message for message in caplog.messages if "data-bound" in message]
    assert len(said) == 2
    assert all(re.search(r"set num_workers to 1 \(now 0\)", message) for message in said)
