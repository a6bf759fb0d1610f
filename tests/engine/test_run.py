"""Progress through an evaluation, on whose lines people plan their day."""

import logging
import time
from types import SimpleNamespace

import pytest
import torch

from engine.log import named_peak
from engine.run import Run, choose_device
from utils import ConfigError


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


def test_an_apple_gpu_serves_one_process_alone(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("auto").type == "mps"
    assert choose_device("auto", world_size=2).type == "cpu"
    with pytest.raises(ConfigError, match="--device mps: an Apple GPU serves one process alone"):
        choose_device("mps", world_size=2)


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H200", 989e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 NVL", 835e12),
        ("NVIDIA A100-SXM4-40GB", 312e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40", 181e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA RTX A1000", None),
    ],
)
def test_a_peak_is_known_by_whole_words_of_a_devices_name(name, peak):
    assert named_peak(name) == peak
