"""Parquet files: opened and checked, their columns found by well-known names, their rows read a few at a time.

    file = open_parquet("part.parquet")
    columns = find_columns("part.parquet", file.schema_arrow)      # image: "jpg", caption: "TEXT", ...
    for start, batch in batches("part.parquet", file, columns.names()): ...

What is wrong with a file is an AnnotationError of one line that names it, and the column or the row.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from data.records.json_values import AnnotationError
from files import open_regular
from settings import UserError, needs_extra

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_PICTURES = ("image", "jpg", "jpeg", "png", "webp", "img", "picture", "bytes", "image_bytes", "content")
_PATHS = ("image", "path", "image_path", "file_name", "filename", "file_path")
_NAMES: Mapping[str, tuple[str, ...]] = {
    "image": (*_PICTURES, *_PATHS[1:]),
    "url": ("url", "image_url"),
    "caption": ("caption", "captions", "text", "texts", "txt"),
    "uid": ("uid",),
    "prompt": ("prompt",),
}
"""Field -> the columns that may hold it, in upper or lower case, the first of them preferred."""

_MARK = b"PAR1"  # with which every file begins and ends
_ENCRYPTED = b"PARE"
_LISTED = 20  # columns that are named in an error
_ROWS = 1024  # of texts that are in memory at once
_BUFFER = 1 << 20  # bytes of a column that are read at once, so that a row group of any size can be read

Kind = Literal["bytes", "text", "texts", "null", "other"]


def is_parquet(source: str | Path) -> bool:
    """Whether a file's name says that it is a Parquet file."""
    return str(source).lower().endswith((".parquet", ".parq", ".pq"))


@contextmanager
def readable(place: str | Path) -> Iterator[None]:
    """Raise AnnotationError, which begins with `place`, for what pyarrow cannot read."""
    with needs_extra("data", "reading Parquet files"):
        import pyarrow as pa
    try:
        yield
    except UserError:
        raise
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        if "decrypt" in reason.lower():
            raise AnnotationError(f"{place}: is encrypted: write it anew without encryption") from error
        raise AnnotationError(f"{place}: cannot be read as Parquet ({reason})") from error


def open_parquet(source: str | Path) -> "pq.ParquetFile":
    """Open a Parquet file, of which only the footer is read.

    Raises AnnotationError for what is none: empty, cut off, encrypted, of another format.
    """
    with needs_extra("data", "reading Parquet files"):
        import pyarrow.parquet as pq

    with open_regular(source) as file:  # refuses what is no file, and pyarrow would wait for
        beginning = file.read(len(_MARK))
        file.seek(max(0, os.fstat(file.fileno()).st_size - len(_MARK)))
        end = file.read()
    if not beginning:
        raise AnnotationError(f"{source} is empty")
    if _ENCRYPTED in (beginning, end):
        raise AnnotationError(f"{source}: is encrypted: write it anew without encryption")
    if beginning != _MARK:
        raise AnnotationError(f"{source} is no Parquet file, of which the first bytes are PAR1")
    if end != _MARK:
        raise AnnotationError(f"{source} is cut off: a Parquet file ends in PAR1; fetch or write it again")
    with readable(source):
        return pq.ParquetFile(str(source), buffer_size=_BUFFER, pre_buffer=False)


@dataclass(frozen=True)
class ParquetColumns:
    """The columns of a file that hold what a sample has; None where there is none.

    Attributes:
        image: the picture: as bytes (then `has_bytes` holds), or its path.
        member: the field of `image` that holds the bytes, where it is Hugging Face's {bytes, path}.
    """

    image: str | None
    has_bytes: bool
    member: str | None
    url: str | None
    caption: str | None
    uid: str | None
    prompt: str | None

    @property
    def picture(self) -> str:
        """The column of picture bytes as pyarrow names it in a file."""
        return f"{self.image}.{self.member}" if self.member else str(self.image)

    def texts(self) -> list[str]:
        """The columns beside the picture."""
        return [name for name in (self.caption, self.uid, self.prompt) if name]


def find_columns(
    source: str | Path, schema: "pa.Schema", *, image_column: str = "", text_column: str = ""
) -> ParquetColumns:
    """Find the columns of a corpus or of shards: those named, else those of well-known names.

    Raises AnnotationError for a named column that is not there, for one of another type, and where none can be a
    picture.
    """
    picture, has_bytes = _picture_column(source, schema, image_column)
    url = None if image_column else next(iter(_candidates("url", schema)), None)
    if picture is None and url is None:
        wanted = ", ".join(dict.fromkeys(_NAMES["image"] + _NAMES["url"]))
        raise AnnotationError(f"{source} has no column of pictures ({wanted}; or set image_column); {listed(schema)}")
    caption = text_column or next(iter(_candidates("caption", schema)), None)
    if caption:
        check_texts(source, schema, caption)
    found = {field: next(iter(_candidates(field, schema)), None) for field in ("uid", "prompt")}
    return ParquetColumns(
        picture, has_bytes, _member(schema.field(picture).type) if picture else None, url, caption, **found
    )


def _picture_column(source: str | Path, schema: "pa.Schema", named: str) -> tuple[str | None, bool]:
    """The column of pictures, and whether it holds their bytes; else it holds their paths."""
    if named:
        kind = _kind(column_type(source, schema, named))
        if kind not in ("bytes", "text", "null"):
            raise _wrong_type(source, schema, named, "bytes of pictures, or paths or addresses as text")
        return named, kind == "bytes"
    kinds = {name: _kind(schema.field(name).type) for name in _candidates("image", schema)}
    with_bytes = [name for name, kind in kinds.items() if kind == "bytes"]
    with_bytes += [name for name, kind in kinds.items() if kind == "null" and name.lower() not in _PATHS]
    if not kinds:  # one of another name, if it is the only one
        others = [name for name in schema.names if _kind(schema.field(name).type) == "bytes"]
        with_bytes = others if len(others) == 1 else []
    with_paths = [name for name, kind in kinds.items() if kind in ("text", "null") and name.lower() in _PATHS]
    return next(iter(with_bytes + with_paths), None), bool(with_bytes)


