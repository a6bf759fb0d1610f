"""A corpus of WebDataset shards (tar files): a unit is a shard, its index is made when it is read."""

import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from data.corpus.units import BadRecord, Corpus, CorpusImage, Unit, unit_names
from data.media.image_file import BadImage
from data.records.open_shards import open_shard
from data.records.pictures import picture_at
from data.records.shard_index import digest, index_key
from data.records.shards import relative_names
from data.records.uids import uid_of

logger = logging.getLogger("blip.data")

_NO_TEXT = ("without a caption", "has no 'caption'")  # problems in training, and none here: nothing was there to lose


class ShardCorpus(Corpus):
    """The samples of tar files that have a picture, with a caption or without."""

    def __init__(self, files: Sequence[Path], *, sources: Sequence[str]) -> None:
        self.image_root, self._names = relative_names(files)
        sizes = [os.path.getsize(file) for file in files]
        self.units = [Unit(name, number) for number, name in enumerate(unit_names(self._names))]
        self.identity = {
            "kind": "shards",
            "sources": list(sources),
            "sizes": [len(files), sum(sizes)],
            "digest": digest(list(zip(self._names, sizes, strict=True))),
        }

    def _read(self, unit: Unit) -> Iterator[CorpusImage | BadRecord]:
        name = self._names[unit.source]
        file = os.path.join(self.image_root, name)
        shard = open_shard(file, index_key(file))
        rows = [row for batch in shard.index.batches for row in batch.to_pylist()]
        unread = Counter[str]()
        for row in sorted(rows, key=lambda row: (row["offset"] is None, row["offset"])):
            image = f"{name}/{row['key']}"
            if row["key"] is None:
                yield BadRecord(name, row["problem"])
            elif row["offset"] is None:
                yield BadRecord(image, f"a sample {row['problem']}")
            else:
                if row["problem"] is not None and not any(mark in row["problem"] for mark in _NO_TEXT):
                    unread[row["problem"]] += 1
                uid = uid_of(image) if row["uid"] is None else row["uid"]
                try:
                    picture = shard.picture(row)
                except BadImage as error:
                    yield BadRecord(image, error.reason)
                    continue
                yield CorpusImage(uid, image, picture, tuple(row["caption"]), row["prompt"])
        for problem, count in unread.items():
            logger.warning("%s: %d samples have no text, being those %s", file, count, problem)

    def picture(self, image: str) -> str | bytes:
        return picture_at(os.path.join(self.image_root, image))
