"""How a run ends by an error that its user can fix: with the message alone, printed by one process."""

import contextlib
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from torch.distributed.distributed_c10d import Store


@contextlib.contextmanager
def exit_on_user_error(store: Store | None, rank: int) -> Iterator[None]:
    """Turn a user error inside into its message and exit status 1, without a traceback.

    A user error is an exception with the mark `is_user_error`. Where several processes meet the same one, the first
    prints it. Processes whose exchanges fail because another has left exit in silence. Other exceptions pass through.
    """
    try:
        yield
    except Exception as error:
        if getattr(error, "is_user_error", False):
            others = "" if rank == 0 else f" (process {rank})"
            message = f"{Path(sys.argv[0]).name}{others}: {error}"
            _tell_torchrun(message)
            raise SystemExit(message if _first_to_say(store, str(error)) else 1) from error
        if isinstance(error, RuntimeError) and _another_has_left(store):  # torch.distributed's are
            raise SystemExit(1) from error
        raise


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
