"""Work that processes draw one piece at a time, so that a slow one does not hold up the others."""

import time
from collections import Counter
from collections.abc import Iterator

from torch.distributed.distributed_c10d import Store

from engine.distributed import barrier, world_size
from engine.presence import raise_if_others_end

_POLL = 0.2  # seconds between two looks at whether the others are done


class SharedWork:
    """Pieces of work, each drawn by one process, and counts that all processes add to.

    Both live in the processes' store, so that nobody waits for anybody but at the end.

    Args:
        store: the store of the processes; None where there is one process only.
        timeout_minutes: how long `finish` waits while no count changes.
    """

    def __init__(self, store: Store | None, timeout_minutes: float) -> None:
        self._store, self._timeout = store, 60 * timeout_minutes
        self._own: Counter[str] = Counter()  # the counts of a process alone

    def draw(self, pieces: int) -> Iterator[int]:
        """Yield numbers below `pieces`, each to one process only, as soon as this one asks for the next."""
        while (number := self.add("drawn", 1) - 1) < pieces:
            self._check_that_nobody_left()
            yield number

    def add(self, name: str, amount: int) -> int:
        """Add to a count of all processes -> what it is now."""
        if self._store is not None:
            return self._store.add(f"work {name}", amount)
        self._own[name] += amount
        return self._own[name]

    def finish(self, name: str) -> None:
        """Wait until every process has come here, for as long as the count `name` still changes."""
        self.add("finished", 1)
        seen, since = -1, time.monotonic()
        while self.add("finished", 0) < world_size():
            self._check_that_nobody_left()
            if (now := self.add(name, 0)) != seen:
                seen, since = now, time.monotonic()
            if time.monotonic() - since > self._timeout:
                break  # the barrier says who does not answer
            time.sleep(_POLL)
        barrier()

    def _check_that_nobody_left(self) -> None:
        """Raise where a process has ended by an error that it has told the user of: this one then ends in silence."""
        if self._store is not None:
            raise_if_others_end(self._store)
