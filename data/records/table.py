"""Memory-mapped tables on disk (Arrow files): written once by one process, read by all, which share the memory."""

import functools
import gc
import itertools
import logging
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from filelock import SoftFileLease, Timeout

from files import atomic_write, cache_dir
from settings import UserError, needs_extra

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger("blip.data")

Column = Literal["string", "strings", "int64"]
"""What a column holds in each row; a row may lack it."""

Columns = Mapping[str, Column]
"""Name -> kind of each column of a table, in their order."""

_ROWS = 1 << 16  # rows of a record batch: the batch of a row is found by division; 100 million rows have 1,500 batches
_MARK = b"blip-1\r\n"
_END = struct.Struct("<8sQI")  # what follows the Arrow file: _MARK, its length, and the checksum
_CHECKED = 1 << 30  # bytes at the end of a table that are checked each time it is opened; all of nearly every table


class DamagedStore(UserError):
    """A store that is not as it was written: cut off, overwritten, or another's under its name."""


class Store:
    """The rows of one file that `store_once` made; a pickle of it holds only the file's path.

    The file is an Arrow file and, after it, a mark, its length and a checksum, which begins with the store's name: what
    was cut off, changed, or is another store is a DamagedStore, never other rows.
    """

    def __init__(self, file: Path) -> None:
        with needs_extra("data", "reading annotation files"):
            import pyarrow as pa

        self.file = file
        content = pa.memory_map(str(file)).read_buffer() if file.stat().st_size else pa.py_buffer(b"")
        table = content.slice(0, max(0, content.size - _END.size))
        if store_end(file.stem, table) != content.slice(table.size).to_pybytes():
            raise DamagedStore(f"{file} is not as it was written")
        reader = pa.ipc.open_file(table)
        self.batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        self._size = sum(batch.num_rows for batch in self.batches)

    def __reduce__(self) -> tuple[type["Store"], tuple[Path]]:
        return Store, (self.file,)

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, row: int) -> dict[str, Any]:
        batch, row = self.batches[row // _ROWS], row % _ROWS
        return {name: column[row].as_py() for name, column in zip(batch.schema.names, batch.columns, strict=True)}


def store_end(name: str, table: "pa.Buffer") -> bytes:
    """What follows the Arrow file `table` in a store called `name`."""
    checked = memoryview(table)[-_CHECKED:]
    return _END.pack(_MARK, table.size, zlib.crc32(checked, zlib.crc32(name.encode())))


def store_path(kind: str, key: str) -> Path:
    """The file of a store, which may not exist yet."""
    return cache_dir() / kind / f"{key}.arrow"


def store_once(kind: str, key: str, columns: Columns, rows: Callable[[], Iterable[Sequence[Any]]]) -> Store:
    """The store at `store_path(kind, key)`, made of `rows()` if it is missing or damaged.

    One process makes it, while the others wait. Raises UserError where the cache cannot be written.
    """
    with _named_cache():
        store = _whole(store_path(kind, key))
    if store is not None:
        return store
    make_store(kind, key, columns, rows)
    return Store(store_path(kind, key))


def make_store(
    kind: str, key: str, columns: Columns, rows: Callable[[], Iterable[Sequence[Any]]], *, wait: bool = True
) -> None:
    """Make the store at `store_path(kind, key)` of `rows()` if it is missing or damaged.

    A store that another process is making is waited for; without `wait` it is left to it, and may not exist yet on
    return. Raises UserError where the cache cannot be written.
    """
    store = store_path(kind, key)
    with _named_cache():
        store.parent.mkdir(parents=True, exist_ok=True)
        _sweep(store.parent)
        with suppress(Timeout), _lease(store.parent, store.stem, timeout=-1 if wait else 0):
            if _whole(store) is None:  # else another process made it while this one waited
                if store.exists():
                    logger.warning("%s is damaged: it is made anew", store)
                with atomic_write(store) as temporary:
                    _write(temporary, store.stem, columns, iter(rows()))


def _lease(folder: Path, key: str, timeout: float) -> SoftFileLease:
    """The right to make a store, as a file that is renewed every 10 s.

    Not the kernel's flock, which many network file systems refuse, and some answer never. What a writer that died or
    was stopped holds is taken over: at once on its machine, after 30 s elsewhere. Should the stopped one go on, two
    write the same store, each to a file of its own.
    """
    return SoftFileLease(folder / f"{key}.lease", timeout=timeout)


def _whole(file: Path) -> Store | None:
    """The store in `file`; None where it is missing or damaged."""
    try:
        return Store(file)
    except (FileNotFoundError, DamagedStore):
        return None


@contextmanager
def _named_cache() -> Iterator[None]:
    """Raise a UserError that says how to move the cache where it cannot be read or written."""
    try:
        yield
    except UserError:  # of the rows
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(
            f"the cache in {cache_dir()} cannot be used ({reason}): set BLIP_CACHE to a folder that can be written"
        ) from error


@functools.cache
def _sweep(folder: Path) -> None:
    """Delete what writers that were killed left half written; once in a process."""
    for temporary in folder.glob(f".{'[0-9a-f]' * 8}.*.arrow"):
        key = temporary.stem.rpartition(".")[2]
        with suppress(Timeout), _lease(folder, key, timeout=0):  # else its writer is at work
            temporary.unlink(missing_ok=True)


def joined(stores: Sequence[Store], name: str) -> "pa.ChunkedArray":
    """One column of all stores, one after the other; nothing is copied."""
    with needs_extra("data", "reading annotation files"):
        import pyarrow as pa

    chunks = [batch.column(name) for store in stores for batch in store.batches]
    return pa.chunked_array(chunks, type=None if chunks else pa.string())


def _write(file: Path, name: str, columns: Columns, rows: Iterator[Sequence[Any]]) -> None:
    """Write the rows as the store that will be called `name`."""
    with needs_extra("data", "reading annotation files"):
        import pyarrow as pa

    types = {"string": pa.string(), "strings": pa.list_(pa.string()), "int64": pa.int64()}
    schema = pa.schema([(name, types[kind]) for name, kind in columns.items()])
    with _garbage_collection_paused(), pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        while batch := list(itertools.islice(rows, _ROWS)):
            values = zip(*batch, strict=True)
            arrays = [pa.array(column, kind) for column, kind in zip(values, schema.types, strict=True)]
            writer.write_batch(pa.record_batch(arrays, schema=schema))
    end = store_end(name, pa.memory_map(str(file)).read_buffer())
    with file.open("ab") as sink:
        sink.write(end)


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
