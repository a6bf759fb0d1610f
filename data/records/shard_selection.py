"""The samples of shards that a list of uids names: found once, then kept in the cache."""

import logging
from collections.abc import Iterator, Sequence

import numpy as np

from data.records.shard_index import Parts, Shard, digest, index_key, samples_of, shard_index
from data.records.table import Store, joined, store_once
from data.records.uids import UID, UidList, uid_numbers, uid_of
from settings import ConfigError

logger = logging.getLogger("blip.data")


def selected_samples(
    shards: Sequence[Shard], keys: Sequence[str], names: Sequence[str], parts: Parts, uids: UidList, folder: str
) -> Store:
    """The samples whose uids are listed, in the order of the shards: part, and row in the shard's index.

    A sample's uid is its own, else the hash of its shard's name and its key.

    Args:
        names: what the shards are called in `folder`.
    """

    def found() -> Iterator[tuple[int, int]]:
        first = count = 0
        for number, (shard, key, name) in enumerate(zip(shards, keys, names, strict=True)):
            index = shard_index(shard, key)
            rows = _listed_rows(index, name, uids)
            own = joined([index], "part")
            for row in rows.tolist():
                yield first + own[row].as_py(), row
            count += len(rows)
            first += int((parts.shard == number).sum())
        total = int(parts.samples.sum())
        if not count:
            raise ConfigError(
                f"uids: {uids.file} lists {len(uids):,}, but none of the {total:,} samples of the shards. A sample "
                f"without a uid of its own has the hash of its shard's path below the folder of all shards, {folder}, "
                "and its key: name the shards that the list was made of, all of them"
            )
        logger.info("%d of %d samples of the shards are in %s, which lists %d", count, total, uids.file, len(uids))

    key = digest((keys, names, index_key(str(uids.file))))
    return store_once("shards/uids", key, {"part": "int64", "row": "int64"}, found)


def _listed_rows(index: Store, name: str, uids: UidList) -> np.ndarray:
    """The rows of a shard's index that can be trained on and are listed."""
    count = samples_of(index)
    pairs = zip(joined([index], "uid")[:count].to_pylist(), joined([index], "key")[:count].to_pylist(), strict=True)
    own = [uid_of(f"{name}/{key}") if uid is None else uid for uid, key in pairs]
    valid = np.array([UID.fullmatch(uid) is not None for uid in own], bool)
    rows = np.flatnonzero(valid)
    if len(rows) < count:
        logger.warning("%s: %d samples have a uid that is no 32 hexadecimal digits", name, count - len(rows))
    return rows[uids.contain(uid_numbers([own[row] for row in rows]))]
