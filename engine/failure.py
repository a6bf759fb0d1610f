"""How a run ends by an error that its user can fix: with the message alone, printed by one process."""

import contextlib
import errno
import hashlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import torch
from torch.distributed.distributed_c10d import Store

from engine.distributed import is_timeout, presence
from engine.presence import ROLL_CALL, OthersEnd, another_has_left, note_leaving, roll_call_began
from files import cache_dir
from settings import messages
from settings.interrupts import INTERRUPTED, interrupted

Value = TypeVar("Value")


@contextlib.contextmanager
def exit_on_user_error(store: Store | None, rank: int) -> Iterator[None]:
    """Turn a user error inside into its message and exit status 1, without a traceback.

    A user error is an exception with the mark `is_user_error`, or one that `explain` knows. Where several processes
    meet the same one, the first prints it. Processes whose exchanges fail because another has left exit in silence.
    After Ctrl-C the exit status is INTERRUPTED, and one process says so. Other exceptions pass through.
    """
    try:
        yield
    except KeyboardInterrupt:
        if _first_to_say(store, text := interrupted()):
            print(text, file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None
    except SystemExit:  # after a signal: else the others would wait for this process
        if store is not None:
            _ask(lambda: note_leaving(store), ROLL_CALL)
        raise
    except Exception as error:
        text = str(error) if getattr(error, "is_user_error", False) else explain(error)
        topic = text
        if text is None and store is not None and isinstance(error, RuntimeError):  # torch.distributed's are
            topic, text = _no_answer(store, error)
        if text is not None:
            others = "" if rank == 0 else f" (process {rank})"
            message = messages.message(f"{Path(sys.argv[0]).name}{others}: {text}", sys.stderr.encoding)
            _tell_torchrun(message)
            raise SystemExit(message if _first_to_say(store, topic or text) else 1) from error
        if isinstance(error, OthersEnd) or (isinstance(error, RuntimeError) and _another_has_left(store)):
            raise SystemExit(1) from error
        _first_to_say(store, str(error))  # with a traceback, which is the only one of the run
        raise


_PLACES = {  # what the user's machine refuses, and what to do about it
    errno.ENOENT: "it is not there, or no longer",
    errno.ENOSPC: "free space there, or write elsewhere",
    errno.EDQUOT: "free space there, or write elsewhere",
    errno.EFBIG: "write to a file system that takes files of that size",
    errno.EACCES: "ask for the permission, or name another place",
    errno.EPERM: "ask for the permission, or name another place",
    errno.EROFS: "name a place that can be written to",
    errno.ENAMETOOLONG: "give it a shorter name",
    errno.ENOTDIR: "a part of this path is a file: name another place",
    errno.EISDIR: "it is a folder: name a file, or move the folder away",
    errno.ELOOP: "its links lead in a circle",
    errno.EMFILE: "raise the limit of open files (`ulimit -n`), or lower num_workers",
    errno.ENFILE: "the machine's files are all in use: end other programs, or lower num_workers",
    errno.EIO: "the disk or the file server fails",
    errno.ESTALE: "the file server no longer knows it: mount it anew",
}
_CPU_MEMORY = "DefaultCPUAllocator: can't allocate memory"  # torch's error is a plain RuntimeError


def explain(error: Exception) -> str | None:
    """What to tell the user of an error that comes from their machine; None of an error that comes from a bug."""
    if isinstance(error, OSError) and error.errno in _PLACES:
        places = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, (str, bytes))]
        cache = "; BLIP_CACHE names another cache" if any(_in_cache(place) for place in places) else ""
        return f"{' -> '.join(places) or 'a file'}: {os.strerror(error.errno)}; {_PLACES[error.errno]}{cache}"
    text = str(error).strip().partition("\n")[0]
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or _CPU_MEMORY in text:
        return f"the memory is too small: lower batch_size, or see docs/scaling.md ({text or 'no more can be had'})"
    if isinstance(error, RuntimeError) and text.startswith(
        "DataLoader worker"
    ):  # torch's, in the midst of whatever runs
        if "Bus error" in text:
            return (
                f"{text.partition(' It is')[0]} The shared memory (/dev/shm) is full: raise it (Docker: "
                "--shm-size=8g, or --ipc=host), or lower num_workers"
            )
        return f"{text.rstrip('. ')}: killed for want of memory, perhaps; lower num_workers or batch_size"
    return None


def exit_status(error: BaseException) -> int:
    """The status that a script ends with which nothing else catches the error of."""
    if not isinstance(error, SystemExit):
        return 1
    return error.code if isinstance(error.code, int) else int(error.code is not None)


def _in_cache(place: str) -> bool:
    cache = str(cache_dir())
    return place == cache or place.startswith(cache + os.sep) or cache.startswith(place + os.sep)


def _no_answer(store: Store, error: RuntimeError) -> tuple[str | None, str | None]:
    """Which processes kept this one waiting until its time was up, and the message, if that is what it is about."""
    here = presence()
    if here is None:
        return None, None

    def find() -> str | None:
        return "; ".join(here.missing()) if is_timeout(error) or roll_call_began(store) else ""

    found = _ask(find, 3 * ROLL_CALL)
    if found is None and is_timeout(error):
        found = "the process or launcher that keeps the store, usually process 0,"
    if not found:
        return None, None
    return found, (
        f"no answer from {found} for timeout_minutes, while others waited for {here.awaits}: it is stopped, hangs, or "
        "its machine does. Look there (py-spy dump shows where a process stands); raise timeout_minutes if it only "
        "needs more time; go on with --resume"
    )


def _first_to_say(store: Store | None, message: str) -> bool:
    """Whether no other process has printed this message yet. Notes in the store that this process leaves."""
    if store is None:
        return True

    def is_first() -> bool:
        note_leaving(store)
        return store.add(hashlib.sha256(message.encode()).hexdigest(), 1) == 1

    return _ask(is_first, ROLL_CALL) is not False  # also where the store went with the process that kept it


def _another_has_left(store: Store | None) -> bool:
    """Whether a process has left after a user error."""
    return store is not None and _ask(lambda: another_has_left(store), ROLL_CALL) is True


def _ask(question: Callable[[], Value], seconds: float) -> Value | None:
    """The answer of the store; None where it has gone, or does not answer: one of the processes may keep it."""
    answers: list[Value] = []

    def ask() -> None:
        with contextlib.suppress(RuntimeError):
            answers.append(question())

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(seconds)
    return answers[0] if answers else None


def _tell_torchrun(message: str) -> None:
    """Write the message where torchrun looks for it, whose report would else end in a hint to enable tracebacks."""
    if file := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        content = {"message": {"message": message, "extraInfo": {"timestamp": str(int(time.time()))}}}
        Path(file).write_text(json.dumps(content), encoding="utf-8")
