"""Which process holds the others up: what a step costs each of them itself, without its waits for the others."""

import statistics
import time
from collections.abc import Sequence

import torch
from torch import Tensor, nn

_SLOW = 1.2  # times the median of all processes
_NOISE = 0.01  # seconds a step that no process is blamed for

OwnTimes = tuple[float, float]
"""Seconds a step that a process waits for its data, and that it computes."""


class OwnTime:
    """Measures how long this process computes in a step: from its batch in hand until its last gradient is there.

    The gradients are then averaged over the processes, which would make all of them look as slow as the slowest. The
    last gradient is nearly that of the first parameter, since a backward pass ends where the forward pass began. On a
    GPU two events are recorded, which nobody waits for.

    What a forward pass itself exchanges (the features of contrastive learning) is counted as computing: where another
    process comes late to it, that is seen only in the backward pass.
    """

    def __init__(self, device: torch.device, parameters: Sequence[nn.Parameter]) -> None:
        self._on_gpu = device.type == "cuda"
        self._began, self._seconds, self._mark = 0.0, 0.0, 0.0
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        if parameters:
            parameters[0].register_hook(self._after_gradient)

    def begin(self) -> None:
        """A step begins, whose batch is there."""
        self._finish_step()
        if self._on_gpu:
            self._events.append((torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)))
            self._events[-1][0].record()
        else:
            self._began = self._mark = time.perf_counter()

    def mark(self) -> None:
        """This process has computed until here."""
        if not self._on_gpu:
            self._mark = time.perf_counter()
        elif self._events:
            self._events[-1][1].record()

    def _after_gradient(self, gradient: Tensor) -> None:
        del gradient
        self.mark()

    def _finish_step(self) -> None:
        self._seconds += self._mark - self._began
        self._began = self._mark

    def take(self) -> float:
        """The seconds of all steps since the last call; on a GPU all of them must have been computed."""
        self._finish_step()
        for begin, end in self._events:
            self._seconds += begin.elapsed_time(end) / 1000
        seconds, self._seconds = self._seconds, 0.0
        self._events.clear()
        return seconds


def slowest(times: Sequence[OwnTimes]) -> tuple[int, str] | None:
    """The rank of the process that holds the others up, and by how much in words; None where none does.

    It is the one with the most seconds a step, where these are over 20% more than the median of all.

    Args:
        times: of each process, by rank.
    """
    totals = [sum(one) for one in times]
    median, most = statistics.median(totals), max(totals)
    if most <= max(_SLOW * median, median + _NOISE):
        return None
    rank = totals.index(most)
    waits, computes = (statistics.median(column) for column in zip(*times, strict=True))
    own_wait, own_computing = times[rank]
    cause = "its data" if own_wait - waits > own_computing - computes else "its computing"
    return rank, (
        f"{most:.3g} s a step where the median of all is {median:.3g} s, by {cause}: it waits {own_wait:.3g} s for its "
        f"batch (median {waits:.3g} s) and computes {own_computing:.3g} s (median {computes:.3g} s)"
    )
