"""Progress through an evaluation, on whose lines people plan their day."""

import logging
import time
from types import SimpleNamespace

import pytest
import torch

from engine.run import Run


@pytest.fixture
def run():
    config = SimpleNamespace(print_freq=2)
    return Run(config, None, torch.device("cpu"), 0, 0, 1, True, None)


def test_time_left_is_told_by_work_not_by_number(run, monkeypatch, caplog):
    clock = iter([0.0, 30.0, 40.0])  # of the start and of two reports
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    with caplog.at_level(logging.INFO, "blip.engine"):
        assert list(run.progress("abcd", "score", [1, 2, 1, 5])) == list("abcd")
    assert "score [2/4]  0.0667/s  ETA 0:01:00" in caplog.text
    assert "score [4/4]  0.1/s  ETA 0:00:00" in caplog.text


def test_items_and_their_work_must_fit(run):
    with pytest.raises(ValueError, match="zip"):
        list(run.progress("ab", "score", [1]))
