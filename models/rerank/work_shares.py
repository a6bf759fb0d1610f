"""How work is shared out: in stretches of about equal work, to each process one."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

Item = TypeVar("Item")


class Progress(Protocol):
    """Shows how far `items` are, one for each number of `work`, which says how long it takes beside the others."""

    def __call__(self, items: Iterable[Item], title: str, work: Sequence[float]) -> Iterator[Item]: ...


def unseen(items: Iterable[Item], title: str, work: Sequence[float]) -> Iterator[Item]:
    """The `Progress` that shows nothing."""
    del title, work
    return iter(items)


def stretches(work: Sequence[float] | np.ndarray, count: int) -> list[range]:
    """Cut a list of parts, whose work is given, into `count` stretches of neighbours.

    None has more than an even share and the largest part: each part goes where its middle lies.
    """
    work = np.asarray(work, dtype=np.float64)
    middles = work.cumsum() - work / 2
    cuts = np.searchsorted(middles, work.sum() / count * np.arange(1, count), side="right")
    return [range(start, stop) for start, stop in itertools.pairwise([0, *cuts.tolist(), len(work)])]


@dataclass(frozen=True)
class Processes:
    """This process among those that work together.

    Attributes:
        gather: the lists of all processes, concatenated in the order of their ranks, on every process.
    """

    rank: int = 0
    count: int = 1
    gather: Callable[[list[Any]], list[Any]] = lambda items: items

    def share(self, work: Sequence[float] | np.ndarray) -> range:
        """Which of the parts this process does; the shares of all, in the order of their ranks, are all parts."""
        return stretches(work, self.count)[self.rank]


ALONE = Processes()
