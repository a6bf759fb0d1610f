"""The uids of images, 32 hexadecimal digits each, and lists of them as DataComp writes them."""

import functools
import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from files import open_regular
from settings import ConfigError

UID = re.compile(r"[0-9a-fA-F]{32}")
DTYPE = np.dtype([("f0", "<u8"), ("f1", "<u8")])
"""Of a list of uids: the first 16 digits of each as a number, and the last 16."""


def uid_of(image: str) -> str:
    """The uid of an image that brings none of its own: a hash of what lists call it."""
    return hashlib.blake2b(image.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def uid_numbers(uids: Sequence[str]) -> np.ndarray:
    """Uids -> an array [uids] of DTYPE."""
    return np.frombuffer(bytes.fromhex("".join(uids)), ">u8").astype("<u8").view(DTYPE)


class UidList:
    """The uids in a .npy file, memory-mapped: sorted, two unsigned 64-bit numbers each, as DataComp's are.

    Raises ConfigError for a file that is none.
    """

    def __init__(self, file: str | Path) -> None:
        self.file = Path(os.path.expanduser(file))
        open_regular(self.file).close()  # refuses what is no file, and numpy would wait for
        try:
            found = np.load(self.file, mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError, EOFError, SyntaxError, MemoryError) as error:
            raise self._wrong(f"it cannot be read ({' '.join(str(error).split())[:120]})") from error
        if not isinstance(found, np.ndarray) or found.ndim != 1:
            raise self._wrong("it is no array of one dimension")
        kinds = [found.dtype[name].str for name in found.dtype.names or ()]
        if kinds != ["<u8", "<u8"] or found.dtype.itemsize != DTYPE.itemsize:
            raise self._wrong(f"its type is {str(found.dtype)[:80]}")
        if not len(found):
            raise self._wrong("it is empty")
        self._uids = found.view(DTYPE)

    def _wrong(self, reason: str) -> ConfigError:
        return ConfigError(f"uids: {self.file}: {reason}; expected a sorted numpy array of dtype {DTYPE.descr}")

    def __len__(self) -> int:
        return len(self._uids)

    @functools.cached_property
    def _halves(self) -> tuple[np.ndarray, np.ndarray]:
        """The first and second numbers, of which the first are read into memory; checked to be sorted."""
        first, second = np.ascontiguousarray(self._uids["f0"]), self._uids["f1"]
        ordered = first[:-1] < first[1:]
        ordered |= (first[:-1] == first[1:]) & (second[:-1] <= second[1:])
        if not ordered.all():
            raise self._wrong("it is not sorted")
        return first, second

    def contain(self, uids: np.ndarray) -> np.ndarray:
        """Whether each of `uids` [N], of DTYPE, is in the list: bool [N]."""
        first, second = self._halves
        low, end = (np.searchsorted(first, uids["f0"], side) for side in ("left", "right"))
        high = end.copy()
        # Uids that were drawn seldom agree in their first half; those that were counted all do, and are bisected here.
        while len(rows := np.flatnonzero(low < high)):
            middle = (low[rows] + high[rows]) // 2
            below = second[middle] < uids["f1"][rows]
            low[rows] = np.where(below, middle + 1, low[rows])
            high[rows] = np.where(below, high[rows], middle)
        found = low < end
        found[found] = second[low[found]] == uids["f1"][found]
        return found
