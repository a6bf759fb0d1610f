"""What a run must know of remote shards beforehand: which there are, their sizes, versions and numbers of samples.

img2dataset writes NNNNN_stats.json beside each shard, whose `successes` is the number of its samples. Without this file
the shard itself is read through once, for its index (data/records/shard_index.py).
"""

import contextlib
import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.records.table import joined, store_once
from data.remote.addresses import file_system
from data.remote.reading import Requests, Unreadable
from files import without_secrets
from settings import ConfigError, MissingFile

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

logger = logging.getLogger("blip.data")

_AT_ONCE = 32  # requests for small things, of which each takes the time of a round trip
_LONGEST_LIST = 15 << 20  # bytes, in the time of which at the slowest rate a folder must be listed: 90 seconds in all
_VERSIONS = ("ETag", "etag", "generation", "Last-Modified", "LastModified", "last_modified", "mtime")
# What tells one version of a file from another, the first that a file system gives

Info = dict[str, Any]


@dataclass(frozen=True)
class RemoteShard:
    """A shard at an address, as it was when the run began.

    Attributes:
        copies: the folder that copies of it lie in.
        version: what the server calls this version of the file (its ETag, say); empty where it tells none.
        samples: how many it holds, if a file beside it says so.
    """

    address: str
    copies: Path
    size: int
    version: str
    samples: int | None = None

    @property
    def name(self) -> str:
        """The address as it may be shown."""
        return without_secrets(self.address)

    @property
    def basename(self) -> str:
        """The name of the file."""
        return self.name.partition("?")[0].rpartition("/")[2]

    @property
    def digest(self) -> str:
        """What tells this version of the shard from all others: 32 hexadecimal digits."""
        # A signature is renewed again and again; where there is a version, it tells enough.
        address = self.address.partition("?")[0] if self.version else self.address
        return _digest((address, self.size, self.version))


def matching(pattern: str) -> list[str]:
    """The addresses that a pattern with * stands for, sorted. Raises MissingFile where there is none."""
    system, path = file_system(pattern)
    try:
        found = Requests().make(pattern, system, "glob", path, size=_LONGEST_LIST)
    except Unreadable as error:
        raise ConfigError(f"shards: {error}") from error
    if not found:
        raise MissingFile(
            f"no shard matches {without_secrets(pattern)}; where files cannot be listed, write {{00000..00099}}"
        )
    return sorted(map(system.unstrip_protocol, found))


def described(addresses: Sequence[str], copies: Path) -> list[RemoteShard]:
    """The shards at the addresses.

    Args:
        copies: the folder that copies of them lie in.

    Raises MissingFile for one that is not there, and ConfigError where the server refuses, or is not there itself.
    """
    folders: dict[str, list[str]] = {}
    for address in addresses:
        folders.setdefault(address.rpartition("/")[0], []).append(address)
    found: dict[str, RemoteShard] = {}
    for members in folders.values():
        with _errors_of_user():
            infos, counts = _in_folder(members)
        for address, info in infos.items():
            version = version_of(info)
            found[address] = RemoteShard(address, copies, int(info["size"]), version, counts.get(address))
    return [found[address] for address in addresses]


def version_of(info: Info) -> str:
    """What a file system calls the version of a file."""
    return next((str(info[key]).strip('"') for key in _VERSIONS if info.get(key)), "")


def _in_folder(addresses: Sequence[str]) -> tuple[dict[str, Info], dict[str, int | None]]:
    """What the file system knows of each shard of a folder, and their numbers of samples."""
    system, root = file_system(addresses[0])
    paths = {address: file_system(address)[1] for address in addresses}
    listed = _listed(system, addresses[0], root.rpartition("/")[0])
    if listed is None:
        asked = _at_once(addresses, lambda requests, one: requests.make(one, system, "info", paths[one]))
        infos = dict(zip(addresses, asked, strict=True))
    else:
        for address in addresses:
            if paths[address] not in listed:
                raise MissingFile(f"no shard {without_secrets(address)}: its folder has no such file")
        infos = {address: listed[path] for address, path in paths.items()}
    for address, info in infos.items():
        _check(address, info)
    return infos, _counts(system, infos, paths, listed)


