"""One run at a time writes to an output folder; a run that is dead holds nothing."""

import contextlib
import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import BaseFileLock

import engine
from engine import lock
from files import REPOSITORY
from settings import ConfigError

SETTINGS = ["max_epoch=2", "print_freq=5", "tensorboard=false"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}


@contextlib.contextmanager
def running(toy, folder, *arguments, workers=0):
    """A run that stands still before its fourth step, and is killed at the end of the block."""
    settings = [*SETTINGS, "stop_at=3", "stop_by=SIGSTOP", f"num_workers={workers}"]
    command = [sys.executable, toy.__file__, "--output_dir", str(folder), *settings, *arguments]
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            while "T" not in Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]:
                assert process.poll() is None
                time.sleep(0.05)
            yield process
        finally:
            process.kill()


@pytest.fixture(autouse=True)
def _short_patience(monkeypatch):
    monkeypatch.setattr(lock, "PATIENCE", 1.0)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="watches the state of a process in /proc")
def test_a_second_run_names_the_first_until_that_is_dead_its_loader_workers_alive_or_not(toy, tmp_path):
    with running(toy, tmp_path, workers=2) as first:
        who = rf"process {first.pid} on {socket.gethostname()}, started .* writes to {tmp_path}, and two would mix"
        for arguments in ([], ["--resume"], ["--evaluate"]):
            with pytest.raises(SystemExit, match=who):
                toy.main(["--output_dir", str(tmp_path), *SETTINGS, *arguments])
        assert not (tmp_path / "refused").exists()  # by which a restart of the first would refuse its own checkpoint
        first.send_signal(signal.SIGKILL)
        toy.main(["--output_dir", str(tmp_path), *SETTINGS, "--resume"])
    assert len((tmp_path / "log.txt").read_text().splitlines()) == 2


def test_of_two_runs_started_at_once_one_trains(toy, tmp_path):
    command = [sys.executable, toy.__file__, "--output_dir", str(tmp_path), *SETTINGS, "max_epoch=100"]
    both = [subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=120)[1] for process in both]
    assert sorted(process.returncode for process in both) == [0, 1], said
    refused = next(text for process, text in zip(both, said, strict=True) if process.returncode == 1)
    winner = next(process for process in both if process.returncode == 0)
    assert (
        refused.startswith(f"toy.py: another run (process {winner.pid} on ") or "belongs to an earlier run" in refused
    )
    assert "Traceback" not in refused
    assert len((tmp_path / "log.txt").read_text().splitlines()) == 100


def test_all_processes_of_a_second_run_end_and_one_says_why(toy, torchrun, tmp_path):
    with running(toy, tmp_path) as first:
        result = torchrun(2, "--output_dir", tmp_path, *SETTINGS)
    own, _, torchruns = result.stderr.partition("ChildFailedError")
    assert own.count(f"another run (process {first.pid} on ") == 1
    assert 'toy.py", line' not in result.stderr
    assert result.returncode == 1


REFUSALS = [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS]


@pytest.fixture(params=[*REFUSALS, "no answer"])
def without_locks(request, monkeypatch):
    """A file system that refuses locks, or whose server does not answer."""

    def refuse(*_):
        if request.param == "no answer":
            return time.sleep(20)
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "lockf", refuse)
    monkeypatch.setattr(lock, "PATIENCE", 0.1)


def test_a_file_system_without_locks_is_worked_on_with_a_lease(without_locks, toy, tmp_path, capsys):
    toy.main(["--output_dir", str(tmp_path), *SETTINGS])
    said = capsys.readouterr().out
    assert said.count(f"{tmp_path}/.lock cannot be locked (") == 1
    assert "the file .lease there takes its place" in said
    assert not (tmp_path / ".lease").exists()


HOLD = """
import sys
from filelock import SoftFileLease
with SoftFileLease(sys.argv[1], lease_duration=30.0):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("without_locks", [errno.ENOLCK], indirect=True)
def test_a_lease_refuses_a_second_run_until_the_first_is_dead(without_locks, tmp_path, monkeypatch):
    (tmp_path / ".lock").write_text('{"host": "far", "pid": 7, "started": "today"}')
    command = [sys.executable, "-c", HOLD, str(tmp_path / ".lease")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        assert first.stdout.readline() == b"held\n"
        with monkeypatch.context() as impatient:
            impatient.setattr(lock.SoftFileLease, "acquire", lambda lease, timeout: BaseFileLock.acquire(lease, 0.5))
            with pytest.raises(ConfigError, match=rf"another run \(process 7 on far, .* writes to {tmp_path}"):
                lock.FolderLock().take(tmp_path)
        first.kill()
        first.wait()
        second = lock.FolderLock()
        second.take(tmp_path)
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()
        second.release()


def test_the_next_run_in_this_process_may_take_the_folder(tmp_path):
    for _ in range(2):
        with engine.start(engine.RunConfig, None, None, str(tmp_path), []):
            assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()


def test_a_lock_that_does_not_say_who_holds_it_is_a_lock(tmp_path):
    (tmp_path / ".lock").write_text("{")
    assert ".lock does not say which" in lock._refusal(tmp_path)
