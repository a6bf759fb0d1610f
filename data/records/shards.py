"""Shards (tar files of jpg + txt / json, as img2dataset writes them, or Parquet files), read at any of their samples.

Each shard is read through once, and a memory-mapped index keeps the position and the caption of every picture. From
then on any sample can be read directly, as from an annotation file: batches do not depend on the number of processes
and workers, and a resumed run reads nothing twice. Shards are files of a local or mounted file system.
"""

import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data.records.open_shards import MOST_KEPT, open_shard
from data.records.parquet import is_parquet
from data.records.shard_index import Parts, index_key, shard_parts
from data.records.shard_selection import selected_samples
from data.records.table import Store, joined
from data.records.uids import UidList
from settings import ConfigError, MissingFile, needs_extra

_MOST_SHARDS = 1_000_000  # names that a pattern may stand for
_DIGITS = 18  # of a number in a pattern
_WINDOW = 16  # shards among which an epoch's order mixes samples: reads stay within a few files
_WINDOW_OF_GROUPS = 256  # the same for the row groups of Parquet files, as far as they may be kept in memory


def shard_files(patterns: Sequence[str], key: str = "shards") -> list[Path]:
    """The files of patterns with {00000..00099} and *; raises MissingFile, with the config's key, for a missing one."""
    with needs_extra("data", "reading shards"):
        from webdataset.shardlists import expand_urls

    files: list[Path] = []
    for pattern in patterns:
        _check_number(pattern, key)
        try:
            expanded = expand_urls(pattern)
        except ValueError as error:
            raise ConfigError(f"{key}: {pattern} is no pattern ({error})") from None
        for one in map(os.path.expanduser, expanded):
            found = [one] if os.path.exists(one) else sorted(glob.glob(one) or glob.glob(one.replace("[", "[[]")))
            if not found:
                kind = "shard" if key == "shards" else "file"
                raise MissingFile(f"no {kind} {one} (looked for at {os.path.abspath(one)})")
            files += map(Path, found)
    return files


def _check_number(pattern: str, key: str) -> None:
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
                f"{key}: {pattern[:200]} stands for over {_MOST_SHARDS:,} files: name those that are there"
            )


def relative_names(files: Sequence[str | Path]) -> tuple[str, list[str]]:
    """The nearest folder that holds all the files, and what each is called in it."""
    paths = [os.path.abspath(file) for file in files]
    folder = os.path.commonpath([os.path.dirname(path) for path in paths])
    return folder, [os.path.relpath(path, folder).replace(os.sep, "/") for path in paths]


class Shards:
    """The samples of all shards, one after the other: `shards[row]` is {image: bytes, caption: [str], name}.

    `name` is 'shard.tar/key'. A copy in another process takes a few hundred bytes a shard: an index is opened when a
    sample of it is read. With `uids`, only the samples that these list.

    Attributes:
        sizes: int64 [parts], the samples that are read together: of a tar, or of a row group of a Parquet file.
        part_shards: int64 [parts], the number of the file that a part belongs to.
        window: how many parts may be read in turns: as many as a process keeps open and in memory.
    """

    def __init__(self, files: Sequence[str | Path], uids: UidList | None = None) -> None:
        self.files = [str(file) for file in files]
        self._keys = [index_key(file) for file in self.files]
        parts = shard_parts(self.files, self._keys)
        self.window = _window(self.files, parts)
        self.sizes = parts.samples
        self.part_shards = parts.shard
        self._selected: Store | None = None
        if uids is not None and self.files:
            folder, names = relative_names(self.files)
            self._selected = selected_samples(self.files, self._keys, names, parts, uids, folder)
            self.sizes = np.bincount(np.array(joined([self._selected], "part")), minlength=len(self.sizes))
        self._ends = np.cumsum(self.sizes)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, row: int) -> dict[str, Any]:
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        part = int(np.searchsorted(self._ends, row, side="right"))
        number = int(self.part_shards[part])
        file, shard = self.files[number], open_shard(self.files[number], self._keys[number])
        if self._selected is None:
            first = int(np.searchsorted(self.part_shards, number))  # part of the shard
            sample = shard.index[int(row - self._ends[first] + self.sizes[first])]
        else:
            sample = shard.index[self._selected[row]["row"]]
        return {"image": shard.picture(sample), "caption": sample["caption"], "name": f"{file}/{sample['key']}"}


def _window(files: Sequence[str], parts: Parts) -> int:
    """How many parts an epoch's order may mix. Raises ConfigError for a row group that is too large to be kept."""
    largest = int(parts.bytes.max(initial=0))
    if largest > MOST_KEPT:
        part = int(parts.bytes.argmax())
        file, group = files[int(parts.shard[part])], part - int(np.searchsorted(parts.shard, parts.shard[part]))
        raise ConfigError(
            f"{file}: row group {group + 1} holds {largest / 2**30:.1f} GiB of pictures, and reading at random keeps "
            f"whole row groups in memory, {MOST_KEPT / 2**30:g} GiB of them in each worker: write the file anew with "
            "smaller ones (pyarrow.parquet.write_table(table, file, row_group_size=1000))"
        )
    most = _WINDOW_OF_GROUPS if files and all(map(is_parquet, files)) else _WINDOW
    return min(most, MOST_KEPT // max(1, largest))
