"""How a run ends by an error that its user can fix: with the message alone, printed by one process."""

import contextlib
import errno
import hashlib
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.distributed.distributed_c10d import Store

from engine.distributed import ROLL_CALL, is_timeout, missing_processes, roll_call_began
from files import cache_dir
from settings import messages
from settings.interrupts import INTERRUPTED, interrupted


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
    except Exception as error:
        text = str(error) if getattr(error, "is_user_error", False) else explain(error)
        if text is None and store is not None and isinstance(error, RuntimeError):  # torch.distributed's are
            text = _no_answer(store, error)
        if text is not None:
            others = "" if rank == 0 else f" (process {rank})"
            message = messages.message(f"{Path(sys.argv[0]).name}{others}: {text}", sys.stderr.encoding)
            _tell_torchrun(message)
            raise SystemExit(message if _first_to_say(store, text) else 1) from error
        if isinstance(error, RuntimeError) and _another_has_left(store):
            raise SystemExit(1) from error
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


def _in_cache(place: str) -> bool:
    cache = str(cache_dir())
    return place == cache or place.startswith(cache + os.sep) or cache.startswith(place + os.sep)


def _no_answer(store: Store, error: RuntimeError) -> str | None:
    """Which processes kept this one waiting until its time was up, if that is what the error is about."""
    found: list[str | None] = []

    def ask() -> None:
        with contextlib.suppress(RuntimeError):
            if is_timeout(error) or roll_call_began(store):
                found.append("; ".join(missing_processes(store)) or None)

    # In a thread of its own: the store is kept by one of the processes, perhaps by the one that does not answer.
    question = threading.Thread(target=ask, daemon=True)
    question.start()
    question.join(3 * ROLL_CALL)
    if question.is_alive() and is_timeout(error):
        found = ["the process or launcher that keeps the store, usually process 0,"]
    if not found or found[0] is None:
        return None
    return (
        f"no answer from {found[0]} for timeout_minutes: it is stopped, hangs, or its machine does. Look there (py-spy "
        "dump shows where a process stands); raise timeout_minutes if it only needs more time; go on with --resume"
    )


def _first_to_say(store: Store | None, message: str) -> bool:
    """Whether no other process has printed this message yet. Notes in the store that this process leaves."""
    if store is None:
        return True
    try:
        store.add("left", 1)
        return store.add(hashlib.sha256(message.encode()).hexdigest(), 1) == 1
    except RuntimeError:  # the store went with the process that kept it
        return True


def _another_has_left(store: Store | None) -> bool:
    """Whether a process has left after a user error."""
    try:
        return store is not None and store.add("left", 0) > 0
    except RuntimeError:
        return False


def _tell_torchrun(message: str) -> None:
    """Write the message where torchrun looks for it, whose report would else end in a hint to enable tracebacks."""
    if file := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        content = {"message": {"message": message, "extraInfo": {"timestamp": str(int(time.time()))}}}
        Path(file).write_text(json.dumps(content), encoding="utf-8")
