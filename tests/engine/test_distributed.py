"""How a process learns its rank, and that lists are put together without loss or duplicates."""

import os
import signal
import threading
import time

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from engine.distributed import Launch, Preemption, broadcast_object, connect, gather_objects, read_launch
from settings import ConfigError


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


def _exchange(rank, store):
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    mine = [{"id": i, "from": rank} for i in ((0, 1, 2) if rank == 0 else (3, 4))]
    together = gather_objects(mine)
    assert [(item["id"], item["from"]) for item in together] == [(0, 0), (1, 0), (2, 0), (3, 1), (4, 1)]
    assert gather_objects([torch.tensor(rank)]) == [torch.tensor(0), torch.tensor(1)]
    assert gather_objects([] if rank else ["only"]) == ["only"]
    assert broadcast_object({"from": rank}) == {"from": 0}
    dist.destroy_process_group()


def test_two_processes_gather_in_the_order_of_their_ranks(tmp_path):
    mp.spawn(_exchange, (str(tmp_path / "store"),), nprocs=2)


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
