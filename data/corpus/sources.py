"""Opens the corpus that a config names, by what its sources are."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from data.config_base import LoadedData
from data.corpus.folder import FolderCorpus
from data.corpus.lists import ListCorpus
from data.corpus.parquet import ParquetCorpus
from data.corpus.shards import ShardCorpus
from data.corpus.units import Corpus
from data.records.annotations import list_files
from data.records.parquet import is_parquet, open_parquet
from data.records.parquet_columns import find_columns, listed, wanted_names
from data.remote.addresses import is_address
from files import without_secrets
from settings import ConfigError, check, setting

logger = logging.getLogger("blip.data")

_KINDS = {
    "folder": "a folder of pictures",
    "shards": "shards (.tar)",
    "lists": "lists",
    "parquet": "Parquet files with pictures",
}
_LISTED = 5  # files that are named in an error


@dataclass
class CorpusData(LoadedData):
    """A web corpus: lists, shards, Parquet files or a folder."""

    corpus: list[str] = setting(
        [], "lists (.json, .jsonl, .parquet), shards (.tar, .parquet), as paths or patterns; or one folder of pictures"
    )
    image_root: str = setting("", "folder that the lists' `image` paths start from")
    url_root: str = setting(
        "", "folder of the downloads of records that carry `url` (docs/data.md: how it is laid out)"
    )
    image_column: str = setting(
        "", "column of pictures, paths or addresses in Parquet files; empty: by well-known names"
    )
    text_column: str = setting("", "column of texts in Parquet files; empty: by well-known names")
    num_workers: int | Literal["auto"] = setting(
        4, "threads of each process that read and decode pictures; 0 is 1, too"
    )
    max_bad_images: float = setting(0.01, "share of pictures that may be unusable before the run ends with an error")
    unit_size: int = setting(4096, "images of a unit of work, where the corpus is no tar files (whose unit is a file)")

    def __post_init__(self) -> None:
        super().__post_init__()
        rule = "the names of lists, shards or Parquet files (or patterns), or of one folder of pictures"
        check(bool(self.corpus) and all(self.corpus), "corpus", self.corpus, rule)
        check(1 <= self.unit_size <= 10_000_000, "unit_size", self.unit_size, "from 1 to 10,000,000")

    def places(self) -> dict[str, Any]:
        """Where the corpus is, from any working directory, and its columns: the keys of it, as JSON holds them."""
        return {
            "corpus": [os.path.abspath(os.path.expanduser(source)) for source in self.corpus],
            "image_root": os.path.abspath(self.image_root),
            "url_root": self.url_root and os.path.abspath(self.url_root),
            "image_column": self.image_column,
            "text_column": self.text_column,
        }

    def open_corpus(self) -> Corpus:
        """The corpus, with its units."""
        return open_corpus(
            self.corpus,
            image_root=self.image_root,
            url_root=self.url_root,
            unit_size=self.unit_size,
            image_column=self.image_column,
            text_column=self.text_column,
        )


def open_corpus(
    sources: Sequence[str],
    *,
    image_root: str = "",
    url_root: str = "",
    unit_size: int = 4096,
    image_column: str = "",
    text_column: str = "",
) -> Corpus:
    """The corpus of `sources`, whose kind their suffixes tell; see `CorpusData` for the arguments.

    Raises ConfigError for sources of several kinds, and for the same file twice.
    """
    columns = {"image_column": image_column, "text_column": text_column}
    kind, files = _of_one_kind(_files(sources), **columns)
    if kind != "lists" and (image_root or url_root):
        key = "image_root" if image_root else "url_root"
        raise ConfigError(f"{key} = {image_root or url_root}: must be empty for {_KINDS[kind]}, which need none")
    if kind == "folder":
        if len(files) > 1:
            raise ConfigError(f"corpus: {len(files)} folders of pictures: name one that holds them all")
        return FolderCorpus(files[0], sources=sources, unit_size=unit_size)
    if kind == "shards":
        return ShardCorpus(files, sources=sources)
    _warn_of_missing_texts(next(filter(is_parquet, files), None), **columns)
    if kind == "parquet":
        return ParquetCorpus(files, sources=sources, unit_size=unit_size, **columns)
    return ListCorpus(files, sources=sources, image_root=image_root, url_root=url_root, unit_size=unit_size, **columns)


def _warn_of_missing_texts(file: Path | None, *, image_column: str, text_column: str) -> None:
    """Warn of a Parquet file (the first of a corpus) where pictures have other columns beside them, but no texts."""
    if file is None:
        return
    schema = open_parquet(file).schema_arrow
    found = find_columns(file, schema, image_column=image_column, text_column=text_column)
    if found.caption is None and set(schema.names) - {found.image, found.url, found.uid, found.prompt}:
        logger.warning(
            "%s has no column of texts (%s), so that its pictures have none: text_column may name one; %s",
            *(file, wanted_names("caption"), listed(schema)),
        )


def _files(sources: Sequence[str]) -> list[Path]:
    """The files and folders of the sources; raises ConfigError for one that is named twice."""
    files: list[Path] = []
    for source in sources:
        if is_address(source):
            raise ConfigError(
                f"corpus: {without_secrets(source)} is an address, and CapFilt reads files of a local or mounted disk, "
                "whose pictures its lists go on to name: copy it there, or mount it"
            )
        folder = os.path.expanduser(source)
        files += [Path(folder)] if os.path.isdir(folder) else list_files([source], "corpus", "corpus: file")
    first_of: dict[str, Path] = {}
    for file in files:
        if first_of.setdefault(os.path.realpath(file), file) is not file:
            raise ConfigError(f"corpus: {file} is named twice, also as {first_of[os.path.realpath(file)]}")
    return files


def _of_one_kind(files: Sequence[Path], *, image_column: str, text_column: str) -> tuple[str, list[Path]]:
    """The kind of all files, and those of them that hold anything; raises ConfigError for several kinds."""
    kinds = [_kind(file, image_column=image_column, text_column=text_column) for file in files]
    first_of: dict[str, Path] = {}
    for kind, file in zip(kinds, files, strict=True):
        if kind:
            first_of.setdefault(kind, file)
    if not first_of:
        raise ConfigError(f"corpus: there is no row in {', '.join(map(str, files[:_LISTED]))}")
    if len(first_of) > 1:
        found = ", ".join(f"{_KINDS[kind]} ({file})" for kind, file in first_of.items())
        raise ConfigError(f"corpus: {found} in one corpus: run each kind by itself")
    return next(iter(first_of)), [file for kind, file in zip(kinds, files, strict=True) if kind]


def _kind(file: Path, *, image_column: str, text_column: str) -> str | None:
    """The kind of a file or folder; None for a Parquet file without rows, whose columns may tell nothing."""
    if is_parquet(file):
        opened = open_parquet(file)
        if not opened.metadata.num_rows:
            return None
        found = find_columns(file, opened.schema_arrow, image_column=image_column, text_column=text_column)
        return "parquet" if found.has_bytes else "lists"
    if file.is_dir():
        return "folder"
    suffix = file.suffix.lower()
    kind = {".json": "lists", ".jsonl": "lists", ".tar": "shards"}.get(suffix)
    if kind is None:
        unpack = "; unpack it" if suffix in (".gz", ".tgz", ".bz2", ".xz", ".zst") else ""
        raise ConfigError(f"corpus: {file} is none of .json, .jsonl, .parquet, .tar, and no folder{unpack}")
    return kind
