"""Processes: how this one was launched, and what all of them exchange. A single process exchanges nothing."""

import atexit
import contextlib
import gc
import multiprocessing
import os
import pickle
import re
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import Store
from torch.distributed.rendezvous import rendezvous

from engine.meeting import meet
from engine.presence import ROLL_CALL, Presence
from settings import ConfigError, UserError

Value = TypeVar("Value")

_LAUNCHERS = "torchrun or srun sets whole numbers, the rank below the number of processes; unset both for one process"


@dataclass(frozen=True)
class Launch:
    """Which process this is, of how many, and where they meet. `local_rank`, its rank in the machine, picks the GPU."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    address: str = ""
    port: int = 0


def read_launch(environ: Mapping[str, str] = os.environ) -> Launch:
    """The launch that the variables of torchrun or SLURM describe; a single process when there are none.

    Raises ConfigError for values that no launcher sets.
    """
    if "RANK" in environ and "WORLD_SIZE" in environ:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT")
        rank, world_size, local_rank, port = (_whole_number(environ, name) for name in names)
        _check_rank("RANK", rank, "WORLD_SIZE", world_size)
        return Launch(rank, world_size, local_rank, environ.get("MASTER_ADDR", ""), port)
    # Only srun's tasks have the step's numbers. A batch script is one process, though it sees the job's SLURM_NTASKS.
    if "SLURM_STEP_NUM_TASKS" in environ:
        names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "MASTER_PORT", "SLURM_JOB_ID")
        rank, world_size, local_rank, port, job = (_whole_number(environ, name) for name in names)
        _check_rank("SLURM_PROCID", rank, "SLURM_STEP_NUM_TASKS", world_size)
        nodes = environ.get("SLURM_STEP_NODELIST", environ.get("SLURM_JOB_NODELIST", "localhost"))
        address = environ.get("MASTER_ADDR") or _first_node(nodes)
        # Two jobs on one machine must not meet: the port comes from the job's number, below the ephemeral range.
        return Launch(rank, world_size, local_rank, address, port or 15000 + job % 15000)
    return Launch()


def _whole_number(environ: Mapping[str, str], name: str) -> int:
    """The number that a launcher's variable holds; 0 where it is not set, or empty."""
    value = environ.get(name) or "0"
    if not re.fullmatch("[0-9]{1,18}", value):
        raise ConfigError(f"{name} = {value[:40]!a} in the environment: {_LAUNCHERS}")
    return int(value)


def _check_rank(rank_name: str, rank: int, size_name: str, size: int) -> None:
    """Raise ConfigError where there is no such process among so many."""
    if rank >= size:
        raise ConfigError(f"{rank_name} = {rank}, {size_name} = {size} in the environment: {_LAUNCHERS}")


def _first_node(nodes: str) -> str:
    """The first host of a SLURM node list: 'gpu[012-015,020],cpu1' -> 'gpu012'."""
    match = re.match(r"([^\[,]+)(?:\[([0-9]+))?", nodes)
    return "".join(part for part in match.groups() if part) if match else nodes


def connect(launch: Launch) -> Store | None:
    """The key-value store that all processes share; None for a single process. Waits for all of them.

    Raises ConfigError where there are several processes and no address to meet at, UserError where one does not come.
    """
    if launch.world_size == 1:
        return None
    if not (launch.address and launch.port):
        raise ConfigError(
            f"WORLD_SIZE is {launch.world_size}, but MASTER_ADDR or MASTER_PORT is not set: launch by "
            "python -m torch.distributed.run, or unset RANK and WORLD_SIZE for one process alone"
        )
    address = "env://" if "RANK" in os.environ else f"tcp://{launch.address}:{launch.port}"
    store, _, _ = next(rendezvous(address, launch.rank, launch.world_size))
    return meet(store, launch.rank, launch.world_size)


_presence: Presence | None = None  # while this process is one of several


def init_process_group(launch: Launch, store: Store | None, device: torch.device, timeout_minutes: float) -> None:
    """Join the other processes, if any. Tensors on a GPU travel by NCCL, all others by gloo."""
    global _presence
    if store is None:
        return
    timeout = timedelta(minutes=timeout_minutes)
    _presence = Presence(store, launch.rank, launch.world_size, timeout.total_seconds())
    on_gpu = device.type == "cuda"
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
        store=store,
        rank=launch.rank,
        world_size=launch.world_size,
        device_id=device if on_gpu else None,
        timeout=timeout,
    )


