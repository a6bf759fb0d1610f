"""The index of a shard (a tar or a Parquet file): where each sample lies in it. Made once, then kept in the cache.

An index is named after its shard's path, size and modification time (of a remote shard, after its address, size and
version; it is read through once for that). Indexing that was interrupted continues where it
stopped, a further shard takes only its own time, and processes that start at once (the ranks of a run) share the work.
It has a row for each sample, those that can be trained on first (`samples_of`), and the others with the reason.
"""

import hashlib
import logging
import os
import stat as modes
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from data.records.parquet import is_parquet
from data.records.parquet_samples import parquet_samples, part_bytes
from data.records.shard_samples import Row, samples
from data.records.table import Columns, Store, joined, make_store, store_once, store_path
from data.remote.addresses import is_address
from data.remote.listing import RemoteShard, described
from data.remote.session import copied
from data.remote.stage import Staging
from data.workers import usable_processors
from files import open_regular
from settings import UserError

logger = logging.getLogger("blip.data")

_LAYOUT = 5  # raise it when the indices of older versions must not be used
COLUMNS: Columns = {
    "key": "string",
    "caption": "strings",
    "part": "int64",
    "offset": "int64",
    "size": "int64",
    "uid": "string",
    "prompt": "string",
    "problem": "string",
}  # of a Row
_WORKERS = 4  # indexing processes that each process starts; a node runs several of those
_FEW = 8  # shards that are indexed in less time than starting such processes takes

Shard = str | RemoteShard
"""A shard's path, or what is known of a remote one."""


@dataclass(frozen=True)
class Parts:
    """What is read of shards at once: a tar as a whole, each row group of a Parquet file by itself.

    Attributes:
        shard: int64 [parts], the number of its shard.
        samples: int64 [parts], those that can be trained on.
        bytes: int64 [parts], of pictures that are in memory while one of them is read; 0 for a tar.
    """

    shard: np.ndarray
    samples: np.ndarray
    bytes: np.ndarray


class ShardFiles(NamedTuple):
    """Shards, each with the name of its index: all that file systems and servers have to be asked of at a start."""

    shards: list[Shard]
    keys: list[str]


def look_at(shards: Iterable[str | Path], staging: Staging | None = None) -> ShardFiles:
    """The shards with the names of their indices, as of now.

    Args:
        staging: where copies of those at addresses will lie.
    """
    names = [str(shard) for shard in shards]
    addresses = list(filter(is_address, names))
    remote = iter(described(addresses, (staging or Staging()).path()) if addresses else [])
    found = [next(remote) if is_address(name) else name for name in names]
    return ShardFiles(found, [index_key(shard) for shard in found])


def index_key(shard: Shard) -> str:
    """The name of a shard's index; a changed shard has another one."""
    if isinstance(shard, RemoteShard):
        return digest((_LAYOUT, shard.digest))
    try:
        stat = os.stat(shard)
    except OSError:
        open_regular(shard).close()  # raises what says why
        raise
    if not modes.S_ISREG(stat.st_mode):
        open_regular(shard).close()
    return digest((_LAYOUT, os.path.abspath(shard), stat.st_size, stat.st_mtime_ns))


def shard_index(shard: Shard, key: str) -> Store:
    """A shard's index, made now if it is missing or damaged; while another process makes it, this one waits."""
    return store_once("shards", key, COLUMNS, lambda: _rows(shard, key))


def samples_of(index: Store) -> int:
    """The number of samples that can be trained on: the first rows of an index."""
    return joined([index], "problem").null_count


def shard_parts(shards: Sequence[Shard], keys: Sequence[str]) -> Parts:
    """The parts of all shards, one shard after the other. Makes the indices that are missing.

    Of a remote shard whose number of samples is known, no index is needed. The parts are kept in a file of their own: a
    later start need not open thousands of indices for them.
    """

    def counted() -> Iterator[tuple[int, int, int]]:
        for number, (shard, key) in enumerate(zip(shards, keys, strict=True)):
            if _said(shard) is not None:
                yield number, _said(shard) or 0, 0
                continue
            index = shard_index(shard, key)
            log_left_out(shard if isinstance(shard, str) else shard.name, index)
            sizes = _part_bytes(shard, key)
            parts = np.array(joined([index], "part")[: samples_of(index)], np.int64)
            for count, size in zip(np.bincount(parts, minlength=len(sizes)).tolist(), sizes, strict=True):
                yield number, count, size

    named = list(zip(shards, keys, strict=True))
    summary = digest([key if _said(shard) is None else (key, _said(shard)) for shard, key in named])
    if not store_path("shards/sizes", summary).exists():
        _make_missing([one for one in named if _said(one[0]) is None])
    columns: Columns = {"shard": "int64", "samples": "int64", "bytes": "int64"}
    store = store_once("shards/sizes", summary, columns, counted)
    return Parts(*(np.array(joined([store], name), np.int64) for name in columns))


