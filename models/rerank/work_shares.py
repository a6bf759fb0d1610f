"""How work is shared among processes: each takes one run of neighboring parts, all runs of about equal work."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

Item = TypeVar("Item")


class ProgressBar(Protocol):
    """Yields `items` unchanged and shows how many are done, under `title`.

    `work` has one number an item, in any unit: its share of the total is its share of the time that is left.
    """

    def __call__(self, items: Iterable[Item], title: str, work: Sequence[float]) -> Iterator[Item]: ...


def no_progress(items: Iterable[Item], title: str, work: Sequence[float]) -> Iterator[Item]:
    """A `ProgressBar` that shows nothing."""
    del title, work
    return iter(items)


def split_evenly(work: Sequence[float] | np.ndarray, count: int) -> list[range]:
    """Split parts, whose `work` is given, into `count` ranges of neighboring parts with about equal work.

    No range exceeds an even share by more than the largest part, as each part goes to the range its middle lies in.
    """
    work = np.asarray(work, dtype=np.float64)
    middles = work.cumsum() - work / 2
    cuts = np.searchsorted(middles, work.sum() / count * np.arange(1, count), side="right")
    return [range(start, stop) for start, stop in itertools.pairwise([0, *cuts.tolist(), len(work)])]


@dataclass(frozen=True)
class Processes:
    """How many processes work together, which of them this is, and how they exchange results.

    Attributes:
        gather: this process's list -> the lists of all, concatenated in the order of their ranks, on every process.
    """

    rank: int = 0
    count: int = 1
    gather: Callable[[list[Any]], list[Any]] = lambda items: items

    def share(self, work: Sequence[float] | np.ndarray) -> range:
        """The range of parts that this process does; the ranges of all, in the order of their ranks, are all parts."""
        return split_evenly(work, self.count)[self.rank]


SINGLE_PROCESS = Processes()
