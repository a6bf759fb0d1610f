"""Shards (tar files of jpg + txt / json, as img2dataset writes them, or Parquet files), read at any of their samples.

Each shard is read through once, and a memory-mapped index keeps the position and the caption of every picture. From
then on any sample can be read directly, as from an annotation file: batches do not depend on the number of processes
and workers, and a resumed run reads nothing twice. Shards are files of a local or mounted file system, or addresses
(s3://, https://, ...), of which copies are staged on a local disk while batches need them (data/remote).
"""

import glob
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from data.media.image_file import BadImage
from data.records.open_shards import MOST_KEPT, CopiedTar, OpenParquet, OpenTar, open_shard
from data.records.parquet import is_parquet
from data.records.shard_index import Parts, ShardFiles, look_at, shard_parts
from data.records.shard_selection import selected_samples
from data.records.table import Store, joined
from data.records.uids import UidList
from data.remote.addresses import is_address
from data.remote.listing import matching
from data.remote.stage import Stage, Staging
from data.remote.stager import Stager, first_needed, uses_of
from files import without_secrets
from settings import ConfigError, MissingFile, UserError, needs_extra

_MOST_SHARDS = 1_000_000  # names that a pattern may stand for
_NEAR = 10  # bad pictures after which the rest of the shard is thought to be bad, too
_DIGITS = 18  # of a number in a pattern
_WINDOW = 16  # shards among which an epoch's order mixes samples: reads stay within a few files
_WINDOW_OF_GROUPS = 256  # the same for the row groups of Parquet files, as far as they may be kept in memory


def shard_files(patterns: Sequence[str]) -> list[str | Path]:
    """The files or addresses of patterns with {00000..00099} and *; raises MissingFile for a missing file."""
    shards: list[str | Path] = []
    for pattern in patterns:
        if is_address(pattern):
            for address in _expanded(pattern, "shards"):
                shards += matching(address) if "*" in address else [address]
        else:
            shards += matching_files([pattern], "shards", "shard")
    return shards


def matching_files(patterns: Sequence[str], key: str, kind: str = "file") -> list[Path]:
    """The files of patterns with {00000..00099} and *; raises MissingFile for one that is not there.

    Args:
        key: the config's, for errors.
        kind: what errors call a file.
    """
    files: list[Path] = []
    for pattern in patterns:
        for one in map(os.path.expanduser, _expanded(pattern, key)):
            found = [one] if os.path.exists(one) else sorted(glob.glob(one) or glob.glob(one.replace("[", "[[]")))
            if not found:
                raise MissingFile(f"no {kind} {one} (looked for at {os.path.abspath(one)})")
            files += map(Path, found)
    return files


def _expanded(pattern: str, key: str) -> list[str]:
    """The names that a pattern's braces stand for."""
    with needs_extra("data", "reading shards"):
        from webdataset.shardlists import expand_urls
    _check_number(pattern, key)
    try:
        return expand_urls(pattern)
    except ValueError as error:
        raise ConfigError(f"{key}: {without_secrets(pattern)} is no pattern ({without_secrets(error)})") from None


def _check_number(pattern: str, key: str) -> None:
    """Raise ConfigError for a pattern of very many names, which would all be made before the first is looked for."""
    names = 1
    for group in re.findall(r"\{([^{}]*)\}", pattern):
        bounds = re.fullmatch(r"(-?\d+)\.\.(-?\d+)(?:\.\.-?\d+)?", group)
        if bounds and max(map(len, bounds.groups())) > _DIGITS:
            names = _MOST_SHARDS + 1
        elif bounds:
            names *= abs(int(bounds[2]) - int(bounds[1])) + 1
        else:
            names *= group.count(",") + 1
        if names > _MOST_SHARDS:
            raise ConfigError(
                f"{key}: {without_secrets(pattern[:200])} stands for over {_MOST_SHARDS:,} files: name those that are "
                "there"
            )


def relative_names(files: Sequence[str | Path]) -> tuple[str, list[str]]:
    """The nearest folder that holds all the files, and what each is called in it; addresses have folders, too."""
    if any(map(is_address, files)):
        parts = [str(file).split("/") for file in files]
        shared = len(os.path.commonprefix([path[:-1] for path in parts]))
        return "/".join(parts[0][:shared]), ["/".join(path[shared:]) for path in parts]
    paths = [os.path.abspath(file) for file in files]
    folder = os.path.commonpath([os.path.dirname(path) for path in paths])
    return folder, [os.path.relpath(path, folder).replace(os.sep, "/") for path in paths]


