"""A corpus of a folder of pictures at any depth; the text of a.jpg is in a.txt, if there is one."""

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from data.corpus.units import BadRecord, Corpus, CorpusImage, Unit, is_utf8, runs
from data.media.folder import find_pictures
from data.records.formats import has_words
from data.records.shard_index import digest
from data.records.shard_samples import decoded_text
from data.records.uids import uid_of
from files import open_regular
from settings import UserError

logger = logging.getLogger("blip.data")

_LONGEST_TEXT = 1 << 20  # bytes, as in a shard


class FolderCorpus(Corpus):
    """The pictures of a folder, in the order of their paths."""

    def __init__(self, folder: Path, *, sources: Sequence[str], unit_size: int) -> None:
        self.image_root = str(folder)
        self._names = [os.path.relpath(file, folder).replace(os.sep, "/") for file in find_pictures([str(folder)])]
        self.units = runs("folder", len(self._names), unit_size)
        sizes = [_size(folder / name) for name in self._names]
        self.identity = {
            "kind": "folder",
            "sources": list(sources),
            "sizes": [len(sizes), sum(sizes)],
            "digest": digest(list(zip(self._names, sizes, strict=True))),
            "unit_size": unit_size,
        }

    def _read(self, unit: Unit) -> Iterator[CorpusImage | BadRecord]:
        for image in self._names[unit.start : unit.stop]:
            if not is_utf8(image):
                yield BadRecord(ascii(image)[1:-1], "its name is no UTF-8 text, which lists of images need")
                continue
            picture = os.path.join(self.image_root, image)
            yield CorpusImage(uid_of(image), image, picture, _texts(picture))

    def picture(self, image: str) -> str:
        return os.path.join(self.image_root, image)


def _texts(picture: str) -> tuple[str, ...]:
    """The text beside a picture, if there is one that holds a word."""
    file = os.path.splitext(picture)[0] + ".txt"
    if not os.path.lexists(file):
        return ()
    try:
        with open_regular(file) as opened:
            content = opened.read(_LONGEST_TEXT + 1)
    except (UserError, OSError) as error:
        logger.warning("%s is not used as a text: %s", file, error)
        return ()
    if len(content) > _LONGEST_TEXT:
        logger.warning("%s is not used as a text: it has over %d bytes", file, _LONGEST_TEXT)
        return ()
    text = decoded_text(content)
    if text is None:
        logger.warning("%s is not used as a text: it is no text in UTF-8", file)
        return ()
    return (text,) if has_words(text) else ()


def _size(file: Path) -> int:
    try:
        return os.path.getsize(file)
    except OSError:  # a link to nothing; it is named when it is opened
        return 0
