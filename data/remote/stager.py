"""The thread that copies remote shards to a local disk ahead of the batches that need them, and drops them later."""

import logging
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from data.remote.reading import Requests, Stopped, Unreadable
from data.remote.stage import Stage
from settings import ConfigError, UserError

logger = logging.getLogger("blip.data")

_POLL = 0.2  # seconds between two looks at what other processes have read


@dataclass(frozen=True)
class Uses:
    """When the batches of an epoch use which shards.

    Attributes:
        first: shard -> the first batch that uses it, in the order of these batches.
        last: shard -> the last batch that uses it.
    """

    first: dict[int, int]
    last: dict[int, int]

    @classmethod
    def of(cls, batches: Iterable[np.ndarray], shards_of: Callable[[np.ndarray], np.ndarray]) -> "Uses":
        """The uses by batches of rows, of which `shards_of` tells the shards, from the epoch's first batch on."""
        first: dict[int, int] = {}
        last: dict[int, int] = {}
        for number, rows in enumerate(batches):
            for shard in np.unique(shards_of(rows)).tolist():
                first.setdefault(shard, number)
                last[shard] = number
        return cls(first, last)

    def largest_need(self, sizes: dict[int, int], start: int) -> tuple[int, int]:
        """The most bytes of shards that a batch from `start` on needs at once, and of how many shards they are."""
        changes: dict[int, tuple[int, int]] = {}
        for shard, batch in self.first.items():
            if self.last[shard] >= start:
                for place, sign in ((max(start, batch), 1), (self.last[shard] + 1, -1)):
                    size, count = changes.get(place, (0, 0))
                    changes[place] = size + sign * sizes[shard], count + sign
        needed, most = (0, 0), (0, 0)
        for place in sorted(changes):
            needed = needed[0] + changes[place][0], needed[1] + changes[place][1]
            most = max(most, needed)
        return most


class Stager:
    """Stages the shards of an epoch in the order in which its batches need them, as many as `room` holds at a time.

        with Stager(stage, uses, start_batch, room) as stager:
            ...                                     # start the loader's workers, which wait for shards by stage.wait
            stager.start()
            for number, batch in ...:
                stager.consumed(number)

    A shard is dropped when the last batch that uses it has come: then every worker is done with it. One that cannot be
    read is lost: the samples of the next shard in the order, which stays for as long, take the places of its own.

    Raises ConfigError for too little room.
    """

    def __init__(self, stage: Stage, uses: Uses, start_batch: int, room: int) -> None:
        self._stage, self._room = stage, room
        self._first, self._last = dict(uses.first), dict(uses.last)
        self._order = sorted(uses.first, key=lambda number: (uses.first[number], number))
        self._todo = [number for number in self._order if uses.last[number] >= start_batch]
        self._staged: set[int] = set()
        self._lost: set[int] = set()
        self._consumed = start_batch - 1
        self._changed = threading.Event()
        self._stopped = threading.Event()
        self._failure: str | None = None
        self._thread = threading.Thread(target=self._run, daemon=True, name="stager")
        self._requests = Requests(self._stopped, self._tend)
        self._sizes = {number: stage.shards[number].size for number in uses.first}
        needed, shards = uses.largest_need(self._sizes, start_batch)
        if needed > room:
            raise ConfigError(
                f"stage_gib = {room / 2**30:g}: a batch is drawn from {shards} shards at once, which have "
                f"{needed / 2**30:.2f} GiB together: raise it to more than that, or write smaller shards"
            )

    def __enter__(self) -> "Stager":
        self._stage.session.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stopped.set()
        self._changed.set()
        if self._thread.ident is not None:
            self._thread.join()
        for number in list(self._staged):
            self._drop(number)
        self._stage.session.__exit__(*exception)

    def start(self) -> None:
        """Begin to stage: after the loader's workers were forked, which then have no part of this thread's state."""
        self._thread.start()

    def consumed(self, batch: int) -> None:
        """Say that `batch` was loaded, and all before it. Raises UserError where staging has ended by an error."""
        self._consumed = batch
        self._changed.set()
        if self._failure is not None:
            raise UserError(self._failure)

    def _run(self) -> None:
        try:
            self._stage.session.clean(self._reusable())
            while True:
                self._tend()
                number = self._next()
                if number is None:
                    self._changed.wait(_POLL)
                    self._changed.clear()
                    if self._stopped.is_set():
                        return
                else:
                    self._read(number)
        except Stopped:
            pass
        except UserError as error:
            self._fail(str(error))
        except Exception as error:
            self._fail(f"staging shards ended by an error of the program: {''.join(traceback.format_exception(error))}")

    def _fail(self, reason: str) -> None:
        self._failure = reason
        self._stage.fail(reason)

    def _reusable(self) -> list:
        """The shards that are needed first: a run that was killed may have left copies of them."""
        kept, size = [], 0
        for number in self._todo:
            size += self._sizes[number]
            if size > self._room:
                break
            kept.append(self._stage.shards[number])
        return kept

    def _tend(self) -> None:
        """What is done again and again, also while a shard is read: a sign of life, and dropping."""
        self._stage.session.sign()
        done = self._consumed
        for number in [number for number in self._staged if self._last[number] <= done]:
            self._drop(number)

    def _drop(self, number: int) -> None:
        self._stage.session.drop(self._stage.shards[number], self._stage.file(number))
        self._staged.discard(number)

    def _next(self) -> int | None:
        """The next shard to read, which is claimed; None where there is no room, or others are reading it."""
        used = sum(self._sizes[number] for number in self._staged)
        for number in list(self._todo):
            used += self._sizes[number]
            if used > self._room and self._first[number] > self._consumed + 1:
                return None
            claimed = self._stage.session.claim(self._stage.shards[number], self._stage.file(number))
            if claimed == "read by another":
                continue
            self._todo.remove(number)
            if claimed == "mine":
                return number
            self._staged.add(number)
        return None

    def _read(self, number: int) -> None:
        shard, begun = self._stage.shards[number], time.monotonic()
        try:
            self._stage.session.read(shard, self._stage.file(number), self._requests)
        except Unreadable as error:
            self._lose(number, error.reason)
        else:
            self._staged.add(number)
            seconds = time.monotonic() - begun
            logger.debug("%s staged: %d bytes in %.1f s", shard.name, shard.size, seconds)

    def _lose(self, number: int, reason: str) -> None:
        """Let the next shard take the place of one that cannot be read; it is staged for as long as that was needed."""
        self._lost.add(number)
        place = self._order.index(number)
        following = self._order[place + 1 :] + self._order[:place]
        instead = next((other for other in following if other not in self._lost), number)
        name = self._stage.shards[number].name
        logger.warning("%s cannot be read (%s): samples of another shard take the places of its own", name, reason)
        if instead != number:
            self._first[instead] = min(self._first[instead], self._first[number])
            self._last[instead] = max(self._last[instead], self._last[number])
            if instead not in self._staged and instead not in self._todo:
                self._todo.append(instead)
            self._todo.sort(key=lambda one: (self._first[one], self._order.index(one)))
        self._stage.lose(number, reason, instead)