class Shards:
    """The samples of all shards, one after the other: `shards[row]` is {image: bytes, caption: [str], name}.

    `name` is 'shard.tar/key'. A copy in another process takes a few hundred bytes a shard: an index is opened when a
    sample of it is read. With `uids`, only the samples that these list. Of a remote shard, a sample is waited for until
    a `stager` has copied the shard: raises LostShard, a BadImage, where that cannot be.

    Attributes:
        files: the names of the shards: paths, and addresses as they may be shown.
        sizes: int64 [parts], the samples that are read together: of a tar, or of a row group of a Parquet file.
        part_shards: int64 [parts], the number of the file that a part belongs to.
        window: how many parts may be read in turns: as many as a process keeps open and in memory.
    """

    def __init__(
        self,
        files: Sequence[str | Path] | ShardFiles,
        uids: UidList | None = None,
        staging: Staging | None = None,
    ) -> None:
        self._staging = staging or Staging()
        shards, self._keys = files if isinstance(files, ShardFiles) else look_at(files, self._staging)
        if uids is not None:  # they are looked for in the indices, by which the samples are counted too
            shards = [shard if isinstance(shard, str) else replace(shard, samples=None) for shard in shards]
        self.files = [shard if isinstance(shard, str) else shard.name for shard in shards]
        parts = shard_parts(shards, self._keys)
        self.window = _window(self.files, parts)
        self.sizes = parts.samples
        self.part_shards = parts.shard
        self._selected: Store | None = None
        if uids is not None and self.files:
            folder, names = relative_names(self.files)
            self._selected = selected_samples(shards, self._keys, names, parts, uids, folder)
            self.sizes = np.bincount(np.array(joined([self._selected], "part")), minlength=len(self.sizes))
        self._ends = np.cumsum(self.sizes)
        remote = {number: shard for number, shard in enumerate(shards) if not isinstance(shard, str)}
        self._stage = Stage(self._staging.path(), remote) if remote else None

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, row: int) -> dict[str, Any]:
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        number = int(self.part_shards[np.searchsorted(self._ends, row, side="right")])
        shard = self._open(number)
        if self._selected is not None:
            sample = shard.index[self._selected[row]["row"]]
        else:
            place = row - self._rows_of(number).start
            sample = shard.index[place if self._said(number) is None else int(shard.with_picture[place])]
        name = f"{self.files[number]}/{sample['key']}"
        if sample["problem"] is not None:  # was counted before it was known that it cannot be trained on
            raise BadImage(name, f"a sample {sample['problem']}")
        return {"image": shard.picture(sample), "caption": sample["caption"], "name": name}

    def stager(
        self,
        batches: Iterable[tuple[np.ndarray, np.ndarray]],
        start_batch: int,
        following: Iterable[tuple[np.ndarray, np.ndarray]] = (),
    ) -> Stager | None:
        """What stages the remote shards for the batches of an epoch, of which those from `start_batch` on will be read.

        Args:
            batches: of each batch, from the epoch's first on, the rows and in which pass over the shards they are read.
            following: the same of the next epoch; empty where there is none.

        Returns None where no shard is remote. Raises ConfigError where the disk space that is allowed is too small.
        """
        if self._stage is None:
            return None
        remote = np.isin(np.arange(len(self.files)), list(self._stage.shards))

        def shards_of(rows: np.ndarray, passes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            numbers = self.part_shards[np.searchsorted(self._ends, rows, side="right")]
            return numbers[remote[numbers]], passes[remote[numbers]]

        uses = uses_of(shards_of(*batch) for batch in batches)
        room = round(self._staging.gib * 2**30)
        sizes = {number: shard.size for number, shard in self._stage.shards.items()}
        ahead = first_needed((shards_of(*batch)[0] for batch in following), sizes, room)
        return Stager(self._stage, uses, start_batch, room, ahead)

    def another_row(self, row: int, attempt: int, rng: np.random.Generator) -> int:
        """A row in the place of one that cannot be read, drawn from the same shard, which is at hand.

        Where `attempt` rows before it could not be read, it is drawn from all shards, unless some are remote. In the
        place of a remote shard that cannot be read stands the one that is staged instead.
        """
        if self._stage is None and attempt >= _NEAR:
            return int(rng.integers(len(self)))
        number = int(self.part_shards[np.searchsorted(self._ends, row, side="right")])
        if self._stage is not None and number in self._stage.shards:
            number = self._stage.in_place_of(number)
        rows = self._rows_of(number)
        return int(rng.integers(rows.start, rows.stop))

    def _rows_of(self, number: int) -> range:
        """The rows of shard `number`."""
        first, end = np.searchsorted(self.part_shards, [number, number + 1])
        return range(int(self._ends[first - 1]) if first else 0, int(self._ends[end - 1]))

    def _said(self, number: int) -> int | None:
        """How many samples shard `number` holds by a file beside it, where it was not counted itself."""
        shard = self._stage.shards.get(number) if self._stage is not None else None
        return shard.samples if shard is not None else None

    def _open(self, number: int) -> OpenTar | CopiedTar | OpenParquet:
        name, key, said = self.files[number], self._keys[number], self._said(number)
        if self._stage is None or number not in self._stage.shards:
            return open_shard(name, key)
        shard = open_shard(str(self._stage.wait(number)), key, name)
        if said is not None and len(shard.with_picture) != said:
            raise UserError(
                f"{name} holds {len(shard.with_picture):,} samples with a picture, but the _stats.json beside it says "
                f"{said:,}: write the shard or that file anew, or delete that file, and the shard is counted beforehand"
            )
        return shard


def _window(files: Sequence[str], parts: Parts) -> int:
    """How many parts an epoch's order may mix. Raises ConfigError for a row group that is too large to be kept."""
    largest = int(parts.bytes.max(initial=0))
    if largest > MOST_KEPT:
        part = int(parts.bytes.argmax())
        file, group = files[int(parts.shard[part])], part - int(np.searchsorted(parts.shard, parts.shard[part]))
        raise ConfigError(
            f"{file}: row group {group + 1} holds {largest / 2**30:.1f} GiB of pictures, and reading at random keeps "
            f"whole row groups in memory, {MOST_KEPT / 2**30:g} GiB of them in each worker: write the file anew with "
            "smaller ones (pyarrow.parquet.write_table(table, file, row_group_size=1000))"
        )
    most = _WINDOW_OF_GROUPS if files and all(map(is_parquet, files)) else _WINDOW
    return min(most, MOST_KEPT // max(1, largest))