def field_column(source: str | Path, schema: "pa.Schema", field: str, named: str = "") -> str | None:
    """The column of a list that holds a field of its records: `named`, else the field's own or a well-known name.

    Raises AnnotationError where it holds another type than the field, or pictures where their paths are expected.
    """
    if named:
        column_type(source, schema, named)
    names = [named] if named else [field] if field in schema.names else _candidates(field, schema)
    if field == "image" and not named:
        names.sort(key=lambda name: _kind(schema.field(name).type) != "bytes")
        names = [name for name in names if _kind(schema.field(name).type) == "bytes" or name.lower() in _PATHS]
    if not names:
        return None
    if field in ("image", "url"):
        kind = _kind(schema.field(names[0]).type)
        if kind == "bytes":
            raise AnnotationError(
                f"{source}: column {names[0]} holds the pictures themselves: name the file as one of `shards`"
            )
        if kind not in ("text", "null"):
            raise _wrong_type(source, schema, names[0], "text")
    if field == "caption":
        check_texts(source, schema, names[0])
    return names[0]


def check_texts(source: str | Path, schema: "pa.Schema", name: str) -> None:
    """Raise AnnotationError unless the column holds texts or lists of texts."""
    if _kind(column_type(source, schema, name)) not in ("text", "texts", "null"):
        raise _wrong_type(source, schema, name, "text or lists of text")


def wanted_names(field: str) -> str:
    """The columns that may hold a field, for a message."""
    return ", ".join(_NAMES.get(field, (field,)))


def listed(schema: "pa.Schema") -> str:
    """The columns of a file, for a message."""
    names = [name if len(name) <= 60 else f"{name[:57]}..." for name in schema.names]
    more = f", and {len(names) - _LISTED:,} more" if len(names) > _LISTED else ""
    return f"its columns: {', '.join(names[:_LISTED]) or 'none'}{more}"


def batches(
    source: str | Path,
    file: "pq.ParquetFile",
    columns: Sequence[str],
    *,
    groups: Sequence[int] | None = None,
    rows: int = _ROWS,
) -> Iterator["pa.RecordBatch"]:
    """The rows of a file, or of some of its row groups, `rows` of them in memory at a time."""
    number = 0
    chosen = range(file.num_row_groups) if groups is None else groups
    stream = None
    while True:
        with readable(f"{source}, after record {number:,}" if groups is None else source):
            stream = stream or file.iter_batches(rows, list(chosen), columns=list(columns), use_threads=False)
            batch = next(stream, None)
        if batch is None:
            return
        number += batch.num_rows
        yield batch


def check_decrypted(source: str | Path, file: "pq.ParquetFile", column: str) -> None:
    """Raise AnnotationError for an encrypted column of a file with a footer that is not.

    It must be called before the column's metadata is asked for, where pyarrow would end the process.
    """
    try:
        next(batches(source, file, [column], rows=1), None)
    except AnnotationError as error:
        if "is encrypted" in str(error):
            raise


def values_of(column: "pa.Array") -> list[Any]:
    """The values of a column of a batch; in texts that are no UTF-8, the replacement mark for what is none."""
    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        return [_replaced(scalar) for scalar in column]


def _replaced(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        return (
            values_of(scalar.values)
            if hasattr(scalar, "values")
            else scalar.as_buffer().to_pybytes().decode(errors="replace")
        )


def _candidates(field: str, schema: "pa.Schema") -> list[str]:
    """The columns of well-known names for a field, the preferred one first."""
    wanted = _NAMES.get(field, (field,))
    found = [name for name in schema.names if name.lower() in wanted]
    return sorted(found, key=lambda name: wanted.index(name.lower()))


def column_type(source: str | Path, schema: "pa.Schema", name: str) -> "pa.DataType":
    """The type of the column `name`; raises AnnotationError unless there is exactly one."""
    if schema.names.count(name) != 1:
        several = "several columns" if name in schema.names else "no column"
        raise AnnotationError(f"{source} has {several} {name!r}; {listed(schema)}")
    return schema.field(name).type


def _wrong_type(source: str | Path, schema: "pa.Schema", name: str, wanted: str) -> AnnotationError:
    return AnnotationError(
        f"{source}: column {name} is of type {str(schema.field(name).type)[:80]}, expected {wanted}; {listed(schema)}"
    )


def _member(type: "pa.DataType") -> str | None:
    """The field of a struct that holds bytes; None for another type."""
    fields = [type.field(i) for i in range(type.num_fields)] if str(type).startswith("struct<") else []
    names = [field.name for field in fields if _kind(field.type) == "bytes"]
    return "bytes" if "bytes" in names else names[0] if len(names) == 1 else None


def _kind(type: "pa.DataType") -> Kind:
    """What a column of this type holds; null: the values are all missing."""
    name = str(type)
    if name.startswith("dictionary<"):
        return _kind(type.value_type)
    if name in ("string", "large_string", "string_view"):
        return "text"
    if name == "null":
        return "null"
    if name.partition("[")[0] in ("binary", "large_binary", "binary_view", "fixed_size_binary") or _member(type):
        return "bytes"
    return "texts" if "list" in name.partition("<")[0] and _kind(type.value_type) in ("text", "null") else "other"
