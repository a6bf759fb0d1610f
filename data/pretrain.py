"""Pre-training: image-text pairs from annotation files, from WebDataset shards, or from both."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data.dataset import Sample, TrainDataset, TrainImage, pick_caption
from data.lanes import Lanes
from data.media.image_file import ImageFile
from data.order import Order, Pieces, by_shard, in_one_lane, listed, mixed, passes
from data.records.annotations import Annotations
from data.records.formats import Format, captions, path
from data.records.pictures import downloaded_name as downloaded_name
from data.records.pictures import open_picture
from data.records.shard_index import ShardFiles
from data.records.shards import Shards
from data.records.uids import UidList
from data.remote.stage import Staging
from data.remote.stager import Stager
from data.text import clean_caption
from settings import ConfigError

PAIR = Format(
    "pretrain",
    (path("image", required=False), path("url", required=False), captions("caption")),
    either=("image", "url"),
    needed="caption",
)


class PretrainDataset(TrainDataset):
    """Batch: image uint8 [B, 3, S, S], caption list[str] (cleaned).

    An epoch uses every sample of the shards, of `files`, and of the next one of `laion_files` once, in one shuffled
    order (within shards: a few files at a time). With `uids`, only the samples of shards that this file lists. With
    `shards_share`, that share of the epoch is drawn from the shards instead of as many samples as they hold. With
    `shard_lanes`, a number of lanes, the processes read different shards (data/lanes.py). Towards the end of an epoch,
    remote shards are fetched for the next of `epochs`.
    """

    def __init__(
        self,
        files: Sequence[str | Path],
        transform: TrainImage,
        *,
        image_root: str | Path = "",
        url_root: str | Path = "",
        laion_files: Sequence[str | Path] = (),
        shards: Sequence[str | Path] | ShardFiles = (),
        uids: str | Path = "",
        shards_share: float | None = None,
        shard_lanes: int | None = None,
        staging: Staging | None = None,
        epochs: int = 1,
        max_words: int = 30,
        seed: int = 0,
    ) -> None:
        self.url_root = url_root
        super().__init__(self._pairs(files), image_root, transform, seed)
        self.laion_files = list(laion_files)
        self.shards = Shards(shards, UidList(uids) if uids else None, staging)
        self.shards_share = shards_share
        self._lanes = None
        if shard_lanes:
            held = self.shards
            self._lanes = Lanes(shard_lanes, held.sizes, held.part_shards, window=held.window, seed=seed)
        self.epochs = epochs
        self.max_words = max_words
        self._laion: tuple[int, Annotations] = (-1, Annotations([], PAIR))

    def laion(self, epoch: int) -> Annotations:
        """The annotations that `epoch` adds: one of `laion_files`, in turn."""
        if not self.laion_files:
            return self._laion[1]
        number = epoch % len(self.laion_files)
        if self._laion[0] != number:
            self._laion = (number, self._pairs([self.laion_files[number]]))
        return self._laion[1]

    def _pairs(self, files: Sequence[str | Path]) -> Annotations:
        pairs = Annotations(files, PAIR)
        if pairs.column("image").null_count and not self.url_root:
            raise ConfigError(
                f"{', '.join(map(str, files))}: there are records with `url` in place of `image`, but no url_root, the "
                "folder of their downloads; docs/data.md says how to download them, better into shards"
            )
        return pairs

    def sources(self) -> list[str | Path]:
        return [*super().sources(), *self.laion_files, *self.shards.files]

    def size(self, epoch: int) -> int:
        return len(self.shards) + len(self.annotations) + len(self.laion(epoch))

    def order(self, epoch: int) -> Order:
        in_shards, size = len(self.shards), self.size(epoch)
        if self._lanes:
            return self._lanes.order(epoch, size - in_shards, self.shards_share)
        return in_one_lane(size, lambda: self._pieces(in_shards, size, (self.seed, epoch)))

    def _pieces(self, in_shards: int, size: int, key: tuple[int, int]) -> Pieces:
        """The indices of an epoch without lanes."""
        if not in_shards:
            return listed(size, key)
        if in_shards == size:
            return by_shard(self.shards.sizes, key, self.shards.window)

        def of_lists(number: int) -> Pieces:
            return (piece + in_shards for piece in listed(size - in_shards, (*key, number)))

        def of_shards(number: int) -> Pieces:
            return by_shard(self.shards.sizes, (*key, number), self.shards.window)

        share = in_shards / size if self.shards_share is None else self.shards_share
        return mixed(passes(of_lists, size), passes(of_shards, size), size, share, key)

    def stager(
        self, epoch: int, batches: Iterable[np.ndarray], start_batch: int, following: Iterable[np.ndarray]
    ) -> Stager | None:
        ahead = self._in_shards(epoch + 1, following) if epoch + 1 < self.epochs else ()
        return self.shards.stager(self._in_shards(epoch, batches), start_batch, ahead)

    def _in_shards(self, epoch: int, batches: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Of each batch, the rows of the shards, and in which pass over the shards they are read."""
        size, in_shards = self.size(epoch), len(self.shards)
        for indices in batches:
            passes, rows = np.divmod(indices, size)
            yield rows[rows < in_shards], passes[rows < in_shards]

    def another(self, epoch: int, index: int, attempt: int, rng: np.random.Generator) -> int:
        in_shards = len(self.shards)
        if index < in_shards:
            return self.shards.another_row(index, attempt, rng)
        return int(rng.integers(in_shards, self.size(epoch)))

    def record(self, epoch: int, index: int) -> dict[str, Any]:
        """The record at `index`, counted through the shards, the files, and then the LAION file of this epoch."""
        for part in (self.shards, self.annotations, self.laion(epoch)):
            if index < len(part):
                return part[index]
            index -= len(part)
        raise IndexError(f"index {index} past the end of epoch {epoch}")

    def sample(self, record: dict[str, Any], rng: np.random.Generator) -> Sample:
        picture = self._picture(record)
        return {
            "image": self.transform(picture, rng),
            "caption": clean_caption(pick_caption(record["caption"], rng), self.max_words),
            "files": [picture.name],
        }

    def _picture(self, record: dict[str, Any]) -> ImageFile:
        if "name" in record:  # from a shard
            return ImageFile(record["image"], record["name"])
        if record["image"] is not None:
            return open_picture(os.path.join(self.image_root, record["image"]))
        return ImageFile(os.path.join(self.url_root, downloaded_name(record["url"])))
