"""Which web texts really belong to their images, where that is known: a JSON object {uid: true | false | [...]}."""

import json
from pathlib import Path

import numpy as np

from bootstrapping.blocks import Block
from bootstrapping.uids import WrongUid, number_of
from files import open_regular
from settings import UserError, needs_extra


class TruthError(UserError):
    """A file of truth that cannot be used."""


class Truth:
    """The truth about the web texts of some images.

    One value for an image is said of all its texts; a list has one for each.
    """

    def __init__(self, file: Path) -> None:
        with needs_extra("data", "reading truth"):
            import pyarrow as pa

        truth = _read(file)
        try:
            uids = number_of(pa.array([uid for uid, _ in truth], pa.string()))
        except WrongUid as error:
            raise TruthError(f"{file}: {error}") from None
        order = np.argsort(uids)
        self._uids = uids[order]
        twice = np.flatnonzero(self._uids[1:] == self._uids[:-1])
        if len(twice):
            raise TruthError(f"{file}: uid {truth[int(order[twice[0]])][0].lower()} stands twice")
        lists = [value if isinstance(value, list) else [value] for _, value in truth]
        lengths = np.array([len(values) for values in lists], np.int64)
        self._starts = (np.cumsum(lengths) - lengths)[order]
        self._lengths = lengths[order]
        self._for_all = np.array([not isinstance(value, list) for _, value in truth], bool)[order]
        self._values = np.array([value for values in lists for value in values], bool)

    def of(self, block: Block) -> tuple[np.ndarray, np.ndarray]:
        """Of each row of a block, were it the web's: is its truth known, and does it belong: bool [rows] each."""
        found = np.searchsorted(self._uids, block.uids).clip(0, len(self._uids) - 1)
        known = (self._uids[found] == block.uids)[block.image_numbers]
        entry = found[block.image_numbers]
        n = np.where(self._for_all[entry], 0, block.numbers("n"))
        known &= (n >= 0) & (n < self._lengths[entry])
        return known, known & self._values[np.where(known, self._starts[entry] + n, 0)]


def _read(file: Path) -> list[tuple[str, bool | list[bool]]]:
    """The uids of the file, with what is true of each."""
    expected = "{uid: true | false | [true, false, ...]}, true where the text belongs to its image"
    try:
        with open_regular(file) as opened:
            truth = json.loads(opened.read(), object_pairs_hook=list)  # a dict would hide a uid that stands twice
    except (ValueError, RecursionError) as error:
        raise TruthError(f"{file}: not JSON ({error}); expected {expected}") from None
    if not isinstance(truth, list) or not truth or not isinstance(truth[0], tuple):
        raise TruthError(f"{file}: expected a JSON object {expected}")
    for uid, value in truth:
        if not uid.isascii():
            raise TruthError(f"{file}: uid {uid!a} is not 32 hexadecimal digits")
        values = value if isinstance(value, list) else [value]
        if not all(isinstance(one, bool) for one in values):
            raise TruthError(f"{file}: {uid!r} is {str(value)[:80]}; expected {expected}")
    if all(value == [] for _, value in truth):
        raise TruthError(f"{file}: says nothing of any text; expected {expected}")
    return truth
