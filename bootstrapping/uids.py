"""Images' uids, 32 hexadecimal digits each, as numbers of 128 bits: sorted, compared, and written for DataComp's tools.

A number is kept as 16 bytes, the most significant first, so that numbers and bytes have the same order.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bootstrapping.arrow import compute
from bootstrapping.whole_files import write_whole
from data.records.uids import DTYPE

if TYPE_CHECKING:
    import pyarrow as pa

_DIGITS = 32
_NUMBER = "S16"

_VALUES = np.full(256, 255, np.uint8)  # of a digit's character; 255 for others
_VALUES[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16)
_VALUES[np.frombuffer(b"ABCDEF", np.uint8)] = np.arange(10, 16)


class WrongUid(ValueError):
    """A uid that is not 32 hexadecimal digits."""


def digits_of(uids: "pa.Array") -> np.ndarray:
    """The characters of each uid, 8 of them in a number: uint64 [uids, 4]. Raises WrongUid for other lengths."""
    pc = compute()
    lengths = pc.binary_length(uids).to_numpy()
    if (lengths != _DIGITS).any():
        raise WrongUid(
            f"uid {str(uids[int(np.argmax(lengths != _DIGITS))])[:80]!r} is not {_DIGITS} hexadecimal digits"
        )
    if not len(uids):
        return np.zeros((0, 4), np.uint64)
    start = int(np.frombuffer(uids.buffers()[1], np.int32)[uids.offset])
    characters = np.frombuffer(uids.buffers()[2], np.uint8, _DIGITS * len(uids), start)
    return characters.reshape(-1, _DIGITS).view(np.uint64)


def number_of(uids: "pa.Array") -> np.ndarray:
    """The number of each uid: bytes [uids], 16 each. Raises WrongUid for one that is not 32 hexadecimal digits."""
    values = _VALUES[digits_of(uids).view(np.uint8)]
    wrong = (values == 255).any(axis=1)
    if wrong.any():
        raise WrongUid(f"uid {str(uids[int(np.argmax(wrong))])!r} is not {_DIGITS} hexadecimal digits")
    return (values[:, ::2] << 4 | values[:, 1::2]).view(_NUMBER).ravel()


class UidSet:
    """The uids of up to `most` images, added block by block: 16 bytes each."""

    def __init__(self, most: int) -> None:
        self._numbers = np.empty(most, _NUMBER)  # pages of memory are taken when they are filled
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, numbers: np.ndarray) -> None:
        end = self._size + len(numbers)
        self._numbers[self._size : end] = numbers
        self._size = end

    def sorted(self) -> np.ndarray:
        """All of them in order: bytes [uids], 16 each."""
        numbers = self._numbers[: self._size]
        numbers.sort()
        return numbers

    def repeated(self) -> Iterable[str]:
        """Each uid that was added more than once, as 32 digits."""
        numbers = self.sorted()
        twice = np.flatnonzero(numbers[1:] == numbers[:-1])
        return [numbers[i : i + 1].view(np.uint8).tobytes().hex() for i in twice]


def write_uids(file: Path, numbers: np.ndarray) -> None:
    """Write sorted numbers as a NumPy file of pairs of unsigned 64-bit numbers, (upper half, lower half)."""
    halves = np.ascontiguousarray(numbers).view(">u8").reshape(-1, 2)
    pairs = np.empty(len(halves), DTYPE)
    pairs["f0"], pairs["f1"] = halves[:, 0], halves[:, 1]
    with write_whole(file) as opened:
        np.save(opened, pairs)
