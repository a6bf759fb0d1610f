"""A process's part of the folder on a local disk that copies of remote shards lie in, shared by all of a machine.

    STAGE/DIGEST-00012.tar          a whole shard, named after its address, size and version
    STAGE/run-3f.../lock            held by the process of this folder as long as it lives
    STAGE/run-3f.../12-00012.tar    the same file (a hard link): staged for shard 12 of this process
    STAGE/run-3f.../part-DIGEST-... what this process has read of a shard so far
    STAGE/run-3f.../12.lost         shard 12 cannot be read: the reason, and the shard whose samples take its places

Links count the processes that still need a shard: who drops the last one deletes the shard. What killed processes left
is known by their locks, which are free.
"""

import contextlib
import errno
import os
import secrets
import shutil
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import BinaryIO, Literal

from filelock import FileLock, Timeout

from data.remote import reading
from data.remote.addresses import file_system
from data.remote.listing import RemoteShard, version_of
from data.remote.reading import Requests, Unreadable
from settings import UserError

_POLL = 0.1  # seconds between two looks at what another process reads
_LOCKED = 60  # seconds after which a lock that is held for moments only counts as forgotten


class Session:
    """A process's own part of the folder of copies: it exists while `with session:` runs, or until the process dies."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / f"run-{secrets.token_hex(8)}"
        self._lock: FileLock | None = None

    def __enter__(self) -> "Session":
        with self._named(), self._folder_locked():
            self.path.mkdir(mode=0o700)
            self._lock = _lock(self.path)
            self._lock.acquire()
        self.sign()
        return self

    def __exit__(self, *exception: object) -> None:
        with self._named(), self._folder_locked():
            if self._lock is not None:
                self._lock.release()
            shutil.rmtree(self.path, ignore_errors=True)
            self._sweep(())

    def __reduce__(self) -> tuple[Callable[[Path, Path], "Session"], tuple[Path, Path]]:
        return _session_at, (self.folder, self.path)

    def sign(self) -> None:
        """Give a sign of life."""
        with contextlib.suppress(OSError):
            (self.path / "alive").touch()

    def last_sign(self) -> float:
        """When the last sign of life was given."""
        with contextlib.suppress(OSError):
            return (self.path / "alive").stat().st_mtime
        return 0.0

    def write(self, name: str, text: str) -> None:
        """Write a small file, which appears whole."""
        with self._named():
            aside = self.path / f"{name}.aside"
            aside.write_text(text, encoding="utf-8")
            os.replace(aside, self.path / name)

    def clean(self, keep: Collection[RemoteShard]) -> None:
        """Delete what no living process needs, but for the shards in `keep`."""
        with self._named(), self._folder_locked():
            self._sweep({_whole(shard) for shard in keep})

    def forget_lost(self) -> None:
        """Forget which shards could not be read."""
        with self._named():
            for lost in self.path.glob("*.lost"):
                lost.unlink()

    def claim(self, shard: RemoteShard, target: Path) -> Literal["staged", "mine", "read by another"]:
        """Stage a shard at `target` if the folder has it; else take on to read it, unless another process does."""
        with self._named(), self._folder_locked():
            whole = self.folder / _whole(shard)
            if whole.exists():
                os.link(whole, target)
                return "staged"
            for part in self.folder.glob(f"run-*/part-{_whole(shard)}"):
                if part.parent != self.path and not _is_free(part.parent):
                    return "read by another"
            (self.path / f"part-{_whole(shard)}").touch()
            return "mine"

    def read(self, shard: RemoteShard, target: Path, requests: Requests) -> None:
        """Read a shard that was claimed, and stage it at `target`. Raises Unreadable for one that cannot be read."""
        part = self.path / f"part-{_whole(shard)}"
        try:
            with self._named(shard), part.open("wb") as file:
                _copy(shard, file, requests)
            with self._named(), self._folder_locked():
                os.link(part, target)
                os.replace(part, self.folder / _whole(shard))
        finally:
            part.unlink(missing_ok=True)

    def drop(self, shard: RemoteShard, target: Path) -> None:
        """Give up what is staged at `target`, and delete the shard if no other process needs it."""
        with self._named(), self._folder_locked():
            target.unlink(missing_ok=True)
            _delete_if_unused(self.folder / _whole(shard))

    def _sweep(self, keep: Collection[str]) -> None:
        for other in self.folder.glob("run-*"):
            if other != self.path and _is_free(other):
                shutil.rmtree(other, ignore_errors=True)
        for whole in self.folder.glob(f"{'[0-9a-f]' * 32}-*"):
            if whole.name not in keep:
                _delete_if_unused(whole)

    @contextlib.contextmanager
    def _folder_locked(self) -> Iterator[None]:
        """Hold the lock of the whole folder, for the moment that a change of names takes."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            held = _lock(self.folder).acquire()
        except Timeout:
            raise UserError(
                f"{self.folder}/lock is held by another process for over {_LOCKED} s: one that stands still? "
                "End it, or name another stage_dir"
            ) from None
        with held:
            yield

    @contextlib.contextmanager
    def _named(self, shard: RemoteShard | None = None) -> Iterator[None]:
        """Turn what the disk refuses into an error that says what to do."""
        try:
            yield
        except UserError:
            raise
        except (OSError, NotImplementedError) as error:  # the latter of filelock, where a disk has no locks
            reason = getattr(error, "strerror", None) or str(error)
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                what = f" for {shard.name} of {shard.size / 2**30:.2f} GiB" if shard else ""
                raise UserError(
                    f"stage_dir {self.folder} has no room{what} ({reason}): free some, name a folder on another disk, "
                    "or lower stage_gib"
                ) from error
            raise UserError(
                f"stage_dir {self.folder} cannot be used ({reason}): name a folder on a local disk that can be written"
            ) from error


