"""WebDataset shards (tar files of jpg + txt / json, as img2dataset writes them), read at any sample of any shard.

Each shard is walked through once; where every picture lies, and its caption, go into a memory-mapped index. From then
on a shard is a row of samples like any annotation file: the sampler deals them to processes and workers, batches do
not depend on either, and a resumed run reads nothing twice. Shards are files of a local or mounted file system.
"""

import functools
import glob
import hashlib
import itertools
import json
import logging
import os
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from tqdm import tqdm
from webdataset.shardlists import expand_urls
from webdataset.tariterators import base_plus_ext, group_by_keys

from data.store import Store, store_once

_log = logging.getLogger("blip.data")

_LAYOUT = 1  # raised when indices of an older program must not be read
_PICTURES = ("jpg", "jpeg", "png", "webp")
_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("caption", pa.string()),
        ("shard", pa.int32()),
        ("offset", pa.int64()),
        ("size", pa.int64()),
    ]
)
_OPEN_FILES = 64  # shards that a process keeps open


def shard_files(patterns: Sequence[str]) -> list[Path]:
    """The files of patterns with {00000..00099} and *; raises FileNotFoundError for one that is not there."""
    files = []
    for pattern in itertools.chain.from_iterable(expand_urls(pattern) for pattern in patterns):
        found = sorted(glob.glob(pattern))
        if not found:
            raise FileNotFoundError(f"no shard {pattern} (looked for at {Path(pattern).absolute()})")
        files += map(Path, found)
    return files


class Shards:
    """The samples of shards in one row: `shards[row]` is {image: bytes, caption: [str], name: 'shard.tar/key'}."""

    def __init__(self, files: Sequence[str | Path]) -> None:
        self.files = [Path(file) for file in files]
        versions = [(str(file.absolute()), file.stat().st_size, file.stat().st_mtime_ns) for file in self.files]
        key = hashlib.blake2b(repr((_LAYOUT, versions)).encode(), digest_size=16).hexdigest()
        self._index = Store(store_once("shards", key, _SCHEMA, lambda: _index(self.files)))
        self.sizes = np.zeros(len(self.files), np.int64)  # samples of each shard
        for batch in self._index.batches:
            self.sizes += np.bincount(batch.column("shard").to_numpy(), minlength=len(self.files))

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, row: int) -> dict[str, Any]:
        place = self._index[row]
        shard = self.files[place["shard"]]
        image = os.pread(_opened(shard).number, place["size"], place["offset"])
        return {"image": image, "caption": [place["caption"]], "name": f"{shard}/{place['key']}"}


class _Descriptor:
    """An open file, closed when nobody holds it any more."""

    def __init__(self, file: Path) -> None:
        self.number = os.open(file, os.O_RDONLY)

    def __del__(self) -> None:
        os.close(self.number)


@functools.lru_cache(_OPEN_FILES)
def _opened(shard: Path) -> _Descriptor:
    return _Descriptor(shard)


def _index(files: Sequence[Path]) -> Iterator[tuple[str, str, int, int, int]]:
    _log.info("indexing %d shards (once: later starts find the index in the cache)", len(files))
    for number, file in enumerate(tqdm(files, desc="shards", disable=None)):
        for key, caption, picture in _samples(file):
            yield key, caption, number, picture.offset_data, picture.size


def _samples(file: Path) -> Iterator[tuple[str, str, tarfile.TarInfo]]:
    """Key, caption and picture of each sample of a shard; those without a picture or a caption are left out."""
    try:
        tar = tarfile.open(file, "r:")  # noqa: SIM115 (only the opening may fail here)
    except tarfile.ReadError as error:  # a download that broke off at once leaves an empty file
        _log.warning("%s: %s; the shard is left out", file, error)
        return
    left_out = 0
    with tar:
        members = ({"fname": m.name, "data": m, "__url__": str(file)} for m in _whole_members(tar, file))
        for sample in group_by_keys(members, keys=base_plus_ext):
            picture = next((sample[suffix] for suffix in _PICTURES if suffix in sample), None)
            caption = _caption(tar, sample)
            if picture is None or not caption:
                left_out += 1
            else:
                yield sample["__key__"], caption, picture
    if left_out:
        _log.warning("%s: %d samples without a picture or a caption are left out", file, left_out)


def _whole_members(tar: tarfile.TarFile, file: Path) -> Iterator[tarfile.TarInfo]:
    end = os.path.getsize(file)
    try:
        for member in tar:
            if member.offset_data + member.size > end:
                raise tarfile.ReadError("unexpected end of data")
            if member.isfile():
                yield member
    except tarfile.ReadError as error:
        _log.warning("%s: %s; only the samples before are used", file, error)


def _caption(tar: tarfile.TarFile, sample: dict[str, Any]) -> str | None:
    if "txt" in sample:
        return tar.extractfile(sample["txt"]).read().decode("utf-8", errors="replace")
    if "json" in sample:
        try:
            caption = json.loads(tar.extractfile(sample["json"]).read())["caption"]
        except (ValueError, KeyError, TypeError):  # no JSON, no caption, no object
            return None
        return caption if isinstance(caption, str) else None
    return None