def log_left_out(shard: str, index: Store) -> None:
    """Log what of a shard cannot be trained on, and why."""
    if samples_of(index) == len(index):
        return
    left_out = Counter[str]()
    for key, problem in zip(joined([index], "key").to_pylist(), joined([index], "problem").to_pylist(), strict=True):
        if problem is not None and key is None:
            logger.warning("%s: %s", shard, problem)
        elif problem is not None:
            left_out[problem] += 1
    if left_out:
        reasons = "; ".join(f"{count} {reason}" for reason, count in left_out.most_common())
        count = left_out.total()
        logger.warning("%s: %d of %d samples are left out: %s", shard, count, samples_of(index) + count, reasons)


def digest(value: object) -> str:
    """A name for what depends on `value`: 32 hexadecimal digits."""
    return hashlib.blake2b(repr(value).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def _said(shard: Shard) -> int | None:
    """The number of samples of a remote shard by a file beside it."""
    return shard.samples if isinstance(shard, RemoteShard) else None


def _rows(shard: Shard, key: str) -> Sequence[Row]:
    if isinstance(shard, RemoteShard):
        with copied(shard) as file:
            if is_parquet(file):
                _keep_part_bytes(key, str(file))
            return _rows(str(file), key)
    return parquet_samples(shard) if is_parquet(shard) else samples(shard)


def _part_bytes(shard: Shard, key: str) -> list[int]:
    """The bytes of pictures in each part of a shard; 0 for a tar."""
    if isinstance(shard, str):
        return part_bytes(shard) if is_parquet(shard) else [0]
    if not is_parquet(shard.basename):
        return [0]
    if not store_path("shards/parts", key).exists():
        with copied(shard) as file:
            _keep_part_bytes(key, str(file))
    return joined([_keep_part_bytes(key, "")], "bytes").to_pylist()


def _keep_part_bytes(key: str, file: str) -> Store:
    """The bytes of each part of a remote Parquet file, kept from `file`, a copy of it, for when there is none."""
    return store_once("shards/parts", key, {"bytes": "int64"}, lambda: [(size,) for size in part_bytes(file)])


def _make_missing(shards: Sequence[tuple[Shard, str]]) -> None:
    """Make the indices that are missing, except those that another process is making."""
    folder = store_path("shards", "").parent
    there = set(os.listdir(folder)) if folder.exists() else set()  # one question instead of thousands
    missing = [shard for shard in shards if store_path("shards", shard[1]).name not in there]
    if not missing:
        return
    logger.info("indexing %d of %d shards (once: later starts find them in the cache)", len(missing), len(shards))
    many = len(missing) > _FEW
    indexing = DataLoader(  # its workers end with this process, however that ends
        _MissingIndices(missing),
        sampler=np.random.default_rng().permutation(len(missing)).tolist(),  # so processes seldom pick the same one
        batch_size=None,
        num_workers=min(_WORKERS, usable_processors()) if many else 0,
        in_order=not many,
        generator=torch.Generator(),  # else the workers' seed would be drawn from the global generator
    )
    for _ in tqdm(indexing, desc="shards", disable=None):
        pass


class _MissingIndices(Dataset[None]):
    """Item i makes the index of shard i, unless it exists by now or another process is making it."""

    def __init__(self, shards: Sequence[tuple[Shard, str]]) -> None:
        self.shards = shards

    def __getitem__(self, number: int) -> None:
        shard, key = self.shards[number]
        if store_path("shards", key).exists():
            return
        with suppress(UserError):  # is raised where the index is needed; from a worker it would come as a traceback
            make_store("shards", key, COLUMNS, lambda: _rows(shard, key), wait=False)
