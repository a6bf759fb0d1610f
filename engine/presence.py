"""What processes tell each other beside the exchanges of torch: that they live, what they wait for, who is silent."""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator

from torch.distributed.distributed_c10d import Store

PULSE = 2.0  # seconds between two signs of life
ROLL_CALL = 10.0  # seconds in which every process that lives notices that an exchange has failed
LONGEST = 12  # times the timeout that others wait at a meeting for a process that lives
_GRACE = 5.0  # seconds that the process which keeps the store outlives its error
_SHORTEST_LOOK, _LONGEST_LOOK = 0.001, 0.25  # seconds between two looks at whether others have come


class NoAnswer(RuntimeError):
    """Another process did not come to a meeting in time."""


class OthersEnd(RuntimeError):
    """Another process ends, so that waiting for it is in vain."""


class Presence:
    """This process among the others, by way of their store. A thread shows every two seconds that it lives.

    Attributes:
        awaits: what it waits for now, or computes for the others, in words.
    """

    def __init__(self, store: Store, rank: int, size: int, timeout: float) -> None:
        """`timeout`: how many seconds a process may give no sign of life."""
        self._store, self._rank, self._size, self._timeout = store, rank, size, timeout
        self.awaits = "the start of the run"
        self._meetings = self._shared = 0
        store.set(f"place {rank}", f"process {rank}, pid {os.getpid()} on {socket.gethostname()}")
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._show, daemon=True)
        self._thread.start()

    def _show(self) -> None:
        with contextlib.suppress(RuntimeError):  # the store went with the process that kept it
            while not self._leaving.wait(PULSE):
                self._store.add(f"pulse {self._rank}", 1)
                if roll_call_began(self._store):
                    self._store.set(f"awaits {self._rank}", self.awaits)

    def leave(self) -> None:
        """Show no more signs of life."""
        self._leaving.set()
        self._thread.join(2 * PULSE)

    def leave_last(self) -> None:
        """Where this process keeps the store, let the others end before, for a moment: their last words need it."""
        with contextlib.suppress(RuntimeError):
            self._store.add("ended", 1)
            deadline = time.monotonic() + _GRACE
            keeps_store = self._rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
            while keeps_store and self._store.add("ended", 0) < self._size and time.monotonic() < deadline:
                time.sleep(_LONGEST_LOOK)

    @contextlib.contextmanager
    def waiting_for(self, what: str) -> Iterator[None]:
        """Name what the exchanges inside wait for. After an error the name stays, for the message."""
        before, self.awaits = self.awaits, what
        yield
        self.awaits = before

    def meet(self, what: str) -> None:
        """Wait until every process is here: for one that computes alone as long as it shows that it lives.

        Raises NoAnswer where one shows no life for the timeout, or does not come for `LONGEST` times the timeout.
        """
        self._meetings += 1
        meeting = f"meeting {self._meetings}"
        with self.waiting_for(what):
            if self._rank == 0:
                self._await({rank: f"{meeting} {rank}" for rank in range(1, self._size)})
                self._store.set(meeting, "complete")
            else:
                self._store.set(f"{meeting} {self._rank}", "here")
                self._await({0: meeting})

    def once_a_node(self, make: Callable[[], bytes], what: str) -> bytes:
        """What `make` returns on the first process of this machine that comes here; the others get that."""
        self._shared += 1
        key = f"shared {self._shared} on {_node()}"
        if self._store.add(f"drawn {key}", 1) == 1:
            self._store.set(f"maker of {key}", str(self._rank))
            self._store.set(key, made := make())  # pyright: ignore[reportArgumentType]  # it takes bytes, too
            return made
        with self.waiting_for(what):
            self._await({int(self._store.get(f"maker of {key}")): key})
            return self._store.get(key)

    def place(self, rank: int) -> str:
        """The process of that rank in words: with its id and host."""
        if not self._store.check([f"place {rank}"]):
            return f"process {rank}, which never came,"
        return self._store.get(f"place {rank}").decode()

    def missing(self) -> list[str]:
        """Which processes do not answer, found by those that do: each calls this once its exchange has failed."""
        self._store.add("roll call", 1)
        self._store.set(f"alive {self._rank}", "yes")
        deadline = time.monotonic() + ROLL_CALL
        missing = [rank for rank in range(self._size) if rank != self._rank]
        while missing and time.monotonic() < deadline:
            missing = [rank for rank in missing if not self._store.check([f"alive {rank}"])]
            time.sleep(0.1)
        return [self._describe(rank) for rank in missing]

    def _describe(self, rank: int) -> str:
        if self._store.check([f"awaits {rank}"]):
            return f"{self.place(rank)}, which lives but still waits for {self._store.get(f'awaits {rank}').decode()},"
        return self.place(rank)

    def _await(self, keys: dict[int, str]) -> None:
        """Wait until each of the processes has set its key.

        A thread looks, since a look never ends where the process that keeps the store stands still.
        """
        looking = _Look(self._store, keys, self._timeout)
        while not looking.done.wait(PULSE):
            if time.monotonic() - looking.looked > self._timeout:
                raise NoAnswer("timed out: the store does not answer")
        if looking.error is not None:
            raise looking.error


class _Look:
    """A thread that looks into the store until processes have set their keys.

    Attributes:
        done: set at the end; `error` then says why, if not all have come.
        looked: when the store answered last.
    """

    def __init__(self, store: Store, keys: dict[int, str], timeout: float) -> None:
        self._store, self._keys, self._timeout = store, keys, timeout
        self.done = threading.Event()
        self.error: RuntimeError | None = None
        self.looked = time.monotonic()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            self._look()
        except RuntimeError as error:  # the store's, where its keeper has gone, among them
            self.error = error
        self.done.set()

    def _look(self) -> None:
        keys, began, compared = self._keys, self.looked, self.looked
        pulses: dict[int, tuple[int, float]] = dict.fromkeys(keys, (-1, began))
        pause = _SHORTEST_LOOK
        while keys := {rank: key for rank, key in keys.items() if not self._store.check([key])}:
            try:
                raise_if_others_end(self._store)
            except OthersEnd:
                if self._store.check([*keys.values()]):
                    return  # whom this waits for came here before it left
                raise
            self.looked = now = time.monotonic()
            if now - compared > PULSE:
                compared = now
                for rank in keys:
                    count = self._store.add(f"pulse {rank}", 0)
                    if count != pulses[rank][0]:
                        pulses[rank] = count, now
            silent = [rank for rank in keys if now - pulses[rank][1] > self._timeout]
            if silent or now - began > LONGEST * self._timeout:
                raise NoAnswer(f"timed out waiting for processes {silent or [*keys]}")
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_LOOK)


def roll_call_began(store: Store) -> bool:
    """Whether a process has found that an exchange failed: what fails on the others then is a consequence."""
    return store.add("roll call", 0) > 0


def note_leaving(store: Store) -> None:
    """Let the others know that this process ends by an error that it tells of: they need not."""
    store.add("left", 1)


def another_has_left(store: Store) -> bool:
    """Whether a process has ended by an error that it tells of."""
    return store.add("left", 0) > 0


def raise_if_others_end(store: Store) -> None:
    """Raise OthersEnd where another process ends."""
    if another_has_left(store):
        raise OthersEnd("another process has left")
    if roll_call_began(store):
        raise OthersEnd("an exchange of another process has failed")


def _node() -> str:
    """What the processes of a machine, and of a container on it, have in common: they see the same files."""
    root = os.stat("/")
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            started = file.read().strip()
    except OSError:  # no Linux
        started = ""
    return f"{socket.gethostname()} {started} {root.st_dev} {root.st_ino}"
