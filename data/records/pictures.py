"""Pictures by the names that records have for them: a file, the download of an address, or a sample of a shard."""

import hashlib
import os
import re
from typing import Any

from data.media.image_file import BadImage, ImageFile
from data.records.open_shards import open_shard
from data.records.shard_index import index_key

_IN_SHARD = re.compile(r"\.(?:tar|parquet)(?=/.)", re.IGNORECASE)


def downloaded_name(url: str) -> str:
    """The file in `url_root` that the download of `url` must have: ab/abcd....jpg, by the MD5 of the address.

    The suffix is always .jpg, whatever format the picture has.

    In a shell: `name=$(printf %s "$url" | md5sum | cut -c1-32); echo ${name:0:2}/$name.jpg`.
    """
    name = hashlib.md5(url.encode(), usedforsecurity=False).hexdigest()
    return f"{name[:2]}/{name}.jpg"


def picture_at(path: str) -> str | bytes:
    """The picture at `path`: the path of a file, or the bytes of a sample, which SHARD.tar/KEY names.

    Raises BadImage for a sample that the shard does not have; a file that is missing is found when it is opened.
    """
    place = _place_in_shard(path)
    if place is None:
        return path
    shard = open_shard(place[0], index_key(place[0]))
    sample = _sample(shard.index, place[1])
    if sample is None:
        raise BadImage(path, "the shard has no such sample with a picture")
    return shard.picture(sample)


def open_picture(path: str) -> ImageFile:
    """The picture at `path` (see `picture_at`), of which only the header has been read; raises BadImage."""
    picture = picture_at(path)
    return ImageFile(picture, path if isinstance(picture, bytes) else None)


def picture_exists(path: str) -> bool:
    """Whether there is a picture at `path` (see `picture_at`)."""
    place = _place_in_shard(path)
    if place is None:
        return os.path.exists(path)
    return _sample(open_shard(place[0], index_key(place[0])).index, place[1]) is not None


def _place_in_shard(path: str) -> tuple[str, str] | None:
    """The shard and the key that a path stands for; None where it is a file's."""
    for suffix in _IN_SHARD.finditer(path):
        if os.path.isfile(path[: suffix.end()]):
            return path[: suffix.end()], path[suffix.end() + 1 :]
    return None


def _sample(index: Any, key: str) -> dict[str, Any] | None:
    """The sample of a shard's index that has this key, and a picture."""
    import pyarrow as pa  # is there: the index was opened with it
    import pyarrow.compute as pc

    row = 0
    for batch in index.batches:
        found = pc.call_function("index", [batch.column("key")], pc.IndexOptions(pa.scalar(key))).as_py()
        if found >= 0:
            sample = index[row + found]
            return sample if sample["offset"] is not None else None
        row += batch.num_rows
    return None
