"""The thread that copies remote shards to a local disk ahead of the batches that need them, and drops them later."""

import logging
import threading
import time
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from data.remote.listing import RemoteShard
from data.remote.reading import Requests, Stopped, Unreadable
from data.remote.stage import Stage
from settings import ConfigError, UserError

logger = logging.getLogger("blip.data")

_POLL = 0.2  # seconds between two looks at what other processes have read
_NEXT_EPOCH = 2**60  # from here on, batches are of the next epoch: none of this one is so large


@dataclass(eq=False)
class Use:
    """A shard, and the first and the last batch of those that need it at a time."""

    shard: int
    first: int
    last: int


def uses_of(batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> list[Use]:
    """The uses of shards in the order in which they begin.

    Args:
        batches: of each batch, from the epoch's first on, the shards of its samples, and in which pass over the shards
            each sample is read: from one pass to the next a shard need not be kept.
    """
    of_pass: dict[tuple[int, int], Use] = {}
    for number, (shards, passes) in enumerate(batches):
        for shard, turn in np.unique(np.stack([shards.astype(np.int64), passes.astype(np.int64)]), axis=1).T.tolist():
            of_pass.setdefault((shard, turn), Use(shard, number, number)).last = number
    uses: list[Use] = []
    for _, use in sorted(of_pass.items()):
        if uses and uses[-1].shard == use.shard and use.first <= uses[-1].last + 1:
            uses[-1].last = max(uses[-1].last, use.last)
        else:
            uses.append(use)
    return sorted(uses, key=_beginning)


def largest_need(uses: Iterable[Use], sizes: dict[int, int], start: int) -> tuple[int, int]:
    """The most bytes of shards that a batch from `start` on needs at once, and of how many shards they are."""
    changes: dict[int, list[int]] = {}
    for use in uses:
        if use.last >= start:
            for batch, sign in ((max(start, use.first), 1), (use.last + 1, -1)):
                change = changes.setdefault(batch, [0, 0])
                change[0] += sign * sizes[use.shard]
                change[1] += sign
    needed = np.cumsum([changes[batch] for batch in sorted(changes)] or [[0, 0]], axis=0)
    size, shards = needed[needed[:, 0].argmax()].tolist()
    return size, shards


def first_needed(batches: Iterable[np.ndarray], sizes: dict[int, int], room: int) -> list[int]:
    """The shards that an epoch needs first, in the order of need, as many as `room` holds.

    Args:
        batches: the shards of the samples of each batch; no more of them are made than it takes.
    """
    found: dict[int, None] = {}
    for shards in batches:
        for shard in sorted(set(shards.tolist()) - found.keys()):
            room -= sizes[shard]
            if room < 0:
                return list(found)
            found[shard] = None
        if len(found) == len(sizes):
            break
    return list(found)


def _beginning(use: Use) -> tuple[int, int]:
    return use.first, use.shard


class Stager:
    """Stages the shards of an epoch in the order in which its batches need them, as many as `room` holds at a time.

        with Stager(stage, uses, start_batch, room) as stager:
            ...                                     # start the loader's workers, which wait for shards by stage.wait
            stager.start()
            for number, batch in ...:
                stager.consumed(number)

    A shard is dropped when the last batch that uses it has come: then every worker is done with it. In the place of one
    that cannot be read, the next one of the order is staged for as long. When all are staged, the shards `ahead`, which
    the next epoch needs first, are too; that epoch's stager finds them there.

    Raises ConfigError for too little room.
    """

    def __init__(
        self, stage: Stage, uses: Sequence[Use], start_batch: int, room: int, ahead: Sequence[int] = ()
    ) -> None:
        self._stage, self._room = stage, room
        self._sizes = {number: shard.size for number, shard in stage.shards.items()}
        self._order = list(dict.fromkeys(use.shard for use in uses))
        self._todo = [use for use in uses if use.last >= start_batch]
        self._todo += [Use(shard, _NEXT_EPOCH + place, _NEXT_EPOCH + place) for place, shard in enumerate(ahead)]
        self._staged: list[Use] = []
        self._lost: dict[int, int] = {}  # shard -> the one in its place
        self._consumed = start_batch - 1
        self._changed, self._stopped = threading.Event(), threading.Event()
        self._failure: str | None = None
        self._thread = threading.Thread(target=self._run, daemon=True, name="stager")
        self._requests = Requests(self._stopped, self._tend)
        needed, shards = largest_need(uses, self._sizes, start_batch)
        if needed > room:
            raise ConfigError(
                f"stage_gib = {room / 2**30:.3g}: batches are drawn from up to {shards} shards at a time, which have "
                f"{needed / 2**30:.3g} GiB together: raise it to {1.01 * needed / 2**30:.3g}, or write smaller shards"
            )

    def __enter__(self) -> "Stager":
        kept = set(self._stage.begin())
        for use in list(self._todo):
            if use.shard in kept:
                kept.remove(use.shard)
                self._todo.remove(use)
                self._staged.append(use)
        for shard in kept:
            self._stage.session.drop(self._stage.shards[shard], self._stage.file(shard))
        return self

    def __exit__(self, *exception: object) -> None:
        self._stopped.set()
        self._changed.set()
        if self._thread.ident is not None:
            self._thread.join()
        is_over = not [use for use in self._todo + self._staged if self._consumed < use.last < _NEXT_EPOCH]
        kept = [use for use in self._staged if use.first >= _NEXT_EPOCH] if is_over and not self._failure else []
        for use in [use for use in self._staged if use not in kept]:
            self._drop(use)
        self._stage.end({use.shard for use in kept})

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
                use = self._next()
                if use is None:
                    self._changed.wait(_POLL)
                    self._changed.clear()
                    if self._stopped.is_set():
                        return
                else:
                    self._read(use)
        except Stopped:
            pass
        except UserError as error:
            self._fail(str(error))
        except Exception as error:
            self._fail(f"staging shards ended by an error of the program: {''.join(traceback.format_exception(error))}")

    def _fail(self, reason: str) -> None:
        self._failure = reason
        self._stage.fail(reason)

    def _reusable(self) -> list[RemoteShard]:
        """The shards that are needed first: a run that was killed may have left copies of them."""
        kept: dict[int, RemoteShard] = {}
        for use in self._todo:
            kept[use.shard] = self._stage.shards[use.shard]
            if sum(shard.size for shard in kept.values()) > self._room:
                break
        return list(kept.values())

    def _tend(self) -> None:
        """What is done again and again, also while a shard is read: a sign of life, and dropping."""
        self._stage.session.sign()
        done = self._consumed
        for use in [use for use in self._staged if use.last <= done]:
            self._drop(use)

    def _drop(self, use: Use) -> None:
        self._staged.remove(use)
        if use.shard not in self._on_disk():
            self._stage.session.drop(self._stage.shards[use.shard], self._stage.file(use.shard))

    def _on_disk(self) -> set[int]:
        return {use.shard for use in self._staged}

    def _next(self) -> Use | None:
        """The next shard to read, which is claimed; None where there is no room, or others are reading it."""
        needed = self._on_disk()
        for use in list(self._todo):
            if use.shard in self._lost:
                self._todo.remove(use)
                self._replace(use)
                return self._next()
            needed.add(use.shard)
            if sum(self._sizes[shard] for shard in needed) > self._room and use.first > self._consumed + 1:
                return None
            claimed = "staged"
            if use.shard not in self._on_disk():
                claimed = self._stage.session.claim(self._stage.shards[use.shard], self._stage.file(use.shard))
            if claimed == "read by another":
                continue
            self._todo.remove(use)
            if claimed == "mine":
                return use
            self._staged.append(use)
        return None

    def _read(self, use: Use) -> None:
        shard, begun = self._stage.shards[use.shard], time.monotonic()
        try:
            self._stage.session.read(shard, self._stage.file(use.shard), self._requests)
        except Unreadable as error:
            self._lose(use, error.reason)
        else:
            self._staged.append(use)
            logger.debug("%s staged: %d bytes in %.1f s", shard.name, shard.size, time.monotonic() - begun)

    def _lose(self, use: Use, reason: str) -> None:
        """Let the next shard of the epoch's order stand in for one that cannot be read; the next epoch asks again."""
        if use.first >= _NEXT_EPOCH:
            return
        place = self._order.index(use.shard)
        following = self._order[place + 1 :] + self._order[:place]
        instead = next((shard for shard in following if shard not in self._lost), use.shard)
        self._lost[use.shard] = instead
        name = self._stage.shards[use.shard].name
        logger.warning("%s cannot be read (%s): samples of another shard take the places of its own", name, reason)
        self._replace(use)
        self._stage.lose(use.shard, reason, instead)

    def _replace(self, use: Use) -> None:
        """Stage what stands in for a shard that cannot be read, for as long as that one is needed."""
        instead = self._lost[use.shard]
        if instead != use.shard and use.first < _NEXT_EPOCH:
            self._todo = sorted([*self._todo, Use(instead, use.first, use.last)], key=_beginning)
