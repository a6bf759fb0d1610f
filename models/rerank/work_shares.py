"""How work is split among processes: each takes a range of adjacent items, all with about the same work."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

Item = TypeVar("Item")


class ProgressBar(Protocol):
    """Yields `items` unchanged, and shows under `title` how much is done.

    `work` estimates how long each item takes, in any unit, for the time that is left.
    """

    def __call__(self, items: Iterable[Item], title: str, work: Sequence[float]) -> Iterator[Item]: ...


def no_progress(items: Iterable[Item], title: str, work: Sequence[float]) -> Iterator[Item]:
    """A `ProgressBar` that shows nothing."""
    del title, work
    return iter(items)


def split_evenly(work: Sequence[float] | np.ndarray, count: int) -> list[range]:
    """Split items into `count` ranges of adjacent items with about equal work, given the `work` of each item.

    Lay the items on a line, as long as their work, and cut the line evenly: each item goes to the range that its middle
    lies in. So no range exceeds an even share by more than the largest item.
    """
    work = np.asarray(work, dtype=np.float64)
    middles = work.cumsum() - work / 2
    cuts = np.searchsorted(middles, work.sum() / count * np.arange(1, count), side="right")
    return [range(start, stop) for start, stop in itertools.pairwise([0, *cuts.tolist(), len(work)])]


@dataclass(frozen=True)
class Processes:
    """Which process this is, of how many, and how they gather results.

    Attributes:
        rank: this process, counted from 0.
        count: how many processes there are.
        gather: concatenates the lists of all processes, by rank, on every process.
    """

    rank: int = 0
    count: int = 1
    gather: Callable[[list[Any]], list[Any]] = lambda items: items

    def share(self, work: Sequence[float] | np.ndarray) -> range:
        """The range of items that this process does, given the `work` of each; together the ranges cover all items."""
        return split_evenly(work, self.count)[self.rank]


SINGLE_PROCESS = Processes()