def _session_at(folder: Path, path: Path) -> Session:
    session = Session(folder)
    session.path = path
    return session


@contextlib.contextmanager
def copied(shard: RemoteShard) -> Iterator[Path]:
    """A copy of a shard, for as long as the block runs. Raises UserError for one that cannot be read."""
    with Session(shard.copies) as session:
        file = session.path / shard.basename
        while (claimed := session.claim(shard, file)) == "read by another":
            time.sleep(_POLL)
        if claimed == "mine":
            try:
                session.read(shard, file, Requests())
            except Unreadable as error:
                raise UserError(f"{error}; how many samples it holds is not known: leave it out of `shards`") from error
        yield file


def _copy(shard: RemoteShard, file: BinaryIO, requests: Requests) -> None:
    """Read all of a shard in large blocks, one after the other."""
    system, path = file_system(shard.address)
    for start in range(0, shard.size, reading.BLOCK):
        wanted = min(reading.BLOCK, shard.size - start)

        def check(block: bytes, wanted: int = wanted) -> None:
            if len(block) not in (wanted, shard.size):
                raise ConnectionError(f"{len(block):,} of {wanted:,} bytes came")

        block: bytes = requests.make(
            shard.address, system, "cat_file", path, start=start, end=start + wanted, size=wanted, check=check
        )
        if len(block) == shard.size:  # a server that sends the whole file, whatever part is asked for
            file.write(block[start:])
            break
        file.write(block)
    info = requests.make(shard.address, system, "info", path)
    if (info["size"], version_of(info)) != (shard.size, shard.version):
        raise Unreadable(shard.name, "it is another file than when the run began: it has changed since")


def _whole(shard: RemoteShard) -> str:
    return f"{shard.digest}-{shard.basename}"


def _delete_if_unused(whole: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if whole.stat().st_nlink == 1:
            whole.unlink()


def _lock(folder: Path) -> FileLock:
    return FileLock(folder / "lock", timeout=_LOCKED, thread_local=False)  # taken in one thread, released in another


def _is_free(session: Path) -> bool:
    """Whether the process of a session has ended."""
    try:
        with FileLock(session / "lock", timeout=0):
            return True
    except (Timeout, FileNotFoundError):
        return not session.exists()
