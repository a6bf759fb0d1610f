"""Which device `--device` means, and what is known of it."""

import pytest
import torch

from engine.device import choose_device
from engine.log import named_peak
from settings import ConfigError


def test_an_apple_gpu_serves_one_process_alone(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("auto").type == "mps"
    assert choose_device("auto", world_size=2).type == "cpu"
    with pytest.raises(ConfigError, match="--device mps: an Apple GPU serves one process alone"):
        choose_device("mps", world_size=2)


def test_processes_do_not_share_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(ConfigError, match="--device cuda:0: several processes cannot share one GPU"):
        choose_device("cuda:0", local_rank=1, world_size=2)


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
