"""The corpus' own shards written anew with the texts that are kept: tar files, or Parquet files with pictures."""

import copy
import io
import json
import logging
import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from bootstrapping.blocks import blocks
from bootstrapping.scores import ScoreFile, Scores
from bootstrapping.selection import Rule, choose
from bootstrapping.whole_files import write_whole
from data.corpus.units import unit_names
from data.records.annotations import list_files
from data.records.parquet import is_parquet, open_parquet, readable
from data.records.parquet_columns import find_columns
from data.records.parquet_samples import row_key
from data.records.shard_samples import Members, sample_files
from data.records.shards import relative_names
from files import open_regular
from settings import ConfigError, UserError, needs_extra

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger("blip.capfilt")

FOLDER = "shards"
_LONGEST_JSON = 1 << 20  # bytes, as far as shards are read

Kept = Mapping[str, Sequence[str]]
"""Image -> the texts that are kept, the best first."""


@dataclass(frozen=True)
class _Shard:
    """A file of the corpus, what the scores call it, where it is written anew, and its scores."""

    source: Path
    name: str
    target: Path
    scores: Sequence[ScoreFile]


class ShardWriter:
    """Writes the shards of a run's corpus to `out`/shards. Everything that can be wrong is checked when it is made."""

    def __init__(self, scores: Scores, out: Path) -> None:
        try:
            kind, places = scores.run["corpus"]["kind"], scores.run["places"]
            sources = places["corpus"]
            self._columns = {name: places[name] for name in ("image_column", "text_column")}
        except (KeyError, TypeError):
            raise UserError(f"{scores.folder}/capfilt.json does not say what the corpus was") from None
        if kind not in ("shards", "parquet"):
            raise ConfigError(f"shards = True: must be false for a corpus of kind {kind}: pre-train on both.json")
        files = list_files(sources, "corpus", "corpus: file")
        _, names = relative_names(files)
        of_unit = _scores_by_unit(scores, in_parts=kind == "parquet")
        found = [
            _Shard(file, name, out / FOLDER / name, of_unit.get(unit, []))
            for file, name, unit in zip(files, names, unit_names(names), strict=True)
        ]
        originals = {os.path.realpath(file) for file in files}
        for shard in found:
            if os.path.realpath(shard.target) in originals:
                raise ConfigError(f"out = {out}: must be another folder, else {shard.target} of the corpus is lost")
            if not shard.scores:
                logger.warning("%s has no scores yet: it is left out", shard.source)
        self._shards = [shard for shard in found if shard.scores]

    def write(self, rule: Rule) -> None:
        """Write all shards: samples without a text that is kept are left out, shards without such samples are empty."""
        for shard in self._shards:
            kept = kept_texts(shard.scores, rule)
            if is_parquet(shard.source):
                _write_parquet(shard, kept, one_text=rule.captions_per_image == 1, **self._columns)
            else:
                _write_tar(shard, kept)


def _scores_by_unit(scores: Scores, *, in_parts: bool) -> dict[str, list[ScoreFile]]:
    """The scores of each file of the corpus: one unit's, or those of its parts, `UNIT-000000` and so on."""
    of_unit: dict[str, list[ScoreFile]] = {}
    for file in scores.files:
        stem = file.path.stem
        of_unit.setdefault(stem.rpartition("-")[0] if in_parts else stem, []).append(file)
    return of_unit


def kept_texts(files: Sequence[ScoreFile], rule: Rule) -> Kept:
    """The texts that are kept of each image."""
    kept: dict[str, list[str]] = {}
    for block in blocks(files):
        rows = np.flatnonzero(choose(block, rule).kept)
        rows = rows[np.lexsort((block.places[rows], -block.numbers(rule.score)[rows], block.image_numbers[rows]))]
        chosen = block.table.select(["image", "text"]).take(rows)
        for image, text in zip(*(column.to_pylist() for column in chosen.columns), strict=True):
            kept.setdefault(image, []).append(text)
    return kept


def _write_tar(shard: _Shard, kept: Kept) -> None:
    """Copy the samples that have texts; a .txt holds the best one, and `caption` of the .json all of them."""
    with (
        open_regular(shard.source) as source,
        write_whole(shard.target) as target,
        tarfile.open(fileobj=target, mode="w") as tar,
    ):
        for key, picture, members in sample_files(source, str(shard.source)):
            texts = kept.get(f"{shard.name}/{key}")
            if texts:
                _copy_sample(source, tar, picture, members, texts)


def _copy_sample(
    source: BinaryIO, tar: tarfile.TarFile, picture: tarfile.TarInfo, members: Members, texts: Sequence[str]
) -> None:
    copied = [member for suffix, member in members.items() if suffix not in ("txt", "json")]
    for member in sorted(copied, key=lambda member: member.offset):
        source.seek(member.offset_data)
        tar.addfile(copy.copy(member), source)
    described = {**_description(source, members.get("json")), "caption": list(texts)}
    stem = picture.name.rpartition(".")[0]
    for name, content in ((f"{stem}.txt", texts[0]), (f"{stem}.json", json.dumps(described))):
        member = tarfile.TarInfo(name)
        member.size, member.mtime, member.mode = len(content.encode()), picture.mtime, picture.mode
        tar.addfile(member, io.BytesIO(content.encode()))


def _description(source: BinaryIO, member: tarfile.TarInfo | None) -> dict[str, Any]:
    if member is None or member.size > _LONGEST_JSON:
        return {}
    source.seek(member.offset_data)
    try:
        found = json.loads(source.read(member.size))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _write_parquet(shard: _Shard, kept: Kept, *, one_text: bool, image_column: str, text_column: str) -> None:
    """Copy the rows that have texts, one row group after the other; other columns are as they were."""
    with needs_extra("data", "writing Parquet files"):
        import pyarrow as pa
        import pyarrow.parquet as pq

    file = open_parquet(shard.source)
    old = file.schema_arrow
    name = find_columns(shard.source, old, image_column=image_column, text_column=text_column).caption or "caption"
    kind = old.field(name).type if name in old.names else None
    single = one_text and (kind is None or kind in (pa.string(), pa.large_string()))
    field = pa.field(name, (kind or pa.string()) if single else pa.list_(pa.string()))
    new = old.set(old.get_field_index(name), field) if name in old.names else old.append(field)
    if kind != field.type:
        new = new.with_metadata({k: v for k, v in (old.metadata or {}).items() if k != b"huggingface"})  # says types
    with write_whole(shard.target) as target, pq.ParquetWriter(target, new, compression="zstd") as writer:
        for first, table in _row_groups(shard.source, file):
            texts = {row: kept.get(f"{shard.name}/{row_key(first + row)}") for row in range(table.num_rows)}
            texts = {row: of_row for row, of_row in texts.items() if of_row}
            if texts:
                column = pa.array([of_row[0] if single else of_row for of_row in texts.values()], field.type)
                columns = [column if one == name else table.column(one).take(list(texts)) for one in new.names]
                writer.write_table(pa.Table.from_arrays(columns, schema=new), row_group_size=len(texts))


def _row_groups(source: Path, file: Any) -> "Iterator[tuple[int, pa.Table]]":
    """The number of its first row, and the rows, of each row group that can be read."""
    first = 0
    for number in range(file.num_row_groups):
        try:
            with readable(f"{source}, row group {number + 1}"):
                yield first, file.read_row_group(number)
        except UserError as error:
            logger.warning("%s; it is left out", error)
        first += file.metadata.row_group(number).num_rows
