"""Running the toy script: in this process, or under torchrun."""

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from files import REPOSITORY

SCRIPT = Path(__file__).parent / "toy.py"


@pytest.fixture(scope="session")
def toy() -> ModuleType:
    """The toy script as a module; `toy.main([...])` runs it in this process."""
    spec = importlib.util.spec_from_file_location("toy", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["toy"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def torchrun() -> Callable[..., subprocess.CompletedProcess]:
    """`torchrun(2, '--output_dir', ...)` runs the toy in so many processes and returns what they printed."""

    def run(processes: int, *arguments: str, restarts: int = 0) -> subprocess.CompletedProcess:
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        return subprocess.run(
            [sys.executable, *launcher, f"--max-restarts={restarts}", str(SCRIPT), *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


@pytest.fixture(autouse=True)
def _signals_of_this_process() -> Iterator[None]:
    """A run that a signal ended leaves signals ignored; the next test shall not."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
