"""Loader processes that die, cannot hand over a batch, or never deliver one."""

import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch

from engine import PREEMPTED
from engine.preemption import Preemption
from files import REPOSITORY
from tests.mounts import in_own_mounts

SETTINGS = ["max_epoch=2", "print_freq=5", "tensorboard=false", "num_workers=2"]

WIDE = """
import torch, sys
from data import loaders

class Wide(torch.utils.data.Dataset):
    def __len__(self):
        return 8
    def __getitem__(self, row):
        return torch.ones(1 << 20)
    def collate(self, samples):
        return {"image": torch.stack(samples)}

if sys.argv[1] == "late":  # as if the check before were passed, and the sending thread found no room
    loaders._share = lambda batch: None
from engine.failure import exit_on_user_error
with exit_on_user_error(None, 0):
    for batch in loaders.Batches(loaders._loader(Wide(), [[0, 1], [2, 3]], 1, False)):
        pass
    print("all", flush=True)
"""


def in_small_shared_memory(size, code, *arguments):
    """Run Python code where /dev/shm is so small, in a mount namespace of its own."""
    script = f'mount -t tmpfs -o size={size} tmpfs /dev/shm && exec "$@"'
    command = in_own_mounts(script, "sh", sys.executable, "-c", code, *arguments)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=90, check=False)


def test_small_shared_memory_ends_the_run_with_the_remedy():
    result = in_small_shared_memory("1m", WIDE, "early")
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "a loader worker cannot hand over a batch: " in result.stderr
    assert "/dev/shm has 1 of 1 MiB left. Give the machine more shared memory (Docker: --shm-size=8g" in result.stderr


def test_a_batch_that_its_sending_thread_loses_ends_the_run_too():
    result = in_small_shared_memory("1m", WIDE, "late")
    assert result.returncode == 1
    assert "(Docker: --shm-size=8g, or --ipc=host), lower num_workers or batch_size" in result.stderr
    assert "DataLoader worker (pid" in result.stderr.splitlines()[-1]


@pytest.mark.parametrize("size", ["4k", "32k"])
def test_no_shared_memory_even_for_the_start_of_a_worker_ends_the_run_with_the_remedy(size):
    result = in_small_shared_memory(size, WIDE, "early")
    assert result.returncode == 1
    said = "loader workers cannot be started: .*No space left on device.*--shm-size=8g"
    assert len(re.findall(said, result.stderr)) == 1, result.stderr


def test_enough_shared_memory_is_enough():
    assert in_small_shared_memory("64m", WIDE, "early").stdout == "all\n"


# A training, in a process of its own, whose workers are killed in its fourth step.
KILLED = """
import importlib.util, multiprocessing, os, sys, time

spec = importlib.util.spec_from_file_location("toy", "tests/engine/toy.py")
toy = sys.modules["toy"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(toy)

def train_step(config, last, model, batch, progress):
    if progress.step == 3:
        for worker in multiprocessing.active_children():
            os.kill(worker.pid, int(sys.argv[1]))
        time.sleep(1)
    return {"loss": model(batch["x"], batch["y"])}

toy.train_step = train_step
toy.main(sys.argv[2:])
"""


@pytest.mark.parametrize(
    ("signal_number", "said"), [(signal.SIGKILL, "killed by signal: Killed"), (signal.SIGBUS, "Bus error.*--shm-size")]
)
def test_a_killed_worker_ends_the_run_with_one_line(tmp_path, signal_number, said):
    command = [sys.executable, "-c", KILLED, str(int(signal_number)), "--output_dir", str(tmp_path), *SETTINGS]
    done = subprocess.run(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    line = done.stderr.splitlines()[-1]  # the dying worker may have a line of its own before it
    assert re.search(rf"DataLoader worker \(pid.*\).*({said}|exited unexpectedly)", line)
    assert "lower num_workers" in line


def stuck_at(toy, monkeypatch, sample, marker):
    """Let the reading of a sample hang, and the run get a signal a while after."""
    get = toy.Samples.__getitem__

    def get_or_hang(self, key):
        if key[1] == sample:
            marker.touch()
            time.sleep(60)
        return get(self, key)

    def send():
        while not marker.exists():
            time.sleep(0.01)
        time.sleep(1)  # in which the batches before are used
        signal.pthread_kill(threading.main_thread().ident, signal.SIGTERM)

    monkeypatch.setattr(toy.Samples, "__getitem__", get_or_hang)
    threading.Thread(target=send, daemon=True).start()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_signal_ends_a_run_whose_batch_never_comes(toy, tmp_path, monkeypatch, workers):
    settings = ["--output_dir", str(tmp_path), *SETTINGS[:-1], f"num_workers={workers}"]
    with monkeypatch.context() as patch:
        stuck_at(toy, patch, sample=7, marker=tmp_path / "stuck")
        began = time.monotonic()
        with pytest.raises(SystemExit) as stopped:
            toy.main(settings)
        assert time.monotonic() - began < 40
    assert stopped.value.code == PREEMPTED
    done = toy.shuffled(48, (42, 0)).tolist().index(7) // 4
    assert torch.load(tmp_path / "checkpoint_last.pth", weights_only=True)["step"] == done
    toy.main([*settings, "--resume"])
    assert torch.load(tmp_path / "checkpoint_last.pth", weights_only=True)["step"] == 24


def test_a_batch_read_for_a_step_that_a_signal_prevents_is_counted_once(toy, tmp_path, monkeypatch):
    settings = ["--output_dir", str(tmp_path), *SETTINGS[:-1], "accumulation_steps=2"]
    order = toy.shuffled(48, (42, 0)).tolist()
    with monkeypatch.context() as patch:
        stuck_at(toy, patch, sample=order[5 * 4], marker=tmp_path / "stuck")  # in the second batch of step 2
        with pytest.raises(SystemExit):
            toy.main(settings)
    stopped = torch.load(tmp_path / "checkpoint_last.pth", weights_only=True)
    assert (stopped["step"], stopped["loaders"]) == (2, [{"batches": 4}])
    toy.main([*settings, "--resume"])
    assert torch.load(tmp_path / "checkpoint_last.pth", weights_only=True)["loaders"] == [{"batches": 24}]


@pytest.mark.parametrize("system", ["POSIX", "Windows"])
def test_one_of_several_processes_waits_a_while_for_its_batch_after_a_signal(monkeypatch, system):
    if system == "Windows":
        monkeypatch.delattr(signal, "pthread_kill")
    monkeypatch.setattr("engine.preemption.world_size", lambda: 2)
    monkeypatch.setattr(Preemption, "PATIENCE", 0.5)
    preemption = Preemption()
    began = time.monotonic()
    with pytest.raises(BaseException) as stopped, preemption.awaiting_batch():  # noqa: PT011, PT012
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)  # in which the batch could have come
        for _ in range(20 if system == "Windows" else 1):  # there, the loader looks for its workers again and again
            time.sleep(0.5 if system == "Windows" else 10)
    assert type(stopped.value).__name__ == "Interrupted"
    assert 0.4 < time.monotonic() - began < 5
