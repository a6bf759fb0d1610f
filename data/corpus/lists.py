"""A corpus of lists: JSON, JSON Lines, or Parquet files with paths or addresses of pictures."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data.corpus.units import BadRecord, Corpus, CorpusImage, runs
from data.records.addresses import are_web_addresses
from data.records.annotations import AnnotationError, Annotations, content_digest
from data.records.formats import Format, captions, path, text
from data.records.pictures import downloaded_name, picture_at
from data.records.shard_index import digest
from data.records.table import joined, store_once
from data.records.uids import uid_of
from files import is_web_address
from settings import ConfigError, UserError

_LAYOUT = 1  # raise it when records are grouped, or read, in another way
_FIELDS = (
    path("image", required=False),
    path("url", required=False),
    captions("caption", required=False, or_none=True),
    text("uid", required=False),
    text("prompt", required=False),
)


class _CorpusFormat(Format):
    """Records of a noisy corpus: what is wrong with one becomes its field `problem`, and ends no run."""

    def to_row(self, record: Any) -> list[Any]:
        if isinstance(record, dict):
            record = {**record, "problem": None}  # it may have a field of this name
        try:
            *values, _ = super().to_row(record)
        except ValueError as error:
            return [*(None for _ in _FIELDS), str(error)]
        return [*values, None]


class ListCorpus(Corpus):
    """The images of lists in the order of their first records; all records of one image are one image."""

    def __init__(
        self,
        files: Sequence[Path],
        *,
        sources: Sequence[str],
        image_root: str,
        url_root: str,
        unit_size: int,
        image_column: str = "",
        text_column: str = "",
    ) -> None:
        named = tuple((field, name) for field, name in (("image", image_column), ("caption", text_column)) if name)
        fields = (*_FIELDS, text("problem", required=False))
        self._records = Annotations(files, _CorpusFormat("corpus", fields, columns_of=named))
        self.image_root, self.url_root = image_root, url_root
        if not len(self._records):
            raise ConfigError(f"corpus: there is no record in {', '.join(sources)}")
        content = digest([content_digest(file) for file in files] + [named])
        self._groups = store_once(
            "annotations/images", digest([_LAYOUT, content]), {"row": "int64", "start": "int64"}, self._group
        )
        starts = joined([self._groups], "start")
        count = len(starts) - starts.null_count - 1 if len(self._groups) else len(self._records)
        if count == 1 and self._image(self._records[0]) is None:
            raise AnnotationError(f"{self._records.place(0)}, and all others: {_problem(self._records[0])}")
        if not url_root and self._has_addresses():
            raise ConfigError(
                f"{', '.join(sources)}: there are addresses, but no url_root, the folder of their downloads; "
                "docs/data.md says how to download them, better into shards"
            )
        self.units = runs("list", count, unit_size)
        self.identity = {
            "kind": "lists",
            "sources": list(sources),
            "sizes": [len(self._records)],
            "digest": content,
            "unit_size": unit_size,
        }

    def _group(self) -> Iterator[Sequence[int | None]]:
        """The records of the images, in the order of these: a table that all processes share, and later runs find.

        Column `row` holds the numbers of all records; `start`, in its first rows, where in `row` the records of each
        image begin, and at last their number. There are no rows at all where image i is record i, as in most corpora.
        """
        codes = self._records.factorize("image", "url")
        count = int(codes.max(initial=-1)) + 1
        if count == len(codes):
            return
        order = np.argsort(codes, kind="stable")
        starts = np.concatenate([[0], np.cumsum(np.bincount(codes))])
        for number, row in enumerate(order):
            yield [int(row), int(starts[number]) if number <= count else None]

    def _has_addresses(self) -> bool:
        import pyarrow.compute as pc  # is there: the records were opened with it

        urls, images = self._records.column("url"), self._records.column("image")
        return urls.null_count < len(urls) or bool(pc.call_function("any", [are_web_addresses(images)]).as_py())

    def _rows(self, image: int) -> Sequence[int]:
        if not len(self._groups):
            return [image]
        start, stop = (self._groups[image + i]["start"] for i in (0, 1))
        return [self._groups[place]["row"] for place in range(start, stop)]

    @staticmethod
    def _image(record: dict[str, Any]) -> str | None:
        return record["image"] if record["image"] is not None else record["url"]

    def _read(self, unit: Any) -> Iterator[CorpusImage | BadRecord]:
        for number in range(unit.start, unit.stop):
            rows = self._rows(number)
            records = [self._records[row] for row in rows]
            image = self._image(records[0])
            if image is None:
                places = map(self._records.place, rows)
                yield from map(BadRecord, places, map(_problem, records))
                continue
            uids = {record["uid"]: row for record, row in zip(records, rows, strict=True) if record["uid"] is not None}
            if len(uids) > 1:
                (one, row), (other, other_row) = list(uids.items())[:2]
                places = (
                    f"{self._records.place(row)} says {one[:60]!a}, {self._records.place(other_row)} {other[:60]!a}"
                )
                yield BadRecord(image, f"it has several uids: {places}")
                continue
            try:
                picture = self.picture(image)
            except UserError as error:
                yield BadRecord(image, str(error))
                continue
            texts = [caption for record in records for caption in record["caption"] or []]
            prompt = next((record["prompt"] for record in records if record["prompt"] is not None), None)
            yield CorpusImage(next(iter(uids), uid_of(image)), image, picture, tuple(dict.fromkeys(texts)), prompt)

    def picture(self, image: str) -> str | bytes:
        if is_web_address(image):
            return os.path.join(self.url_root, downloaded_name(image))
        return picture_at(os.path.join(self.image_root, image))


def _problem(record: dict[str, Any]) -> str:
    """What is wrong with a record that has no image."""
    return "has none of image, url" if record["problem"] is None else record["problem"]
