"""A budget of seconds that ends whatever is being done, so that what is done already can be told."""

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_AGAIN = 5.0  # seconds after which the end is told again: an exception of a destructor, say, goes nowhere


class BudgetEnded(BaseException):
    """The budget ended in the midst of something.

    It is no Exception, since compilers and measurements catch these.
    """


@contextmanager
def ends_at(deadline: float) -> Iterator[None]:
    """Raise BudgetEnded from inside at `deadline`, on the clock `time.monotonic`; in the main thread only.

    A call of a library that is running ends before it is raised. Without a deadline (infinity), and on Windows, which
    has no such clock, it is never raised.
    """
    if deadline == math.inf or not hasattr(signal, "setitimer"):
        yield
        return

    def end(*_: Any) -> None:
        raise BudgetEnded

    before = signal.signal(signal.SIGALRM, end)
    try:
        signal.setitimer(signal.ITIMER_REAL, max(deadline - time.monotonic(), 1e-6), _AGAIN)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
