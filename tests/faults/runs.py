"""Running a script that a fault will befall: started, watched, ended in time, with no process left behind."""

import contextlib
import os
import resource
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from files import REPOSITORY

SEED = int(os.environ.get("FAULTS_SEED", "20261130"))  # of every random moment, place and size
TOY = str(REPOSITORY / "tests" / "engine" / "toy.py")
MARK = "FAULT_RUN"


def script(name: str, *arguments: object, processes: int = 1) -> list[str]:
    """The command that runs a script of the repository, or a file given by its whole path."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"] if processes > 1 else []
    return [sys.executable, *launcher, str(REPOSITORY / name), *map(str, arguments)]


class Started:
    """A run in a session of its own. `end` waits for it, so long at most, and for all that it has started."""

    def __init__(self, command: Sequence[str], cwd: Path, *, file_bytes: int | None = None, **environment: str) -> None:
        self.mark = secrets.token_hex(8)
        self._printed = tempfile.TemporaryFile()  # noqa: SIM115

        def prepare() -> None:
            signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background jobs
            if file_bytes is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))

        # No PATH: evaluations would start Java, which costs seconds.
        known = {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PATH": ""}
        self.process = subprocess.Popen(
            command,
            cwd=cwd,
            env={**os.environ, **known, MARK: self.mark, **environment},
            stdout=self._printed,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=prepare,
        )

    @property
    def printed(self) -> str:
        return os.pread(self._printed.fileno(), 1 << 24, 0).decode("utf-8", "replace")

    def processes(self) -> dict[int, dict[str, str]]:
        """Every process of this run that lives, by its id, with its variables."""
        mine = {}
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                lines = (folder / "environ").read_bytes().decode("utf-8", "replace").split("\0")
                variables = dict(line.partition("=")[::2] for line in lines if "=" in line)
                if variables.get(MARK) == self.mark:
                    mine[int(folder.name)] = variables
        return mine

    def rank(self, rank: int) -> int:
        """The process of that rank: the one whose parent is the launcher."""
        (pid,) = [
            pid
            for pid, variables in self.processes().items()
            if variables.get("RANK") == str(rank) and parent(pid) == self.process.pid
        ]
        return pid

    def wait_for(self, happens: Callable[[], Any], seconds: float = 120.0) -> Any:
        """Wait until `happens()` is true, and return it; fail where the run ends before."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if found := happens():
                return found
            if self.process.poll() is not None:
                break
            time.sleep(0.001)
        self.kill()
        return pytest.fail(f"ended, or {seconds:g} s over, before the moment of the fault:\n{self.printed}")

    def end(self, seconds: float = 120.0) -> tuple[int, str]:
        """Exit status, and all that was printed."""
        try:
            status = self.process.wait(seconds)
            deadline = time.monotonic() + 15
            while (left := self.processes()) and time.monotonic() < deadline:
                time.sleep(0.05)
        except subprocess.TimeoutExpired:
            pytest.fail(f"still running after {seconds:g} s:\n{self.printed}")
        finally:
            self.kill()
        assert not left, f"left running: {sorted(left)}\n{self.printed}"
        return status, self.printed

    def kill(self) -> None:
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def run(command: Sequence[str], cwd: Path, *, seconds: float = 180.0, **environment: str) -> tuple[int, str]:
    return Started(command, cwd, **environment).end(seconds)


def finish(command: Sequence[str], cwd: Path) -> str:
    """Run a command that has to succeed; what it printed."""
    status, printed = run(command, cwd)
    assert status == 0, printed
    return printed


def tensors(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf of a checkpoint, with its place in it."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from tensors(item, f"{place}/{key}")
    elif isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            yield from tensors(item, f"{place}/{number}")
    else:
        yield place, value


def assert_same_end(whole: Path, other: Path, *, ignored: tuple[str, ...] = ("/config",)) -> None:
    """The last checkpoints are bitwise equal (weights, moments, random numbers, losses), and so are the logs."""
    one, two = (
        dict(tensors(torch.load(folder / "checkpoint_last.pth", weights_only=True))) for folder in (whole, other)
    )
    assert one.keys() == two.keys()
    for place, value in one.items():
        if not place.startswith(ignored):
            same = torch.equal(value, two[place]) if isinstance(value, torch.Tensor) else value == two[place]
            assert same, place
    assert (whole / "log.txt").read_text() == (other / "log.txt").read_text()
    left = [path.name for path in other.glob(".*") if path.name != ".lock"]
    assert left == []


def one_line_of(printed: str, script_name: str) -> str:
    """The line by which a script ends for a reason that its user can mend; there is one, and no traceback of ours."""
    own = printed.partition("ChildFailedError")[0]
    lines = [line for line in own.splitlines() if line.startswith(script_name)]
    assert len(lines) == 1, printed
    assert f'{script_name}", line' not in printed, printed
    return lines[0]
