"""What a corpus consists of: images with their texts, in units of work that any process can read.

corpus = open_corpus(["shards/{00000..00099}.tar"])         # data/corpus/sources.py
for unit in corpus.units:
    for image in corpus.read(unit):                         # in order; a BadRecord for what cannot be used
        if isinstance(image, CorpusImage):
            pixels = image.open().read()                    # raises BadImage
"""

import abc
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from data.media.image_file import ImageFile
from data.records.shard_index import digest
from data.records.uids import UID
from settings import ConfigError, UserError

_NAME = 80  # characters of a unit's name


@dataclass(frozen=True)
class CorpusImage:
    """An image of a corpus, with the texts that it has there.

    Attributes:
        uid: 32 hexadecimal digits: the corpus's own, else a hash of `image`.
        image: what lists call it: its path below `image_root` as written, its address, or SHARD.tar/KEY.
        picture: its file, or its bytes.
        texts: its web texts that hold a word, as they are written there; there may be none.
        prompt: what its synthetic captions begin with, if the corpus says so.
    """

    uid: str
    image: str
    picture: str | bytes = field(repr=False)
    texts: tuple[str, ...] = ()
    prompt: str | None = None

    def open(self) -> ImageFile:
        """The picture, of which only the header has been read; raises BadImage."""
        return ImageFile(self.picture, self.image if isinstance(self.picture, bytes) else None)


@dataclass(frozen=True)
class BadRecord:
    """What of a corpus cannot be used: its name (a shard, a sample, a record), and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Unit:
    """A unit of work: a shard, row groups of a Parquet file, or a run of a list's images.

    Attributes:
        name: unlike every other unit's, fit to be a file's, and the same in every process and run.
        source: the number of the file, where units are parts of files.
        start, stop: the part: row groups of a Parquet file, images of a list or folder.
    """

    name: str
    source: int = 0
    start: int = 0
    stop: int = 0


class Corpus(abc.ABC):
    """A corpus of one kind. It can be pickled, and is the same in every process that opens it.

    Attributes:
        units: all units of work, in the corpus's order.
        identity: what tells one corpus from another (kind, sources, sizes, digest), as JSON holds it.
    """

    units: Sequence[Unit]
    identity: dict[str, Any]

    def read(self, unit: Unit) -> Iterator[CorpusImage | BadRecord]:
        """The images of a unit in order, and what of it cannot be used. Pictures are not decoded.

        Raises UserError for two images of the unit with one uid.
        """
        first_of: dict[str, str] = {}
        for image in self._read(unit):
            if isinstance(image, CorpusImage):
                if not UID.fullmatch(image.uid):
                    yield BadRecord(image.image, f"its uid is {image.uid[:60]!a}, expected 32 hexadecimal digits")
                    continue
                if image.uid in first_of:
                    raise UserError(
                        f"{image.image} has the uid {image.uid} of {first_of[image.uid]}: scores are kept by uid, so "
                        "each image needs its own"
                    )
                first_of[image.uid] = image.image
            yield image

    @abc.abstractmethod
    def _read(self, unit: Unit) -> Iterator[CorpusImage | BadRecord]:
        """As `read`, before uids are checked."""

    @abc.abstractmethod
    def picture(self, image: str) -> str | bytes:
        """The file or the bytes of the image that `CorpusImage.image` names; raises BadImage where there is none."""

    def open(self, image: str) -> ImageFile:
        """The picture of the image that `CorpusImage.image` names; raises BadImage."""
        picture = self.picture(image)
        return ImageFile(picture, image if isinstance(picture, bytes) else None)


def runs(name: str, count: int, size: int) -> list[Unit]:
    """The units of `size` images each that `count` images make: NAME-000000, NAME-000001, ..."""
    return [
        Unit(f"{name}-{number:06d}", 0, start, min(start + size, count))
        for number, start in enumerate(range(0, count, size))
    ]


def unit_names(names: Sequence[str]) -> list[str]:
    """A name for the unit of each file: the file's own without folder and suffix, where these differ.

    Otherwise the folders are a part of it; what a file's name cannot be everywhere is replaced, and a hash added where
    that makes names alike. Raises ConfigError for a file whose name is no text.
    """
    for name in names:
        if not is_utf8(name):
            raise ConfigError(f"corpus: {name!a} is no UTF-8 text, which lists of images need: rename the file")
    bare = [name.rpartition("/")[2].partition(".")[0] for name in names]
    for candidates in (bare, [name.rpartition(".")[0] or name for name in names]):
        safe = [re.sub(r"[^A-Za-z0-9_-]", "_", candidate)[-_NAME:] for candidate in candidates]
        if _distinct(safe) and all(safe):
            return safe
    return [f"{name}-{digest(full)[:12]}" for name, full in zip(safe, names, strict=True)]


def is_utf8(name: str) -> bool:
    """Whether lists and tables can hold a file's name."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _distinct(names: Iterable[str]) -> bool:
    lower = [name.lower() for name in names]  # some file systems do not tell A from a
    return len(set(lower)) == len(lower)
