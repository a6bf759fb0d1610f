"""What a check of a split found, and the pictures that it looks at."""

from typing import Generic, TypeVar

Item = TypeVar("Item")

_PRINTED = 10  # problems of each kind that are printed


class SplitCheck:
    """What was counted in one split, and what is wrong with it."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.problems: dict[str, list[str]] = {}

    def count(self, what: str, number: int = 1) -> None:
        self.counts[what] = self.counts.get(what, 0) + number

    def problem(self, kind: str, where: str) -> None:
        self.problems.setdefault(kind, []).append(where)

    def __str__(self) -> str:
        lines = ["  " + ", ".join(f"{number:,} {what}" for what, number in self.counts.items() if number)]
        for kind, places in self.problems.items():
            lines += [f"  {len(places):,} x {kind}", *(f"      {place}" for place in places[:_PRINTED])]
            if len(places) > _PRINTED:
                lines.append(f"      ... and {len(places) - _PRINTED:,} more")
        return "\n".join(lines)


class EvenSubset(Generic[Item]):
    """At most `size` of the items offered, evenly spread and in their order; how many will come need not be known."""

    def __init__(self, size: int) -> None:
        self.size, self.every, self.offered = size, 1, 0
        self.kept: list[Item] = []

    def offer(self, item: Item) -> None:
        if self.offered % self.every == 0:
            if len(self.kept) == self.size:  # full: keep every second one, and choose half as often from here on
                self.kept, self.every = self.kept[::2], 2 * self.every
            if self.offered % self.every == 0:
                self.kept.append(item)
        self.offered += 1
