"""What a process stages of remote shards: where its loader workers find them, and which of them are lost."""

import contextlib
import multiprocessing
import os
import tempfile
import time
import weakref
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from data.media.image_file import BadImage
from data.remote.listing import RemoteShard
from data.remote.session import Session
from settings import UserError

SILENCE = 300.0
"""Seconds without a sign of life of the thread that stages shards, after which who waits for one gives up."""
_POLL = 0.02  # seconds between two looks for a shard that is waited for


class LostShard(BadImage):
    """A sample whose shard cannot be read."""


@dataclass(frozen=True)
class Staging:
    """Where copies of remote shards lie, and how much room they may take.

    Attributes:
        folder: on a local disk; empty for one below the system's folder of temporary files.
        gib: GiB of copies that a process may hold.
    """

    folder: str = ""
    gib: float = 64.0

    def path(self) -> Path:
        """The folder of the copies; each user has one of their own.

        Raises:
            UserError: another user has made the folder that is this user's by default, and could put into it what they
                like in place of the shards.
        """
        if self.folder:
            return Path(self.folder)
        user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "")
        own = Path(tempfile.gettempdir(), f"blip-staged-{user}")
        if hasattr(os, "getuid") and own.exists() and own.stat().st_uid != user:
            raise UserError(f"{own} belongs to another user: name a folder of your own by stage_dir")
        return own


def _end(session: Session, process: int) -> None:
    """End the session of this `process`, of which forked ones have a copy."""
    if os.getpid() == process:
        session.__exit__()


class _Lost(NamedTuple):
    """A shard that cannot be read: the one that stands in for it, and why."""

    instead: int
    reason: str


class Stage:
    """What one process stages of `shards`: its loader workers hold copies of this object, and wait for files by it."""

    def __init__(self, folder: Path, shards: dict[int, RemoteShard]) -> None:
        self.shards = shards
        self.session = Session(folder)
        self._kept: Collection[int] = ()
        self._end_session: weakref.finalize[[Session, int], Stage] | None = None

    def begin(self) -> Collection[int]:
        """Begin an epoch, and return the shards that are staged already, since the end of the one before."""
        kept, self._kept = self._kept, ()
        if self._end_session is None:
            self.session.__enter__()
        else:
            self._end_session.detach()
            self.session.forget_lost()  # this epoch asks for them again
        self._end_session = None
        return kept

    def end(self, kept: Collection[int]) -> None:
        """End an epoch. The shards `kept` stay for the next one, or until this process, or this object, ends."""
        self._kept = kept
        if kept:
            self._end_session = weakref.finalize(self, _end, self.session, os.getpid())
        else:
            self.session.__exit__()

    def file(self, number: int) -> Path:
        """Where shard `number` is, once it is staged."""
        return self.session.path / f"{number}-{self.shards[number].basename}"

    def wait(self, number: int) -> Path:
        """The copy of shard `number`, when it is there.

        Raises LostShard for one that cannot be read, and UserError where staging has ended by an error or is silent.
        """
        file, shard = self.file(number), self.shards[number]
        silent, last = 0.0, 0.0
        parent = multiprocessing.parent_process()
        while not file.exists():
            self._raise_failure()
            if lost := self._lost(number):
                raise LostShard(shard.name, f"the shard cannot be read ({lost.reason})")
            time.sleep(_POLL)
            alive = self.session.last_sign()
            silent, last = (silent + _POLL, last) if alive == last else (0.0, alive)
            if silent > SILENCE or (parent is not None and not parent.is_alive()):
                raise UserError(
                    f"{shard.name} was not staged: no sign of life of the process that should for {SILENCE:g} s"
                )
        return file

    def in_place_of(self, number: int) -> int:
        """The shard whose samples take the places of those of `number`: itself unless it cannot be read."""
        asked = {number}
        while lost := self._lost(number):
            number = lost.instead
            if number in asked:
                name = self.shards[number].name
                raise UserError(f"none of the shards of this epoch can be read; {name}: {lost.reason}")
            asked.add(number)
        return number

    def lose(self, number: int, reason: str, instead: int) -> None:
        """Say that shard `number` cannot be read."""
        self.session.write(f"{number}.lost", f"{instead} {reason}")

    def _lost(self, number: int) -> _Lost | None:
        with contextlib.suppress(FileNotFoundError):
            instead, _, reason = (self.session.path / f"{number}.lost").read_text(encoding="utf-8").partition(" ")
            return _Lost(int(instead), reason)
        return None

    def fail(self, reason: str) -> None:
        """Say that nothing is staged any more."""
        self.session.write("failed", reason)

    def _raise_failure(self) -> None:
        """Raise UserError where staging has ended, or has not begun."""
        with contextlib.suppress(FileNotFoundError):
            raise UserError((self.session.path / "failed").read_text(encoding="utf-8"))
        if not self.session.path.exists():
            raise UserError("a sample of a remote shard was asked for while no shards are staged")
