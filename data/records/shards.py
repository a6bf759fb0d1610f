"""WebDataset shards (tar files of jpg + txt / json, as img2dataset writes them), read at any sample of any shard.

Each shard is read through once, and a memory-mapped index keeps the position and the caption of every picture. From
then on any sample can be read directly, as from an annotation file: batches do not depend on the number of processes
and workers, and a resumed run reads nothing twice. Shards are files of a local or mounted file system.
"""

import functools
import glob
import os
import re
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data.records.shard_index import index_key, shard_index, shard_sizes
from files import open_regular
from settings import ConfigError, MissingFile, needs_extra

_MOST_SHARDS = 1_000_000  # names that a pattern may stand for
_DIGITS = 18  # of a number in a pattern
_OPEN_SHARDS = 64  # shards that a process keeps open; an epoch's order stays within 16 at a time


def shard_files(patterns: Sequence[str]) -> list[Path]:
    """The files of patterns with {00000..00099} and *; raises MissingFile for one that is not there."""
    with needs_extra("data", "reading shards"):
        from webdataset.shardlists import expand_urls

    files: list[Path] = []
    for pattern in patterns:
        _check_number(pattern)
        try:
            expanded = expand_urls(pattern)
        except ValueError as error:
            raise ConfigError(f"shards: {pattern} is no pattern ({error})") from None
        for one in map(os.path.expanduser, expanded):
            found = [one] if os.path.exists(one) else sorted(glob.glob(one) or glob.glob(one.replace("[", "[[]")))
            if not found:
                raise MissingFile(f"no shard {one} (looked for at {os.path.abspath(one)})")
            files += map(Path, found)
    return files


def _check_number(pattern: str) -> None:
    """Raise ConfigError for a pattern of very many names, which would all be made before the first is looked for."""
    names = 1
    for group in re.findall(r"\{([^{}]*)\}", pattern):
        bounds = re.fullmatch(r"(-?\d+)\.\.(-?\d+)(?:\.\.-?\d+)?", group)
        if bounds and max(map(len, bounds.groups())) > _DIGITS:
            names = _MOST_SHARDS + 1
        elif bounds:
            names *= abs(int(bounds[2]) - int(bounds[1])) + 1
        else:
            names *= group.count(",") + 1
        if names > _MOST_SHARDS:
            raise ConfigError(
                f"shards: {pattern[:200]} stands for over {_MOST_SHARDS:,} files: name those that are there"
            )


class Shards:
    """The samples of all shards, one after the other: `shards[row]` is {image: bytes, caption: [str], name}.

    `name` is 'shard.tar/key'. A copy in another process takes a few hundred bytes a shard: an index is opened when a
    sample of it is read.
    """

    def __init__(self, files: Sequence[str | Path]) -> None:
        self.files = [str(file) for file in files]
        self._keys = [index_key(file) for file in self.files]
        self.sizes = shard_sizes(self.files, self._keys)  # samples of each shard
        self._ends = np.cumsum(self.sizes)

    def __len__(self) -> int:
        return int(self._ends[-1]) if self.files else 0

    def __getitem__(self, row: int) -> dict[str, Any]:
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        number = int(np.searchsorted(self._ends, row, side="right"))
        file = self.files[number]
        shard = _open_shard(file, self._keys[number])
        place = shard.index[int(row - self._ends[number] + self.sizes[number])]
        image = shard.read(place["offset"], place["size"])
        return {"image": image, "caption": place["caption"], "name": f"{file}/{place['key']}"}


class _OpenShard:
    """A shard and its index, closed when nothing refers to them any more."""

    def __init__(self, file: str, key: str) -> None:
        self.index = shard_index(file, key)
        self._file = open_regular(file)  # closed with this object
        self._lock = threading.Lock()
        weakref.finalize(self, self._file.close)

    def read(self, offset: int, size: int) -> bytes:
        if hasattr(os, "pread"):  # needs no position, which forked workers would share
            return os.pread(self._file.fileno(), size, offset)
        with self._lock:  # Windows, where processes share no open file, but threads do
            self._file.seek(offset)
            return self._file.read(size)


@functools.lru_cache(_OPEN_SHARDS)
def _open_shard(file: str, key: str) -> _OpenShard:
    return _OpenShard(file, key)
