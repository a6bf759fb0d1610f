"""Signals by which a scheduler takes the machine away: all processes stop after the same step."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist

from engine.distributed import waiting_for, world_size


class Interrupted(BaseException):
    """A signal to stop, received while a batch is awaited that may never come; nothing in between may swallow it."""


class Preemption:
    """Catches SIGTERM and SIGUSR1, by which schedulers announce that they will take the machine away.

    All processes must stop after the same step, though a signal reaches each at another moment and perhaps only one.
    So each step starts an exchange of flags that the next step reads: it travels by gloo while the step computes, and
    nobody waits for a GPU.
    """

    SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name)]  # Windows: no USR1
    PATIENCE = 10.0  # seconds after a signal in which one of several processes still gets its batch; torchrun gives 30

    def __init__(self) -> None:
        self.received = False
        self.stop = False  # what the processes agreed on
        self.state_is_saved = False  # while true, a signal ends the process at once: nothing would be lost
        self._awaiting = False
        self._deadline = 0.0
        self._since = time.monotonic()  # when the signal came
        self._flag = torch.zeros(1)
        self._exchange: dist.Work | None = None
        self._previous = {number: signal.signal(number, self._receive) for number in self.SIGNALS}

    def _receive(self, number: int, _: Any) -> None:
        first = not self.received
        self.request()
        if self.state_is_saved:
            raise SystemExit(PREEMPTED)
        if first:
            self._set_deadline(number)
        if self._awaiting and time.monotonic() >= self._deadline:
            raise Interrupted

    def request(self) -> None:
        """Have all processes stop after the same step, as by a signal to this one."""
        if not self.received:
            self.received, self._since = True, time.monotonic()

    @property
    def seconds(self) -> float:
        """How long ago the signal came."""
        return time.monotonic() - self._since

    def _set_deadline(self, number: int) -> None:
        """Give the batch that is awaited, or will be, so much time, and have the signal repeated then."""
        # One process alone may stop between any two steps; several have to agree, which takes one step more.
        patience = self.PATIENCE if world_size() > 1 else 0.0
        self._deadline = time.monotonic() + patience
        if patience:
            reminder = threading.Timer(patience, _repeat, (number,))
            reminder.daemon = True
            reminder.start()

    @contextlib.contextmanager
    def awaiting_batch(self) -> Iterator[None]:
        """Inside, a signal raises Interrupted: in one process alone at once, in several after `PATIENCE`."""
        self._awaiting = True
        try:
            if self.received:
                self._set_deadline(signal.SIGTERM)
                if time.monotonic() >= self._deadline:
                    raise Interrupted
            yield
        finally:
            self._awaiting = False

    def agreed(self) -> bool:
        """Whether to stop now; call once a step, on every process. Follows a signal by one step at most."""
        stop = self.settle()
        if world_size() > 1:
            self._flag = torch.tensor([float(self.received)])
            self._exchange = dist.all_reduce(self._flag, dist.ReduceOp.MAX, async_op=True)
        return stop

    def settle(self) -> bool:
        """Whether to stop, once the exchange that is under way, if any, has ended."""
        if world_size() == 1:
            self.stop = self.received
        elif self._exchange is not None:
            with waiting_for("whether to stop"):
                self._exchange.wait()
            self._exchange = None
            self.stop = self.stop or bool(self._flag)
        if self.stop:
            self.request()  # here, too, time runs from now on
        return self.stop

    def await_own_signal(self) -> None:
        """Under torchrun, before leaving by the signal of another process, wait for one to this process for a moment.

        When machines join, each launcher stops its own processes. One that left before its launcher came to it would be
        taken for a failure, and cost one of `--max-restarts`.
        """
        deadline = time.monotonic() + self.PATIENCE
        while "TORCHELASTIC_RUN_ID" in os.environ and not self.received and time.monotonic() < deadline:
            time.sleep(0.02)

    def restore(self) -> None:
        """Put the earlier signal handlers back; after a signal, ignore further ones instead.

        When the first process exits, its launcher signals the others, and that must not change their exit status.
        """
        for number, handler in self._previous.items():
            signal.signal(number, signal.SIG_IGN if self.received or self.stop else handler)


def _repeat(number: int) -> None:
    """Send this process's main thread a signal."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, number)
    else:  # Windows, where no wait is interrupted: it is handled when the loader next looks for its workers, in 5 s
        signal.raise_signal(number)


PREEMPTED = 75
"""Exit status after a signal: state saved, start again with --resume (EX_TEMPFAIL of sysexits.h)."""
