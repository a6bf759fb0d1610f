"""Memory-mapped tables on disk (Arrow files): written once by one process, read by all, which share the memory."""

import gc
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from filelock import FileLock, Timeout

from files import atomic_write, cache_dir
from settings import needs_extra

if TYPE_CHECKING:
    import pyarrow as pa

Column = Literal["string", "strings", "int64"]
"""What a column holds in each row; a row may lack it."""

Columns = Mapping[str, Column]
"""Name -> kind of each column of a table, in their order."""

_ROWS = 1 << 16  # rows of a record batch: the batch of a row is found by division; 100 million rows have 1,500 batches


class Store:
    """The rows of one Arrow file; a pickle of it holds only the file's path."""

    def __init__(self, file: Path) -> None:
        with needs_extra("data", "reading annotation files"):
            import pyarrow as pa

        self.file = file
        reader = pa.ipc.open_file(pa.memory_map(str(file)))
        self.batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        self._size = sum(batch.num_rows for batch in self.batches)

    def __reduce__(self) -> tuple[type["Store"], tuple[Path]]:
        return Store, (self.file,)

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, row: int) -> dict[str, Any]:
        batch, row = self.batches[row // _ROWS], row % _ROWS
        return {name: column[row].as_py() for name, column in zip(batch.schema.names, batch.columns, strict=True)}


def store_path(kind: str, key: str) -> Path:
    """The file of a store, which may not exist yet."""
    return cache_dir() / kind / f"{key}.arrow"


def store_once(
    kind: str, key: str, columns: Columns, rows: Callable[[], Iterable[Sequence[Any]]], *, wait: bool = True
) -> Path:
    """The file `store_path(kind, key)`, made of `rows()` if it is missing: by one process, while the others wait.

    Without `wait`, a store that another process is making is left to it, and may not exist yet on return.
    """
    store = store_path(kind, key)
    if not store.exists():
        store.parent.mkdir(parents=True, exist_ok=True)
        with suppress(Timeout), FileLock(store.with_suffix(".lock"), timeout=-1 if wait else 0):
            if not store.exists():  # else another process made it while this one waited
                with atomic_write(store) as temporary:
                    _write(temporary, columns, iter(rows()))
    return store


def joined(stores: Sequence[Store], name: str) -> "pa.ChunkedArray":
    """One column of all stores, one after the other; nothing is copied."""
    with needs_extra("data", "reading annotation files"):
        import pyarrow as pa

    chunks = [batch.column(name) for store in stores for batch in store.batches]
    return pa.chunked_array(chunks, type=None if chunks else pa.string())


def _write(file: Path, columns: Columns, rows: Iterator[Sequence[Any]]) -> None:
    with needs_extra("data", "reading annotation files"):
        import pyarrow as pa

    types = {"string": pa.string(), "strings": pa.list_(pa.string()), "int64": pa.int64()}
    schema = pa.schema([(name, types[kind]) for name, kind in columns.items()])
    with _garbage_collection_paused(), pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        while batch := list(itertools.islice(rows, _ROWS)):
            values = zip(*batch, strict=True)
            arrays = [pa.array(column, kind) for column, kind in zip(values, schema.types, strict=True)]
            writer.write_batch(pa.record_batch(arrays, schema=schema))


@contextmanager
def _garbage_collection_paused() -> Iterator[None]:
    """Pause Python's search for reference cycles: records have none, and writing a store takes half the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