def leave_process_group() -> None:
    """Leave the other processes, if any, at the end of the run: together, as one of them may keep the store."""
    global _presence
    if _presence is not None:
        _presence.meet("the end of the run")
        _presence.leave()
        _presence = None
    if dist.is_initialized():
        dist.destroy_process_group()
        # The group's threads end when its last owner goes. A DDP model is one, and only the collector frees it: a
        # thread that outlives the interpreter aborts the process ("terminate called without an active exception").
        gc.collect()


def abandon_process_group(status: int) -> None:
    """After an error, have this process end at its exit with `status`, whatever exchanges are under way.

    Destroying the group would wait for these: for the others, until their timeout. That the connections close with the
    process lets the others know at once.
    """
    if dist.is_initialized():
        atexit.register(_end, _presence, status)


def _end(here: Presence | None, status: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    if here is not None:
        here.leave()
        leaving = threading.Thread(target=here.leave_last, daemon=True)  # which the store may never answer
        leaving.start()
        leaving.join(ROLL_CALL)
    for worker in multiprocessing.active_children():  # ended by the interpreter, had it time to
        worker.terminate()
    os._exit(status)


def is_timeout(error: Exception) -> bool:
    """Whether an exchange failed since another process did not answer in time."""
    return isinstance(error, RuntimeError) and re.search(r"[Tt]imed out|[Tt]imeout", str(error)) is not None


def presence() -> Presence | None:
    """This process among the others; None of a process alone."""
    return _presence


def waiting_for(what: str) -> contextlib.AbstractContextManager[None]:
    """Name what the exchanges inside wait for, for the message about a process that does not answer."""
    return contextlib.nullcontext() if _presence is None else _presence.waiting_for(what)


def world_size() -> int:
    """How many processes train or evaluate together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def gather_objects(objects: list[Value], what: str = "what all processes found") -> list[Value]:
    """The lists of all processes, concatenated in the order of their ranks, on every process.

    Evaluation's shares (`data.sampler.EvalSampler`) hold each sample once, so together they are a whole result.
    """
    if world_size() == 1:
        return objects
    barrier(what)
    lists: list[list[Value]] = [[] for _ in range(world_size())]
    with waiting_for(what):
        dist.all_gather_object(lists, objects)
    return [item for part in lists for item in part]


def broadcast_object(value: Value, what: str = "what the first process found") -> Value:
    """The first process's `value`, on every process."""
    values = [value]
    if world_size() > 1:
        barrier(what)
        with waiting_for(what):
            dist.broadcast_object_list(values, src=0)
    return values[0]


Decided = tuple[list[Value], UserError | None]


def _decide(decide: Callable[[], Value]) -> Decided[Value]:
    try:
        return [decide()], None
    except UserError as error:
        return [], error


def _decided(outcome: Decided[Value]) -> Value:
    values, refusal = outcome
    if refusal is not None:
        raise refusal
    return values[0]


def first_decides(decide: Callable[[], Value], what: str = "a decision of the first process") -> Value:
    """What `decide` returns on the first process, on every process; where it raises a UserError, all raise that."""
    is_first = not dist.is_initialized() or dist.get_rank() == 0
    return _decided(broadcast_object(_decide(decide) if is_first else ([], None), what))


def once_a_node(make: Callable[[], Value], what: str) -> Value:
    """What `make` returns on one process of each machine, on all processes there; a UserError is raised on all of them.

    For what would be the same on each of them, and is much for a file server: thousands of questions about files.
    """
    if _presence is None:
        return make()
    return _decided(pickle.loads(_presence.once_a_node(lambda: pickle.dumps(_decide(make)), what)))


def barrier(what: str = "the other processes") -> None:
    """Wait until every process is here (on the host: a GPU may still have work to do).

    A process that computes alone before, such as the first one scores, is waited for as long as it lives: see
    `Presence.meet`.
    """
    if _presence is not None:
        _presence.meet(what)


def all_reduce(values: torch.Tensor, op: dist.ReduceOp.RedOpType = dist.ReduceOp.SUM) -> torch.Tensor:
    """Reduce `values` in place over all processes (by default their sum), and return them."""
    if world_size() > 1:
        dist.all_reduce(values, op)
    return values
