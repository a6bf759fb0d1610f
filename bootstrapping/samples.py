"""Examples for people to look at: a few texts of either source, above and below the threshold, drawn by their uids."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from bootstrapping.blocks import Block
from bootstrapping.scores import SYNTHETIC, WEB
from bootstrapping.selection import Chosen

Kind = tuple[str, bool]
"""The source of a text, and whether its score is high enough."""


class Samples:
    """Up to `number` texts of each kind, one an image: those whose images come first by a hash of the uid.

    So they are the same however the corpus is cut into files.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        kinds: list[Kind] = [(source, passed) for source in (WEB, SYNTHETIC) for passed in (True, False)]
        self._found: dict[Kind, list[tuple[int, Mapping[str, Any]]]] = {kind: [] for kind in kinds}

    def add(self, block: Block, chosen: Chosen) -> None:
        places = _hashed(block.uids)[block.image_numbers]
        for (source, passed), found in self._found.items():
            of_kind = (block.synthetic == (source == SYNTHETIC)) & (chosen.passed == passed)
            if len(found) == self._number:
                of_kind &= places < found[-1][0] if found else False
            rows = np.flatnonzero(of_kind)
            rows = rows[np.unique(block.image_numbers[rows], return_index=True)[1]]  # the first of each image
            rows = rows[np.argsort(places[rows], kind="stable")][: self._number]
            found += zip(places[rows].tolist(), block.table.take(rows).to_pylist(), strict=True)
            found.sort(key=lambda entry: entry[0])
            del found[self._number :]

    def of(self, source: str, passed: bool) -> list[Mapping[str, Any]]:
        """The rows found of a kind."""
        return [row for _, row in self._found[source, passed]]


def _hashed(uids: np.ndarray) -> np.ndarray:
    """A 64-bit hash of each uid (splitmix64 of its lower half): uids may be counted instead of drawn."""
    value = np.ascontiguousarray(uids).view(">u8")[1::2].astype(np.uint64)
    value = (value ^ value >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ value >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return value ^ value >> np.uint64(31)
