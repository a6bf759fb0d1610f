"""Parquet files: opened and checked, their rows read a few at a time.

    file = open_parquet("part.parquet")
    for batch in batches("part.parquet", file, ["url", "TEXT"]): ...

What is wrong with a file is an AnnotationError of one line that names it.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.records.json_values import AnnotationError
from files import open_regular
from settings import UserError, needs_extra

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_MARK = b"PAR1"  # with which every file begins and ends
_ENCRYPTED = b"PARE"
_ROWS = 1024  # of texts that are in memory at once
_BUFFER = 1 << 20  # bytes of a column that are read at once, so that a row group of any size can be read


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
