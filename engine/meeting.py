"""How the processes of a launch find each other in a store where those of earlier launches have left their notes."""

import time
import uuid

from torch.distributed.distributed_c10d import PrefixStore, Store

from settings import UserError

ARRIVAL = 30 * 60.0  # seconds in which the last process comes after the first


def meet(store: Store, rank: int, world_size: int, patience: float = ARRIVAL) -> Store:
    """The part of `store` that the processes of this launch alone share, once all of them have come.

    torchrun starts processes again over the same store, where the addresses of the dead remain. Its count of restarts
    does not tell one start from another: each machine counts its own, and those that come or go are not counted. So
    process 0 opens a new part each time and lists who came into it; a process that has come into the part of an earlier
    start is not on that list, and goes on to the next part.

    Raises UserError where a process has not come after `patience` seconds.
    """
    deadline = time.monotonic() + patience
    return _gather(store, world_size, deadline) if rank == 0 else _join(store, rank, deadline)


def _gather(store: Store, world_size: int, deadline: float) -> Store:
    """As process 0, open a part and wait for the others in it."""
    part = _part(store, store.add("starts", 1))
    missing = list(range(1, world_size))
    while missing := [rank for rank in missing if not part.check([f"here {rank}"])]:
        _check_time(deadline, f"of {world_size} processes, these did not come: {', '.join(map(str, missing))}")
    part.set("all", " ".join(part.get(f"here {rank}").decode() for rank in range(1, world_size)))
    return part


def _join(store: Store, rank: int, deadline: float) -> Store:
    """As another process, come into each part that process 0 opens, until it lists this process."""
    name, entered = uuid.uuid4().hex, 0
    while True:
        latest = store.add("starts", 0)
        part = _part(store, latest)
        if latest > entered:
            part.set(f"here {rank}", name)
            entered = latest
        if entered and part.check(["all"]) and name in part.get("all").decode().split():
            return part
        _check_time(deadline, "process 0 did not come, or waits for another")


def _part(store: Store, number: int) -> Store:
    return PrefixStore(f"start_{number}", store)


def _check_time(deadline: float, complaint: str) -> None:
    """Wait a moment; raise UserError after the deadline."""
    if time.monotonic() > deadline:
        raise UserError(f"{complaint}; look at their machines, and start the run anew")
    time.sleep(0.05)
