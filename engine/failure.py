"""How a run ends that cannot go on: by its error's message alone where a person can mend it, said by one process."""

import contextlib
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from torch.distributed import Store


@contextlib.contextmanager
def exit_on_user_error(store: Store | None, rank: int) -> Iterator[None]:
    """End this process with status 1 where something goes wrong inside that a person can mend: by its message.

    What several processes meet is said by the first of them. Those whose exchanges with a process that left then fail
    end in silence. Any other exception is passed on.
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
    """Note that this process leaves; whether no other has said so yet."""
    if store is None:
        return True
    try:
        store.add("left", 1)
        return store.add(hashlib.sha256(message.encode()).hexdigest(), 1) == 1
    except RuntimeError:  # the store went with the process that kept it
        return True


def _another_has_left(store: Store | None) -> bool:
    try:
        return store is not None and store.add("left", 0) > 0
    except RuntimeError:
        return False


def _tell_torchrun(message: str) -> None:
    """Give the message to torchrun, whose own report comes last and would end in a hint how to see tracebacks."""
    if file := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        content = {"message": {"message": message, "extraInfo": {"timestamp": str(int(time.time()))}}}
        Path(file).write_text(json.dumps(content), encoding="utf-8")
