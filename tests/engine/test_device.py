"""Which device `--device` means, and what is known of it."""

import contextlib
import time

import pytest
import torch

from engine import Run, TrainConfig, device, run_evaluation
from engine.device import choose_device
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


def test_the_peak_is_that_of_the_best_product_and_sizes_grow_until_one_takes_long(monkeypatch):
    tried = []

    def seconds(matrix, clock):
        tried.append(len(matrix))
        return {256: 1e-4, 512: 5e-4, 1024: 4e-3}[len(matrix)]

    monkeypatch.setattr(device, "_seconds", seconds)
    rate = device.matrix_product_rate.__wrapped__(torch.device("cpu"), torch.float32)
    assert rate == pytest.approx(2 * 1024**3 / 4e-3)
    assert tried == [256] * 4 + [512] * 4 + [1024] * 4


def test_the_peak_is_measured_in_a_moment_and_draws_no_random_number():
    before, began = torch.get_rng_state(), time.process_time()
    assert device.matrix_product_rate.__wrapped__(torch.device("cpu"), torch.float32) > 1e8
    assert time.process_time() - began < 2
    assert torch.equal(torch.get_rng_state(), before)


def test_tf32_is_allowed_in_an_evaluation_and_nowhere_else(tmp_path):
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    run = Run(TrainConfig(), tmp_path, torch.device("cpu"), 0, 0, 1, True, None)
    before = matmul.allow_tf32, cudnn.allow_tf32
    seen = []

    def evaluate(model):
        seen.append((matmul.allow_tf32, cudnn.allow_tf32, torch.is_autocast_enabled("cpu")))
        if len(seen) == 2:
            raise RuntimeError("broken")
        return {}

    for precision in ("fp32", "tf32"):
        run.config.eval_precision = precision
        with contextlib.suppress(RuntimeError):
            run_evaluation(run, torch.nn.Linear(1, 1), evaluate)
        assert (matmul.allow_tf32, cudnn.allow_tf32) == before
    assert seen == [(*before, False), (True, True, False)]
