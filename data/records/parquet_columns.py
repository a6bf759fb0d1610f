"""Which columns of a Parquet file hold pictures and texts: found by well-known names, and checked by their types."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from data.records.json_values import AnnotationError

if TYPE_CHECKING:
    import pyarrow as pa

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

_LISTED = 20  # columns that are named in an error

Kind = Literal["bytes", "text", "texts", "null", "other"]


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
        raise AnnotationError(
            f"{source} has no column of pictures ({wanted}; a corpus may set image_column); {listed(schema)}"
        )
    caption = text_column or next(iter(_candidates("caption", schema)), None)
    if caption:
        check_texts(source, schema, caption)
    found = {field: next(iter(_candidates(field, schema)), None) for field in ("uid", "prompt")}
    for name in (picture, url, *found.values()):
        if name:
            column_type(source, schema, name)
    member = _member(schema.field(picture).type) if picture else None
    return ParquetColumns(picture, has_bytes, member, url, caption, **found)


def _picture_column(source: str | Path, schema: "pa.Schema", named: str) -> tuple[str | None, bool]:
    """The column of pictures, and whether it holds their bytes; else it holds their paths."""
    if named:
        kind = _kind(column_type(source, schema, named))
        if kind not in ("bytes", "text", "null"):
            raise _wrong_type(source, schema, named, "bytes of pictures, or paths or addresses as text")
        return named, kind == "bytes"
    types = {field.name: field.type for field in schema}  # of columns with one name, the last; refused where they count
    kinds = {name: _kind(types[name]) for name in _candidates("image", schema)}
    with_bytes = [name for name, kind in kinds.items() if kind == "bytes"]
    with_bytes += [name for name, kind in kinds.items() if kind == "null" and name.lower() not in _PATHS]
    if not kinds:  # one of another name, if it is the only one
        others = [name for name, type in types.items() if _kind(type) == "bytes"]
        with_bytes = others if len(others) == 1 else []
    with_paths = [name for name, kind in kinds.items() if kind in ("text", "null") and name.lower() in _PATHS]
    return next(iter(with_bytes + with_paths), None), bool(with_bytes)


def field_column(source: str | Path, schema: "pa.Schema", field: str, named: str = "") -> str | None:
    """The column of a list that holds a field of its records: `named`, else the field's own or a well-known name.

    Raises AnnotationError where it holds another type than the field, or pictures where their paths are expected.
    """
    names = [named] if named else [field] if field in schema.names else _candidates(field, schema)
    if field == "image" and not named:
        types = {field.name: _kind(field.type) for field in schema}
        names.sort(key=lambda name: types[name] != "bytes")
        names = [name for name in names if types[name] == "bytes" or name.lower() in _PATHS]
    if not names:
        return None
    kind = _kind(column_type(source, schema, names[0]))
    if field in ("image", "url"):
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
