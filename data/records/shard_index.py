"""The index of a WebDataset shard: where in the tar file each sample lies. Made once, then kept in the cache.

An index is named after its shard's path, size and modification time. Indexing that was interrupted continues where it
stopped, a further shard takes only its own time, and processes that start at once (the ranks of a run) share the work.
"""

import hashlib
import logging
import os
import stat as modes
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from data.records.shard_samples import samples
from data.records.table import Columns, Store, joined, make_store, store_once, store_path
from files import open_regular

logger = logging.getLogger("blip.data")

_LAYOUT = 4  # raise it when the indices of older versions must not be used
_COLUMNS: Columns = {"key": "string", "caption": "strings", "offset": "int64", "size": "int64"}
_WORKERS = 4  # indexing processes that each process starts; a node runs several of those
_FEW = 8  # shards that are indexed in less time than starting such processes takes


def index_key(shard: str) -> str:
    """The name of a shard's index; a changed shard has another one."""
    stat = os.stat(shard)
    if not modes.S_ISREG(stat.st_mode):
        open_regular(shard).close()  # raises what says why
    return _digest((_LAYOUT, os.path.abspath(shard), stat.st_size, stat.st_mtime_ns))


def shard_index(shard: str, key: str) -> Store:
    """A shard's index, made now if it is missing or damaged; while another process makes it, this one waits."""
    return store_once("shards", key, _COLUMNS, lambda: samples(shard))


def shard_sizes(shards: Sequence[str], keys: Sequence[str]) -> np.ndarray:
    """The samples of each shard: int64 [shards]. Makes the indices that are missing.

    The sizes are kept in a file of their own: a later start need not open thousands of indices for them.
    """

    def counted() -> Iterator[tuple[int]]:
        return ((len(shard_index(*shard)),) for shard in zip(shards, keys, strict=True))

    summary = _digest(keys)
    if not store_path("shards/sizes", summary).exists():
        _make_missing(shards, keys)
    sizes = store_once("shards/sizes", summary, {"samples": "int64"}, counted)
    return np.array(joined([sizes], "samples"), np.int64)


def _digest(value: object) -> str:
    return hashlib.blake2b(repr(value).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def _make_missing(shards: Sequence[str], keys: Sequence[str]) -> None:
    """Make the indices that are missing, except those that another process is making."""
    missing = [shard for shard in zip(shards, keys, strict=True) if not store_path("shards", shard[1]).exists()]
    if not missing:
        return
    logger.info("indexing %d of %d shards (once: later starts find them in the cache)", len(missing), len(shards))
    many = len(missing) > _FEW
    indexing = DataLoader(  # its workers end with this process, however that ends
        _MissingIndices(missing),
        sampler=np.random.default_rng().permutation(len(missing)).tolist(),  # so processes seldom pick the same one
        batch_size=None,
        num_workers=min(_WORKERS, os.cpu_count() or 1) if many else 0,
        in_order=not many,
        generator=torch.Generator(),  # else the workers' seed would be drawn from the global generator
    )
    for _ in tqdm(indexing, desc="shards", disable=None):
        pass


class _MissingIndices(Dataset[None]):
    """Item i makes the index of shard i, unless it exists by now or another process is making it."""

    def __init__(self, shards: Sequence[tuple[str, str]]) -> None:
        self.shards = shards

    def __getitem__(self, number: int) -> None:
        shard, key = self.shards[number]
        make_store("shards", key, _COLUMNS, lambda: samples(shard), wait=False)
