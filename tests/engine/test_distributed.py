"""How a process learns its rank, and that lists are put together without loss or duplicates."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
import torch
import torch.multiprocessing as mp

from engine.distributed import (
    Launch,
    broadcast_object,
    connect,
    first_decides,
    gather_objects,
    init_process_group,
    leave_process_group,
    once_a_node,
    read_launch,
)
from engine.preemption import Preemption
from files import REPOSITORY
from settings import ConfigError, UserError


def test_alone_without_a_launcher():
    assert read_launch({}) == Launch(rank=0, world_size=1, local_rank=0)


def test_torchrun_variables():
    environ = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "29"}
    assert read_launch(environ) == Launch(5, 8, 1, "a", 29)


def test_processes_without_an_address_to_meet_at_are_an_error():
    with pytest.raises(ConfigError, match="WORLD_SIZE is 2, but MASTER_ADDR or MASTER_PORT is not set"):
        connect(read_launch({"RANK": "0", "WORLD_SIZE": "2"}))
    assert connect(read_launch({"RANK": "0", "WORLD_SIZE": "1"})) is None


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"RANK": "x"}, "RANK = 'x' in the environment: torchrun or srun sets whole numbers"),
        ({"RANK": "-1"}, "RANK = '-1'"),
        ({"WORLD_SIZE": "1.5"}, "WORLD_SIZE = '1.5'"),
        ({"WORLD_SIZE": "0"}, "RANK = 0, WORLD_SIZE = 0"),
        ({"RANK": "2"}, "RANK = 2, WORLD_SIZE = 2"),
        ({"LOCAL_RANK": "9" * 5000}, f"LOCAL_RANK = '{'9' * 40}' in"),
        ({"MASTER_PORT": "http"}, "MASTER_PORT = 'http'"),
    ],
)
def test_variables_that_no_launcher_sets_are_named(environ, message):
    with pytest.raises(ConfigError) as refused:
        read_launch({"RANK": "0", "WORLD_SIZE": "2", **environ})
    assert message in str(refused.value)
    with pytest.raises(ConfigError, match="SLURM_PROCID = 'x'"):
        read_launch({"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "x"})


def test_slurm_variables():
    environ = {
        "SLURM_PROCID": "9",
        "SLURM_NTASKS": "32",
        "SLURM_STEP_NUM_TASKS": "16",
        "SLURM_LOCALID": "1",
        "SLURM_JOB_ID": "123456",
        "SLURM_JOB_NODELIST": "gpu[012-015,020],cpu1",
    }
    assert read_launch(environ) == Launch(9, 16, 1, "gpu012", 15000 + 123456 % 15000)
    assert read_launch({**environ, "SLURM_STEP_NODELIST": "node7,node8"}).address == "node7"
    assert read_launch({**environ, "MASTER_ADDR": "x", "MASTER_PORT": "7"}).port == 7


def test_a_slurm_step_of_one_process_is_alone_in_a_job_of_many():
    environ = {"SLURM_PROCID": "0", "SLURM_NTASKS": "16", "SLURM_STEP_NUM_TASKS": "1"}
    assert read_launch(environ).world_size == 1


def test_a_bare_script_in_a_slurm_batch_script_is_alone():
    environ = {"SLURM_PROCID": "0", "SLURM_NTASKS": "16", "SLURM_LOCALID": "0", "SLURM_JOB_ID": "5"}
    assert read_launch(environ) == Launch()


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def _refuse():
    raise UserError("no such shard")


def _exchange(rank, port):
    launch = Launch(rank, 2, rank, "127.0.0.1", port)
    init_process_group(launch, connect(launch), torch.device("cpu"), 1.0)
    mine = [{"id": i, "from": rank} for i in ((0, 1, 2) if rank == 0 else (3, 4))]
    together = gather_objects(mine)
    assert [(item["id"], item["from"]) for item in together] == [(0, 0), (1, 0), (2, 0), (3, 1), (4, 1)]
    assert gather_objects([torch.tensor(rank)]) == [torch.tensor(0), torch.tensor(1)]
    assert gather_objects([] if rank else ["only"]) == ["only"]
    assert broadcast_object({"from": rank}) == {"from": 0}
    assert first_decides(lambda: rank) == 0
    made = once_a_node(lambda: (rank, "x" * 2_000_000), "the shards")
    assert [one[0] for one in gather_objects([made])] == [made[0]] * 2
    with pytest.raises(UserError, match="no such shard"):
        once_a_node(_refuse, "the shards")
    leave_process_group()


def test_two_processes_gather_in_the_order_of_their_ranks_and_share_what_one_of_their_machine_makes():
    mp.spawn(_exchange, (free_port(),), nprocs=2)


@pytest.mark.parametrize(("torchrun", "own_signal"), [(True, True), (True, False), (False, False)])
def test_who_stops_by_the_signal_of_another_waits_for_its_own_under_torchrun(monkeypatch, torchrun, own_signal):
    """A launcher that stops its processes since a machine joins does not count a process that it stopped itself."""
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    if torchrun:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "7")
    preemption = Preemption()
    monkeypatch.setattr(preemption, "PATIENCE", 0.3)
    preemption.stop = True
    if own_signal:
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start()
    began = time.monotonic()
    preemption.await_own_signal()
    waited = time.monotonic() - began
    preemption.restore()
    assert preemption.received == own_signal
    assert (waited >= 0.3) == (torchrun and not own_signal)


FAILS = """
import os, time, torch
import torch.distributed as dist
from engine.distributed import abandon_process_group, connect, init_process_group, read_launch
launch = read_launch()
init_process_group(launch, connect(launch), torch.device("cpu"), 2.0)
if launch.rank == 0:
    time.sleep(60)
exchange = dist.all_reduce(torch.zeros(1), async_op=True)
try:
    raise ZeroDivisionError("a bug")
except BaseException:
    abandon_process_group(1)
    raise
"""


@pytest.mark.faults(
    "an error in one of two processes while it exchanges with the other, which is busy", "it ends at once"
)
def test_an_error_ends_a_process_whose_exchange_is_under_way():
    """The group's destruction would wait for the exchange, for up to its timeout."""
    known = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    both = [
        subprocess.Popen(
            [sys.executable, "-c", FAILS],
            env={**os.environ, **known, "RANK": str(rank), "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        line = next(line for line in both[1].stderr if "ZeroDivisionError" in line)
        said = time.monotonic()
        assert both[1].wait(30) == 1
        assert time.monotonic() - said < 10
        assert line.endswith("ZeroDivisionError: a bug\n")
        assert both[0].poll() is None
    finally:
        for process in both:
            process.kill()
            process.communicate()
