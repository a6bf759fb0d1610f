"""Ours against other ways: the same work on the same weights, timed in alternating rounds of one run."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from benchmarks.context import Context
from benchmarks.counters import MemoryGauge, count_flops
from benchmarks.measurement import clock, commit, machine

TOLERANCE = 1e-4  # between the results of two ways in fp32
_SHORTEST_ROUND = 0.2  # seconds: a GPU is given so many calls at once that launching them hides behind computing
_LONG = 2.0  # seconds: so long a call on a CPU needs no warm-up, and counting its operations takes no share of it

Way = Callable[[], Any]


class NoTime(Exception):
    """The budget would not suffice for what is left of a comparison."""


class WaysDiffer(Exception):
    """Two ways got different results, so that their times mean nothing."""


@dataclass
class Comparison:
    """Ways to do one thing.

    Attributes:
        name: of its results.
        what: what is done, in words.
        unit: what is counted in samples a second.
        samples: how many a call of each way does; the first is ours.
        ways: what is timed, by the same names.
        differences: by name of each other way, the largest difference of its results from ours, by what differs.
        parts: parts of our way, to be timed by themselves, with as many samples.
        warm_up: calls of each way between the first and the first round: of ways that compile.
        tolerance: of the differences, in fp32.
        device: where it is done, if not where the run measures.
    """

    name: str
    what: str
    unit: str
    samples: Mapping[str, int]
    ways: Mapping[str, Way]
    differences: Callable[[], Mapping[str, Mapping[str, float]]]
    parts: Mapping[str, Way] = field(default_factory=dict[str, Way])
    warm_up: int = 0
    tolerance: float = TOLERANCE
    device: torch.device | None = None


def measure(
    comparison: Comparison,
    context: Context,
    peak_flops: float,
    rounds: int,
    deadline: float = math.inf,
    rounds_end: float = math.inf,
) -> dict[str, Any]:
    """The figures of a comparison.

    Args:
        peak_flops: operations a second of the device's fastest matrix product in the precision.
        rounds: how often each way is timed at most; once at least.
        deadline: on the clock `time.monotonic`, of everything.
        rounds_end: on the same clock: no round begins that would end later, after the first.

    Raises:
        WaysDiffer: in fp32, by more than the tolerance.
        NoTime: not even one round of each way would end before the deadline.
    """
    device = comparison.device or context.device
    exact = context.dtype is torch.float32 or comparison.device is not None
    differences = {name: dict(found) for name, found in comparison.differences().items()}
    for name, found in differences.items():
        for of, value in found.items():
            if exact and not value <= comparison.tolerance:
                raise WaysDiffer(f"{comparison.name}: {of} of ours and of {name} differ by {value:.1e}")

    gauge = MemoryGauge(device)
    used_before = gauge.used()
    ways: dict[str, dict[str, Any]] = {}
    calls: dict[str, int] = {}
    least: dict[str, float] = {f"part: {name}": math.inf for name in comparison.parts}
    for name, way in comparison.ways.items():
        kept_by_others = max(0, gauge.used() - used_before)  # such as the state of their optimizers
        seconds, costs = _first_calls(way, gauge, comparison.warm_up or int(device.type != "cpu"))
        costs["peak_bytes"] = costs["peak_bytes"] - kept_by_others if costs["peak_bytes"] else None
        ways[name], calls[name] = costs, _calls_in_round(seconds, device)
        least[name] = seconds if seconds >= _LONG and device.type == "cpu" else math.inf
        _check_time(seconds, deadline, len(comparison.ways) - len(ways))
    timed = {**comparison.ways, **{f"part: {name}": part for name, part in comparison.parts.items()}}
    done = _rounds(timed, calls, rounds, device, rounds_end, least)

    for name, found in ways.items():
        seconds = least[name]
        flops = found["flops"]
        found["seconds"] = seconds
        found["samples_per_second"] = comparison.samples[name] / seconds
        found["share_of_peak"] = flops / seconds / peak_flops if flops and comparison.device is None else None
    ours = next(iter(comparison.ways))
    rate = ways[ours]["samples_per_second"]
    return {
        "name": comparison.name,
        "what": comparison.what,
        "unit": comparison.unit,
        "device": device.type,
        "precision": None if comparison.device else context.precision,
        "samples": dict(comparison.samples),
        "ways": ways,
        "ours_is_faster_by": {name: rate / found["samples_per_second"] for name, found in ways.items() if name != ours},
        "parts": {name: least[f"part: {name}"] for name in comparison.parts},
        "largest_differences": differences,
        "rounds": done,
        "matrix_product_peak": None if comparison.device else peak_flops,
        "machine": machine(device),
        "commit": commit(),
    }


def _first_calls(way: Way, gauge: MemoryGauge, warm_up: int) -> tuple[float, dict[str, Any]]:
    """Warm a way up: the seconds of its last call, and its memory and operations.

    The first call counts operations; `warm_up` more choose kernels, or compile.
    """
    counted: list[tuple[int, int]] = []
    start = clock(gauge.device)
    peak = gauge.peak(lambda: counted.append(count_flops(way)))
    elapsed = clock(gauge.device) - start
    for _ in range(warm_up):
        peak = gauge.peak(way)
    if warm_up:
        start = clock(gauge.device)
        way()
        elapsed = clock(gauge.device) - start
    flops, recomputed = counted[0]
    return elapsed, {"peak_bytes": peak, "flops": flops, "recomputed_flops": recomputed}


def _calls_in_round(seconds: float, device: torch.device) -> int:
    return 1 if device.type == "cpu" else max(1, math.ceil(_SHORTEST_ROUND / max(seconds, 1e-6)))


def _check_time(seconds: float, deadline: float, ways_left: int) -> None:
    """Raise NoTime if the first calls of the ways that follow, slower than this one, would end after the deadline."""
    needed, left = 1.5 * seconds * ways_left, deadline - time.monotonic()
    if needed > left:
        raise NoTime(f"it needs {needed:.0f} s more, and {max(left, 0):.0f} s are left")


def _rounds(
    ways: Mapping[str, Way],
    calls: Mapping[str, int],
    rounds: int,
    device: torch.device,
    end: float,
    least: dict[str, float],
) -> int:
    """Time the ways in turn, and lower `least`, seconds of a call of each; returns how many rounds there were."""
    done = int(all(map(math.isfinite, least.values())))  # long first calls were a round
    longest = sum(least.values()) if done else 0.0
    while done < rounds and (done == 0 or time.monotonic() + longest < end):
        began = time.monotonic()
        for name, way in ways.items():
            count = calls.get(name, 1)
            start = clock(device)
            for _ in range(count):
                way()
            least[name] = min(least[name], (clock(device) - start) / count)
        done += 1
        longest = max(longest, time.monotonic() - began)
    return done
