"""The samples in a Parquet file that holds pictures as bytes, with their captions: the rows of its index."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from data.records.formats import has_words, replace_lone_surrogates
from data.records.json_values import AnnotationError
from data.records.parquet import batches, check_decrypted, open_parquet, readable, values_of
from data.records.parquet_columns import ParquetColumns, find_columns, listed, wanted_names
from data.records.shard_samples import Row, text_of

if TYPE_CHECKING:
    import pyarrow.parquet as pq

_LONGEST_CAPTION = 1 << 20  # characters; a longer one is none, as in a tar
_PICTURES = 16  # pictures that are in memory at once while missing ones are looked for


def row_key(number: int) -> str:
    """What a row is called, counted from 0 here and from 1 in its name, as records are."""
    return f"row {number + 1}"


def parquet_samples(shard: str) -> list[Row]:
    """All samples of a Parquet file in the order of its rows: those to train on before the others."""
    file = open_parquet(shard)
    if not file.metadata.num_rows:  # whatever its columns are
        return []
    columns = picture_columns(shard, file)
    check_decrypted(shard, file, columns.picture)
    lacking = (
        ""
        if columns.caption
        else f" (no column of {wanted_names('caption')}, upper or lower case; {listed(file.schema_arrow)})"
    )
    rows: list[Row] = []
    for group in range(file.num_row_groups):
        present = _present(shard, file, columns, group)
        for offset, (texts, uid, prompt) in enumerate(_text_rows(shard, file, columns, group)):
            key = row_key(len(rows))
            if not present[offset]:
                rows.append(Row(key, part=group, problem="without a picture"))
                continue
            captions, problem = captions_of(texts)
            if problem and lacking:
                problem += lacking
            rows.append(Row(key, captions, group, offset, None, text_of(uid), text_of(prompt), problem))
    return sorted(rows, key=lambda row: row.problem is not None)


def picture_columns(
    shard: str, file: "pq.ParquetFile", *, image_column: str = "", text_column: str = ""
) -> ParquetColumns:
    """The columns of a file with pictures as bytes; raises AnnotationError for one that only has their paths."""
    columns = find_columns(shard, file.schema_arrow, image_column=image_column, text_column=text_column)
    if not columns.has_bytes:
        raise AnnotationError(
            f"{shard} holds no pictures, only their paths or addresses (column {columns.image or columns.url}): name "
            "it as one of `train_file`"
        )
    return columns


def captions_of(texts: Any) -> tuple[list[str], str | None]:
    """The captions of a row that hold a word; without one, why."""
    several = [text for text in (texts if isinstance(texts, list) else [texts]) if text is not None]
    if not several:
        return [], "without a caption"
    captions = [replace_lone_surrogates(text) for text in several if has_words(text)]
    if any(len(text) > _LONGEST_CAPTION for text in captions):
        return [], f"whose caption has over {_LONGEST_CAPTION:,} characters"
    return captions, None if captions else "whose caption is empty or holds no word"


def part_bytes(shard: str) -> list[int]:
    """The bytes of pictures in each row group, unpacked."""
    file = open_parquet(shard)
    if not file.metadata.num_rows:
        return [0] * file.num_row_groups
    columns = picture_columns(shard, file)
    check_decrypted(shard, file, columns.picture)
    return [_column_of(file, columns, group).total_uncompressed_size for group in range(file.num_row_groups)]


def _column_of(file: "pq.ParquetFile", columns: ParquetColumns, group: int) -> Any:
    """What the footer says of the pictures in a row group."""
    paths = [file.schema.column(i).path for i in range(len(file.schema))]
    return file.metadata.row_group(group).column(paths.index(columns.picture))


def _present(shard: str, file: "pq.ParquetFile", columns: ParquetColumns, group: int) -> np.ndarray:
    """Whether each row of a row group has a picture: from the footer if that says that all have, else from the rows."""
    column = _column_of(file, columns, group)
    statistics = column.statistics
    if statistics is not None and statistics.has_null_count and statistics.null_count == 0:
        return np.ones(file.metadata.row_group(group).num_rows, bool)
    found = [np.zeros(0, bool)]
    for batch in batches(shard, file, [columns.picture], groups=[group], rows=_PICTURES):
        pictures = batch.column(0).field(columns.member) if columns.member else batch.column(0)
        found.append(pictures.is_valid().to_numpy(zero_copy_only=False))
    return np.concatenate(found)


def _text_rows(
    shard: str, file: "pq.ParquetFile", columns: ParquetColumns, group: int
) -> Iterator[tuple[Any, Any, Any]]:
    """(caption, uid, prompt) of each row of a row group."""
    names = columns.texts()
    if not names:
        yield from [(None, None, None)] * file.metadata.row_group(group).num_rows
        return
    for batch in batches(shard, file, names, groups=[group]):
        none: Sequence[Any] = [None] * batch.num_rows
        with readable(shard):
            found = {name: values_of(batch.column(name)) for name in names}
        yield from zip(
            *(found[name] if name else none for name in (columns.caption, columns.uid, columns.prompt)), strict=True
        )
