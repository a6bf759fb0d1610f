"""Ways are compared, timed in turn and counted; what differs, or takes too long, is no figure."""

import time
from pathlib import Path

import pytest
import torch

from benchmarks.comparison import Comparison, NoTime, WaysDiffer, measure
from benchmarks.context import Context
from benchmarks.counters import count_flops
from models.vit import create_vit

CPU = Context(torch.device("cpu"), "fp32", True, Path())
SIDE = 64


def product(times: int) -> None:
    a = torch.ones(SIDE, SIDE)
    for _ in range(times):
        a @ a


def comparison(difference: float = 0.0, calls: list[str] | None = None, **values) -> Comparison:
    calls = [] if calls is None else calls

    def way(name: str, times: int):
        return lambda: (calls.append(name), product(times))

    return Comparison(
        name="made_up",
        what="products",
        unit="products",
        samples={"ours": 2, "plain": 1},
        ways={"ours": way("ours", 400), "plain": way("plain", 800)},
        differences=lambda: {"plain": {"result": difference}},
        parts={"half": lambda: product(200)},
        **values,
    )


def test_ways_take_turns_and_their_figures_fit_together():
    calls: list[str] = []
    found = measure(comparison(calls=calls), CPU, peak_flops=1e15, rounds=3)
    assert calls == ["ours", "plain"] * 4  # the first call of each counts operations
    ours, plain = found["ways"]["ours"], found["ways"]["plain"]
    assert ours["flops"] == 400 * 2 * SIDE**3
    assert plain["flops"] == 2 * ours["flops"]
    assert ours["samples_per_second"] == pytest.approx(2 / ours["seconds"])
    assert ours["share_of_peak"] == pytest.approx(ours["flops"] / ours["seconds"] / 1e15)
    # A call of ours does two samples in about half of the time of a call of the other, which does one.
    assert found["ours_is_faster_by"]["plain"] == pytest.approx(2 * plain["seconds"] / ours["seconds"])
    assert found["ours_is_faster_by"]["plain"] > 2
    assert 0 < found["parts"]["half"] < ours["seconds"]
    assert found["rounds"] == 3


def test_the_memory_that_another_way_keeps_does_not_count():
    kept: list[torch.Tensor] = []

    def keeps() -> None:
        if not kept:
            kept.append(torch.ones(50_000_000))  # 200 MB

    found = measure(
        Comparison("memory", "", "calls", {"keeps": 1, "plain": 1}, {"keeps": keeps, "plain": lambda: None}, dict),
        CPU,
        1e12,
        rounds=1,
    )["ways"]
    assert 150e6 < found["keeps"]["peak_bytes"] - found["plain"]["peak_bytes"] < 250e6


@pytest.mark.parametrize("difference", [1e-3, float("nan")])
def test_ways_that_differ_have_no_times_in_fp32_only(difference):
    with pytest.raises(WaysDiffer, match="made_up: result of ours and of plain differ by"):
        measure(comparison(difference), CPU, 1e12, rounds=1)
    bf16 = Context(CPU.device, "bf16", True, Path())
    found = measure(comparison(difference), bf16, 1e12, rounds=1)
    assert found["largest_differences"]["plain"]["result"] == pytest.approx(difference, nan_ok=True)


def test_what_would_end_after_the_deadline_is_not_begun():
    calls: list[str] = []
    with pytest.raises(NoTime, match=r"it needs \d+ s more, and 0 s are left"):
        measure(comparison(calls=calls), CPU, 1e12, rounds=3, deadline=time.monotonic())
    assert calls == ["ours"]


def test_after_the_first_round_no_round_begins_that_would_end_too_late():
    assert measure(comparison(), CPU, 1e12, rounds=3, rounds_end=time.monotonic())["rounds"] == 1


@pytest.mark.parametrize("causal", [False, True])
def test_attention_on_a_cpu_is_counted_forward_and_backward(causal):
    query = torch.randn(2, 3, 5, 8, requires_grad=True)
    key = torch.randn(2, 3, 5, 8, requires_grad=True)
    product = 2 * (2 * 3) * 5 * 5 * 8

    def attention() -> torch.Tensor:
        return torch.nn.functional.scaled_dot_product_attention(query, key, key, is_causal=causal)

    assert count_flops(attention) == (2 * product, 0)
    assert count_flops(lambda: attention().sum().backward()) == ((2 + 5) * product, 0)


def test_what_checkpointed_blocks_recompute_is_counted_apart():
    size = {"embed_dim": 32, "depth": 3, "num_heads": 2, "patch_size": 16}
    image = torch.randn(2, 3, 32, 32)
    plain, checkpointed = create_vit(size, 32), create_vit(size, 32, vit_grad_ckpt=True, vit_ckpt_layer=2)
    flops, nothing = count_flops(lambda: plain(image).sum().backward())
    same, recomputed = count_flops(lambda: checkpointed(image).sum().backward())
    assert (same, nothing) == (flops, 0)
    tokens, blocks = 2 * 5, 2
    attention = 2 * 2 * tokens * 5 * 32
    layers = 2 * tokens * 32 * 32 * (3 + 1 + 4)  # all but the last of a block, whose output no gradient needs
    assert recomputed == blocks * (attention + layers)
