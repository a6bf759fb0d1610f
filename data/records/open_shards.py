"""Shards that a process keeps open to read pictures from: tar files, and Parquet files with their last row groups.

Copies of remote shards are opened for each picture anew: a file that is kept open takes its room on the disk even after
it is deleted.
"""

import functools
import os
import threading
import weakref
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np

from data.media.image_file import BadImage
from data.records.parquet import is_parquet, open_parquet, readable
from data.records.parquet_samples import picture_columns
from data.records.shard_index import shard_index
from data.records.table import joined
from files import open_regular
from settings import UserError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_OPEN_SHARDS = 64  # more than an epoch's order needs at a time
MOST_KEPT = 2**30
"""Bytes of row groups that a process keeps in memory, whatever number of files they are from."""


class _OpenShard:
    """A shard with its index."""

    def __init__(self, file: str, key: str, name: str) -> None:
        self.index = shard_index(file, key)
        self.file, self.name = file, name

    @functools.cached_property
    def with_picture(self) -> np.ndarray:
        """int64 [samples], the rows of the index that have a picture: those to train on before the others."""
        return np.flatnonzero(joined([self.index], "offset").is_valid().to_numpy())


class OpenTar(_OpenShard):
    """A tar and its index, closed when nothing refers to them any more."""

    def __init__(self, file: str, key: str) -> None:
        super().__init__(file, key, file)
        self._file = open_regular(file)  # closed with this object
        self._lock = threading.Lock()
        weakref.finalize(self, self._file.close)

    def picture(self, sample: dict[str, Any]) -> bytes:
        """The bytes of the picture of `sample`, a row of the index; raises BadImage where they cannot be read."""
        try:
            if hasattr(os, "pread"):  # needs no position, which forked workers would share
                return os.pread(self._file.fileno(), sample["size"], sample["offset"])
            with self._lock:  # Windows, where processes share no open file, but threads do
                self._file.seek(sample["offset"])
                return self._file.read(sample["size"])
        except OSError as error:
            raise BadImage(f"{self.name}/{sample['key']}", error.strerror or str(error)) from error


class CopiedTar(_OpenShard):
    """A copy of a tar and its index."""

    def picture(self, sample: dict[str, Any]) -> bytes:
        """The bytes of the picture of `sample`, a row of the index; raises BadImage where they cannot be read."""
        try:
            with open(self.file, "rb", buffering=0) as file:
                file.seek(sample["offset"])
                return file.read(sample["size"])
        except OSError as error:
            raise BadImage(f"{self.name}/{sample['key']}", error.strerror or str(error)) from error


class OpenParquet(_OpenShard):
    """A Parquet file and its index. Its row groups are decoded as a whole, and the last ones kept in memory."""

    def __init__(self, file: str, key: str, copy_of: str = "") -> None:
        super().__init__(file, key, copy_of or file)
        opened = open_parquet(file)
        self._picture = picture_columns(file, opened)
        self._opened = None if copy_of else opened

    def picture(self, sample: dict[str, Any]) -> bytes:
        """The bytes of the picture of `sample`, a row of the index; raises BadImage where they cannot be decoded."""
        group = _groups.get(self, sample["part"])
        if isinstance(group, UserError):
            raise BadImage(f"{self.name}/{sample['key']}", str(group))
        return group[sample["offset"]].as_py()

    def read_group(self, number: int) -> "pa.ChunkedArray | UserError":
        """The pictures of a row group; an error where they cannot be decoded."""
        file: pq.ParquetFile = self._opened or open_parquet(self.file)
        try:
            with readable(f"row group {number + 1}"):
                table = file.read_row_group(number, [self._picture.picture], use_threads=False)
        except UserError as error:
            return error
        if table.num_rows != file.metadata.row_group(number).num_rows:
            return UserError(f"row group {number + 1} has {table.num_rows:,} rows, other than the footer says")
        column = table.column(0)
        return column.combine_chunks().field(self._picture.member) if self._picture.member else column


class _Groups:
    """The row groups that were used last, as many as fit into MOST_KEPT bytes, but at least one."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[OpenParquet, int], pa.ChunkedArray | UserError] = OrderedDict()
        self._lock = threading.Lock()  # else threads would decode the same group, each for itself

    def get(self, shard: OpenParquet, number: int) -> "pa.ChunkedArray | UserError":
        with self._lock:
            if (shard, number) not in self._kept:
                self._kept[shard, number] = shard.read_group(number)
                while len(self._kept) > 1 and sum(map(_bytes, self._kept.values())) > MOST_KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end((shard, number))
            return self._kept[shard, number]


def _bytes(group: "pa.ChunkedArray | UserError") -> int:
    return 0 if isinstance(group, UserError) else group.nbytes


_groups = _Groups()


@functools.lru_cache(_OPEN_SHARDS)
def open_shard(file: str, key: str, copy_of: str = "") -> OpenTar | CopiedTar | OpenParquet:
    """A shard with its index, opened once in a process as long as it is in use.

    Args:
        copy_of: the name of the remote shard that `file` is a copy of.
    """
    if is_parquet(file):
        return OpenParquet(file, key, copy_of)
    return CopiedTar(file, key, copy_of) if copy_of else OpenTar(file, key)
