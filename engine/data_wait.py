"""Whether a training is bound by its data, and what to do about it."""

import math
from collections.abc import Mapping

_ACCEPTED = 0.05  # share of the time that may be spent waiting for data
_JUDGED = 50  # steps; over fewer, one slow file counts too much


class DataWait:
    """Adds up how long an epoch waits for data, and says once, if that is long, how many workers would end it.

    What comes before the first report of an epoch does not count: workers start there, and the first batches have not
    been read ahead.
    """

    def __init__(self, num_workers: int, index: int) -> None:
        """`index`: the steps of the epoch that are done."""
        self.num_workers, self._index = num_workers, index
        self._steps, self._seconds, self._waited = 0, 0.0, 0.0
        self._first, self._said = True, False

    def advice(self, index: int, speed: Mapping[str, float]) -> str | None:
        """What to say at a report after `index` steps of the epoch, with the `speed` since the last; mostly nothing."""
        steps, self._index = index - self._index, index
        if self._first:
            self._first = False
            return None
        seconds = steps * speed["s_per_step"]
        self._steps += steps
        self._seconds += seconds
        self._waited += seconds * speed["data_wait"]
        if self._said or self._steps < _JUDGED or self._waited <= _ACCEPTED * self._seconds:
            return None
        self._said = True
        share = min(self._waited / self._seconds, 0.99)
        return (
            f"data-bound: {share:.0%} of the time of {self._steps:,} steps was spent waiting for data; set num_workers "
            f"to {workers_needed(self.num_workers, share)} (now {self.num_workers}) where there are processors for them"
        )


def workers_needed(num_workers: int, share: float) -> int:
    """The loader workers by which nothing waits, where with `num_workers` a `share` of the time is spent waiting.

    While a training waits, all workers are busy: they read what a step needs in its whole time, and shall read it in
    the rest of it. Without workers the training process has waited for its own reading.
    """
    work = num_workers or share
    return max(1, math.ceil(work / (1 - share)))
