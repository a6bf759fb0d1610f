"""A corpus of Parquet files with pictures as bytes: a unit is a run of row groups, read a few rows at a time."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from data.corpus.units import BadRecord, Corpus, CorpusImage, Unit, unit_names
from data.records.parquet import batches, open_parquet, readable, values_of
from data.records.parquet_samples import captions_of, picture_columns, row_key
from data.records.pictures import picture_at
from data.records.shard_index import digest
from data.records.shard_samples import text_of
from data.records.shards import relative_names
from data.records.uids import uid_of
from settings import UserError

_ROWS = 16  # rows that are in memory at once


class ParquetCorpus(Corpus):
    """The rows of Parquet files. A row group is never split: none but its own reader could start inside it."""

    def __init__(
        self,
        files: Sequence[Path],
        *,
        sources: Sequence[str],
        unit_size: int,
        image_column: str = "",
        text_column: str = "",
    ) -> None:
        self.image_root, self._names = relative_names(files)
        self._columns = {"image_column": image_column, "text_column": text_column}
        units: list[Unit] = []
        rows: list[list[int]] = []
        for number, (file, name) in enumerate(zip(files, unit_names(self._names), strict=True)):
            opened = open_parquet(file)
            picture_columns(str(file), opened, **self._columns)
            rows.append([opened.metadata.row_group(group).num_rows for group in range(opened.num_row_groups)])
            units += _units(name, number, rows[-1], unit_size)
        self.units = units
        sizes = [os.path.getsize(file) for file in files]
        self.identity = {
            "kind": "parquet",
            "sources": list(sources),
            "sizes": [len(files), sum(sizes), sum(map(sum, rows))],
            "digest": digest([list(zip(self._names, sizes, rows, strict=True)), sorted(self._columns.items())]),
            "unit_size": unit_size,
        }

    def _read(self, unit: Unit) -> Iterator[CorpusImage | BadRecord]:
        name = self._names[unit.source]
        file = os.path.join(self.image_root, name)
        opened = open_parquet(file)
        counts = [opened.metadata.row_group(group).num_rows for group in range(unit.stop)]
        columns = picture_columns(file, opened, **self._columns)
        fields = (columns.image, columns.caption, columns.uid, columns.prompt)
        for group in range(unit.start, unit.stop):
            row = first = sum(counts[:group])
            try:
                for batch in batches(file, opened, [columns.picture, *columns.texts()], groups=[group], rows=_ROWS):
                    none: list[Any] = [None] * batch.num_rows
                    with readable(file):
                        values = [values_of(batch.column(field)) if field else none for field in fields]
                    for picture, texts, uid, prompt in zip(*values, strict=True):
                        yield self._image(f"{name}/{row_key(row)}", picture, columns.member, texts, uid, prompt)
                        row += 1
            except UserError as error:
                reason = f"{error}; it and the rows after it in the row group are not used"
                yield from (BadRecord(f"{name}/{row_key(lost)}", reason) for lost in range(row, first + counts[group]))

    @staticmethod
    def _image(
        image: str, picture: Any, member: str | None, texts: Any, uid: Any, prompt: Any
    ) -> CorpusImage | BadRecord:
        content = picture.get(member) if member and picture is not None else picture
        if content is None:
            return BadRecord(image, "a row without a picture")
        own = text_of(uid)
        return CorpusImage(
            uid_of(image) if own is None else own, image, content, tuple(captions_of(texts)[0]), text_of(prompt)
        )

    def picture(self, image: str) -> str | bytes:
        return picture_at(os.path.join(self.image_root, image))


def _units(name: str, source: int, rows: Sequence[int], size: int) -> list[Unit]:
    """Runs of row groups of at least one and, where their sizes allow it, at most `size` rows."""
    units: list[Unit] = []
    start = held = 0
    for group, count in enumerate([*rows, size + 1]):
        if group > start and held + count > size:
            units.append(Unit(f"{name}-{len(units):06d}", source, start, group))
            start, held = group, 0
        held += count
    return units
