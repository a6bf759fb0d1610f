"""What all benchmarks share: command line, timing, the machine they ran on, and the file of their figures."""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from engine.device import choose_device, precision_of
from engine.failure import exit_on_user_error
from files import REPOSITORY, atomic_write
from prediction.writers import check_outputs
from settings import UserError
from settings.flags import Parser, at_least


def command_line(description: str | None, results: str, rounds: int) -> argparse.ArgumentParser:
    """A parser with the flags of every benchmark of a model; its figures go to the file `results`, or `--out`."""
    parser = Parser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=at_least(1), default=rounds)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16", "fp16"])
    parser.add_argument("--out", type=writable, default=REPOSITORY / "benchmarks/results" / results)
    return parser


def writable(path: str) -> Path:
    """A type of flags: a file that figures can be written to, which is tried before minutes of measuring."""
    try:
        check_outputs([Path(path)], [])
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return Path(path)


def prepare(flags: argparse.Namespace) -> tuple[torch.device, torch.dtype]:
    """The device and the precision that the flags ask for; one thread, and the same random weights each time."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with exit_on_user_error(None, 0):
        device = choose_device(flags.device)
    return device, precision_of(flags.precision, device)


def machine(device: torch.device | None = None) -> dict[str, str | int]:
    """The processor (and the GPU that was used), its cores and threads, and the versions that decide speed."""
    found: dict[str, str | int] = {
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    if device is not None and device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def clock(device: torch.device) -> float:
    """Seconds: on a CPU the processor time of this process, to which other programs add nothing; on a GPU wall time."""
    if device.type == "cpu":
        return time.process_time()
    torch.accelerator.synchronize(device)
    return time.perf_counter()


def seconds(ways: Mapping[str, Callable[[], Any]], rounds: int, device: torch.device) -> dict[str, float]:
    """The least time of each way over `rounds` rounds, by `clock`; they take turns. On a CPU give them one thread."""
    least = dict.fromkeys(ways, float("inf"))
    for number in range(rounds + 1):
        for name, way in ways.items():
            start = clock(device)
            way()
            elapsed = clock(device) - start
            if number:  # the first round warms up
                least[name] = min(least[name], elapsed)
    return least


def save(path: Path, result: Mapping[str, Any]) -> None:
    """Write a benchmark's figures as JSON."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"written to {path}")