@contextlib.contextmanager
def _errors_of_user() -> Iterator[None]:
    """Before the first batch, a shard that cannot be read is an error of the config."""
    try:
        yield
    except Unreadable as error:
        if error.missing:
            raise MissingFile(f"no shard {error.name}: {error.reason}") from error
        access = "; see docs/data.md for where credentials are looked for" if error.forbidden else ""
        raise ConfigError(f"shards: {error}{access}") from error


def _listed(system: "AbstractFileSystem", address: str, folder: str) -> dict[str, Info] | None:
    """The files of a folder; None where each must be asked for: on web servers, and where listing is not allowed."""
    if "http" in system.protocol:
        return None
    try:
        entries = Requests().make(address, system, "ls", folder, detail=True, size=_LONGEST_LIST)
    except Unreadable as error:
        if error.forbidden:
            return None
        raise
    return {entry["name"]: entry for entry in entries}


def _check(address: str, info: Info) -> None:
    """Raise an error for what is no file, or one of unknown size."""
    if info.get("type") == "directory":
        raise MissingFile(f"no shard {without_secrets(address)}: it is a folder")
    if info.get("size") is None:
        raise ConfigError(
            f"shards: {without_secrets(address)}: the server does not tell its size, without which no copy is "
            "known to be whole"
        )


def _counts(
    system: "AbstractFileSystem", infos: dict[str, Info], paths: dict[str, str], listed: dict[str, Info] | None
) -> dict[str, int | None]:
    """The numbers of samples of those shards beside which img2dataset's file of statistics tells them."""
    stats = {address: f"{path[:-4]}_stats.json" for address, path in paths.items() if path.lower().endswith(".tar")}
    if listed is not None:  # those that are not there need not be asked for
        stats = {address: path for address, path in stats.items() if path in listed}
    if not stats:
        return {}

    def asked() -> list[tuple[int | None]]:
        answers = _at_once(list(stats), lambda requests, one: _successes(requests, system, one, stats[one]))
        return [(count,) for count in answers]

    if listed is None:
        return {address: count for address, (count,) in zip(stats, asked(), strict=True)}
    # The answers can be kept: the list shows when one of the files is another one.
    kept = [(one, infos[one]["size"], version_of(infos[one]), version_of(listed[path])) for one, path in stats.items()]
    counts = joined([store_once("shards/counts", _digest(kept), {"samples": "int64"}, asked)], "samples")
    return dict(zip(stats, counts.to_pylist(), strict=True))


def _successes(requests: Requests, system: "AbstractFileSystem", address: str, path: str) -> int | None:
    """The number of samples that a file of statistics tells; None where there is none, or it is another tool's."""
    try:
        content = requests.make(f"{address[:-4]}_stats.json", system, "cat_file", path)
    except Unreadable as error:
        if error.missing or error.forbidden:  # S3 forbids to ask for a file that is not there, if one may not list
            return None
        raise
    try:
        count = json.loads(content)["successes"]
        if isinstance(count, int) and count >= 0:
            return count
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    logger.warning("%s: its _stats.json does not tell `successes`: the shard is counted", without_secrets(address))
    return None


def _at_once(addresses: Sequence[str], ask: Callable[[Requests, str], Any]) -> list[Any]:
    """What `ask(requests, address)` says of each address; the requests of several run at the same time."""
    with ThreadPoolExecutor(min(_AT_ONCE, len(addresses))) as pool:
        return list(pool.map(lambda address: ask(Requests(), address), addresses))


def _digest(value: object) -> str:
    return hashlib.blake2b(repr(value).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
