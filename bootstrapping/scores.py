"""The scores of a CapFilt run: a Parquet file a work unit, with a row a text, in `scores/` of the run's output folder.

    write_scores(output / "scores" / "00012.parquet", rows, {"captioner": {...}, "filter": {...}, ...})
    for file in open_scores(output).files: ...

Rows stand in the order of the images; of an image first the web's texts, then the synthetic ones. What a file is made
of besides (`about`: both checkpoints by hash, config, versions, what could not be used) is JSON in its metadata.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from files import atomic_write, open_regular
from settings import MissingFile, UserError, needs_extra

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

WEB, SYNTHETIC = "web", "synthetic"
FOLDER = "scores"
"""Where the score files are, in the run's output folder."""
RUN_FILE = "capfilt.json"
"""What the run was of (corpus, config, checkpoints), in the run's output folder."""

_VERSION = 1  # raise it when the columns, or what they mean, change
_KEY = b"capfilt"  # of the metadata
_ROW_GROUP = 1 << 16  # rows that are compressed together
_PURPOSE = "reading and writing scores"


class TextScore(NamedTuple):
    """A row: one text of an image, and what both models say of it.

    Attributes:
        uid: the image's, 32 hexadecimal digits; no other image of the corpus has it.
        image: the image as the lists name it: path, URL, or `SHARD.tar/KEY`.
        source: 'web' or 'synthetic'.
        n: 0, 1, ... within the image and the source.
        match: the filter's probability that text and image belong together.
        cosine: the filter's similarity of text and image.
        log_prob: the captioner's, of a synthetic text; None for the web's, as `prompt` and `seed`.
    """

    uid: str
    image: str
    source: str
    n: int
    text: str
    match: float
    cosine: float
    log_prob: float | None = None
    prompt: str | None = None
    seed: int | None = None


class UnreadableScores(UserError):
    """A file among the scores that is damaged, or that no CapFilt run has written."""


@dataclass(frozen=True)
class ScoreFile:
    """A score file: where it is, its number of rows, and what it was made of (`about`)."""

    path: Path
    rows: int
    about: Mapping[str, Any]


@dataclass(frozen=True)
class Scores:
    """The scores of a run: its files in the order of their names, and what stands in its `capfilt.json`."""

    folder: Path
    files: Sequence[ScoreFile]
    run: Mapping[str, Any]

    @property
    def rows(self) -> int:
        return sum(file.rows for file in self.files)


def schema() -> "pa.Schema":
    """The columns of a score file."""
    with needs_extra("data", _PURPOSE):
        import pyarrow as pa

    required = {
        "uid": pa.string(),
        "image": pa.string(),
        "source": pa.string(),
        "n": pa.int32(),
        "text": pa.string(),
        "match": pa.float32(),
        "cosine": pa.float32(),
    }
    optional = {"log_prob": pa.float32(), "prompt": pa.string(), "seed": pa.int64()}
    return pa.schema(
        [pa.field(name, kind, nullable=False) for name, kind in required.items()]
        + [pa.field(name, kind) for name, kind in optional.items()]
    )


def write_scores(file: Path, rows: Iterable[TextScore], about: Mapping[str, Any]) -> None:
    """Write a score file whole or not at all; the same rows and `about` give the same bytes.

    Args:
        about: what JSON can hold: the checkpoints by hash, config, versions, and what could not be used.
    """
    with needs_extra("data", _PURPOSE):
        import pyarrow as pa
        import pyarrow.parquet as pq

    columns = list(zip(*rows, strict=True)) or [()] * len(TextScore._fields)
    metadata = {_KEY: json.dumps({"version": _VERSION, **about}, sort_keys=True).encode()}
    of = schema()
    arrays = [pa.array(column, kind) for column, kind in zip(columns, of.types, strict=True)]
    table = pa.Table.from_arrays(arrays, schema=of.with_metadata(metadata))
    with atomic_write(file) as temporary:
        pq.write_table(table, str(temporary), row_group_size=_ROW_GROUP, compression="zstd", write_page_checksum=True)


def open_scores(folder: Path) -> Scores:
    """Look over all score files of a run's output folder; no row is read.

    Raises:
        MissingFile: no such folder, or no scores in it.
        UnreadableScores: a file is damaged or foreign, or files were scored by different models.
    """
    if not folder.is_dir():
        raise MissingFile(f"{folder}: no such folder; expected the output folder of capfilt.py")
    run = _read_run(folder / RUN_FILE)
    paths = sorted(path for path in (folder / FOLDER).glob("*.parquet") if not path.name.startswith("."))
    if not paths:
        raise MissingFile(f"{folder / FOLDER}: no scores (*.parquet); run capfilt.py --output_dir {folder} first")
    files = [_score_file(path) for path in paths]
    for role in ("captioner", "filter"):
        for file in files[1:]:
            if file.about.get(role) != files[0].about.get(role):
                raise UnreadableScores(
                    f"{file.path}: its {role} is another one than in {files[0].path.name}; scores of different models "
                    "cannot be compared: move away the files of one of them"
                )
    return Scores(folder, files, run)


def _read_run(file: Path) -> Mapping[str, Any]:
    try:
        with open_regular(file) as opened:
            run = json.loads(opened.read())
    except MissingFile:
        raise MissingFile(f"{file.parent}: holds no {file.name}; expected the output folder of capfilt.py") from None
    except (ValueError, RecursionError):
        run = None
    if not isinstance(run, dict):
        raise UnreadableScores(f"{file}: not what capfilt.py writes (a JSON object); is it damaged?")
    return run


def _score_file(path: Path) -> ScoreFile:
    """A file whose footer is read and checked."""
    with parquet_file(path) as file:
        metadata = file.schema_arrow.metadata or {}
        try:
            about = json.loads(metadata[_KEY])
            version = about["version"]
        except (KeyError, TypeError, ValueError, RecursionError):
            raise UnreadableScores(f"{path}: no scores of capfilt.py; move it away") from None
        if version != _VERSION:
            raise UnreadableScores(f"{path}: scores of version {version}; this code reads version {_VERSION}")
        found = dict(zip(file.schema_arrow.names, file.schema_arrow.types, strict=True))
        for field in schema():
            if found.get(field.name) != field.type:
                kind = found.get(field.name, "missing")
                raise UnreadableScores(f"{path}: column {field.name} is {kind}, expected {field.type}")
        return ScoreFile(path, file.metadata.num_rows, about)


def read_columns(scores: Scores, *names: str) -> list[list[Any]]:
    """Whole columns of all files, for runs that fit into memory."""
    columns: list[list[Any]] = [[] for _ in names]
    for file in scores.files:
        with parquet_file(file.path) as content:
            table = content.read(columns=list(names))
        for column, name in zip(columns, names, strict=True):
            column += table.column(name).to_pylist()
    return columns


@contextmanager
def parquet_file(path: Path) -> "Iterator[pq.ParquetFile]":
    """Open a score file; what goes wrong inside, in reading it, is an UnreadableScores."""
    with needs_extra("data", _PURPOSE):
        import pyarrow as pa
        import pyarrow.parquet as pq

    open_regular(path).close()  # a folder or a pipe is refused
    try:
        with pq.ParquetFile(str(path), page_checksum_verification=True) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, UserError):
            raise
        reason = " ".join(str(error).split())
        raise UnreadableScores(
            f"{path}: cannot be read as Parquet ({reason}); delete it and run capfilt.py again, which makes it anew"
        ) from error
