"""Which process is named as the slowest, and that its own time holds no wait for the others."""

import time

import pytest
import torch
from torch import nn

from engine.straggler import OwnTime, slowest
from tests.faults.runs import TOY, run, script


def test_the_slowest_is_named_by_data_or_computing_from_a_fifth_over_the_median():
    even = [(0.01, 0.4)] * 7
    assert slowest([*even, (0.01, 0.48)]) is None
    rank, words = slowest([*even, (0.01, 0.5)])
    assert rank == 7
    assert words.startswith("0.51 s a step where the median of all is 0.41 s, by its computing: it waits 0.01 s")
    rank, words = slowest([(0.2, 0.4), *even])
    assert rank == 0
    assert "by its data: it waits 0.2 s for its batch (median 0.01 s) and computes 0.4 s (median 0.4 s)" in words


def test_differences_of_milliseconds_name_nobody():
    assert slowest([(0.0, 0.001), (0.0, 0.001), (0.0, 0.009)]) is None
    assert slowest([(0.0, 0.5)]) is None


class Waits(torch.autograd.Function):
    """Waits in the backward pass, as an exchange of gradients would, or as long computing does."""

    @staticmethod
    def forward(ctx, x, seconds):
        ctx.seconds = seconds
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        time.sleep(ctx.seconds)
        return gradient, None


def test_own_time_ends_with_the_last_gradient():
    first, last = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    first.register_post_accumulate_grad_hook(lambda _: time.sleep(0.2))  # as the exchange of gradients waits
    own = OwnTime(torch.device("cpu"), [first, last])
    for _ in range(2):
        own.begin()
        hidden = first * 2
        time.sleep(0.05)
        loss = (Waits.apply(hidden, 0.1) * last).sum()
        own.mark()
        loss.backward()
        time.sleep(0.1)
    assert 0.3 <= own.take() < 0.45
    assert own.take() == 0


@pytest.mark.faults("one of three processes slow in its data, or in its step", "named with its part of the time")
@pytest.mark.parametrize(("slow", "cause"), [("data", "its data: it waits 0.2"), ("step", "its computing: it waits 0")])
def test_the_slow_one_of_three_processes_is_named_in_the_log(tmp_path, slow, cause):
    settings = ["max_epoch=1", "print_freq=2", "tensorboard=false", f"slow={slow}"]
    status, printed = run(script(TOY, "--output_dir", tmp_path, *settings, processes=3), tmp_path)
    assert status == 0, printed
    lines = [line for line in printed.splitlines() if "is the slowest" in line]
    assert len(lines) == 1, printed  # of two reports; the first counts the operations of a step
    assert "W process 2, pid " in lines[0]
    assert cause in lines[0]
