"""The index of a WebDataset shard: where in the tar file each sample lies. Made once, then kept in the cache.

An index is named after its shard's path, size and modification time. Indexing that was interrupted continues where it
stopped, a further shard takes only its own time, and processes that start at once (the ranks of a run) share the work.
"""

import hashlib
import json
import logging
import os
import tarfile
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from data.records.formats import replace_lone_surrogates
from data.records.table import Columns, Store, joined, make_store, store_once, store_path
from settings import needs_extra

logger = logging.getLogger("blip.data")

_LAYOUT = 3  # raise it when the indices of older versions must not be used
_PICTURES = ("jpg", "jpeg", "png", "webp")
_COLUMNS: Columns = {"key": "string", "caption": "string", "offset": "int64", "size": "int64"}
_WORKERS = 4  # indexing processes that each process starts; a node runs several of those
_LONGEST_END = 1 << 20  # bytes of zeros that programs write after the last file, and more than any does
_FEW = 8  # shards that are indexed in less time than starting such processes takes

Row = tuple[str, str, int, int]  # as in _COLUMNS
Members = dict[str, tarfile.TarInfo]  # the files of a sample by their suffix


def index_key(shard: str) -> str:
    """The name of a shard's index; a changed shard has another one."""
    stat = os.stat(shard)
    return _digest((_LAYOUT, os.path.abspath(shard), stat.st_size, stat.st_mtime_ns))


def shard_index(shard: str, key: str) -> Store:
    """A shard's index, made now if it is missing or damaged; while another process makes it, this one waits."""
    return store_once("shards", key, _COLUMNS, lambda: _rows(shard))


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
        make_store("shards", key, _COLUMNS, lambda: _rows(shard), wait=False)


def _rows(shard: str) -> Iterator[Row]:
    """Key, caption, and the place of the picture of each sample; those without a picture or a caption are left out."""
    try:
        tar = tarfile.open(shard, "r:")  # noqa: SIM115 (only the opening may fail here)
    except tarfile.ReadError as error:  # a download that broke off at once leaves an empty file
        logger.warning("%s: %s; the shard is left out", shard, error)
        return
    left_out = 0
    with tar:
        for key, members in _samples(_whole_members(tar, shard), shard):
            picture = next((members[suffix] for suffix in _PICTURES if suffix in members), None)
            caption = _caption(tar, members)
            if picture is None or not caption:
                left_out += 1
            else:
                yield replace_lone_surrogates(key), replace_lone_surrogates(caption), picture.offset_data, picture.size
    if left_out:
        logger.warning("%s: %d samples without a picture or a caption are left out", shard, left_out)


def _whole_members(tar: tarfile.TarFile, shard: str) -> Iterator[tarfile.TarInfo]:
    """The files in a tar, up to where it is cut off or broken."""
    end = os.path.getsize(shard)
    try:
        for member in tar:
            if member.offset_data + member.size > end:
                raise tarfile.ReadError("unexpected end of data")
            if member.isfile():
                yield member
        _check_end(shard, tar.offset)
    except tarfile.ReadError as error:
        logger.warning("%s: %s; only the samples before are used", shard, error)


def _check_end(shard: str, offset: int) -> None:
    """Raise ReadError unless the end of the tar is marked at `offset`, where `tarfile` stopped.

    `tarfile` takes any broken header for the end. The mark is a block of zeros, and a few more may follow; very many
    mean that the file was allocated at its full size and not filled.
    """
    end = os.path.getsize(shard)
    with open(shard, "rb") as file:
        file.seek(offset)
        rest = file.read(_LONGEST_END)
    if len(rest) < tarfile.BLOCKSIZE:
        raise tarfile.ReadError(f"unexpected end of data at byte {offset}")
    if rest.strip(b"\0") or end - offset > _LONGEST_END:
        raise tarfile.ReadError(f"broken at byte {offset} of {end}")


def _samples(members: Iterable[tarfile.TarInfo], shard: str) -> Iterator[tuple[str, Members]]:
    """(key, files) of each sample: consecutive files with one key, as webdataset groups them.

    Of files with the same name the first is used.
    """
    with needs_extra("data", "reading shards"):
        from webdataset.tariterators import base_plus_ext

    names: set[tuple[str, str]] = set()
    repeated: list[str] = []
    key = ""
    sample: Members = {}
    for member in members:
        prefix, suffix = base_plus_ext(member.name)
        if prefix is None or suffix is None:  # a file without a suffix belongs to no sample
            continue
        suffix = suffix.lower()
        if (prefix, suffix) in names:
            repeated.append(member.name)
            continue
        names.add((prefix, suffix))
        if prefix != key:
            if sample:
                yield key, sample
            key, sample = prefix, {}
        sample[suffix] = member
    if sample:
        yield key, sample
    if repeated:
        logger.warning(
            "%s: %d files have the name of an earlier one, which is used; the first is %s",
            shard,
            len(repeated),
            repeated[0],
        )


def _caption(tar: tarfile.TarFile, members: Members) -> str | None:
    """The sample's caption: its .txt file, or `caption` of its .json file."""
    if "txt" in members:
        return _content(tar, members["txt"]).decode("utf-8", errors="replace")
    if "json" in members:
        try:
            caption = json.loads(_content(tar, members["json"]))["caption"]
        except (ValueError, KeyError, TypeError):  # no JSON, no caption, no object
            return None
        return caption if isinstance(caption, str) else None
    return None


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    return file.read() if file else b""  # None stands for what is not a file
