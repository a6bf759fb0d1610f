"""What all benchmarks share: the clock, the machine and the code they ran on, and the file of their figures."""

import json
import os
import platform
import subprocess
import time
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from files import REPOSITORY, atomic_write

RESULTS = REPOSITORY / "benchmarks" / "results"  # the committed figures, of which docs/performance.md tells

# whose versions decide speed; without simplejpeg, Pillow decodes for the loader
_PACKAGES = ("torch", "torchvision", "timm", "transformers", "tokenizers", "pillow", "simplejpeg")


def machine(device: torch.device | None = None) -> dict[str, str | int]:
    """The processor (and the GPU that was used), its cores and threads, and the versions that decide speed."""
    found: dict[str, str | int] = {
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
    }
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    if device is not None and device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
        found["cuda"] = str(torch.version.cuda)
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


@cache
def commit() -> str | None:
    """The commit of this code, with `+` where files differ from it; None outside of a git checkout.

    It is asked for once: the results that a run writes differ from the commit, too.
    """
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--abbrev=10", "--exclude=*", "--dirty=+"],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return None
    return done.stdout.strip() or None


def clock(device: torch.device) -> float:
    """Seconds: on a CPU the processor time of this process, to which other programs add nothing; on a GPU wall time."""
    if device.type == "cpu":
        return time.process_time()
    torch.accelerator.synchronize(device)
    return time.perf_counter()


def save(path: Path, result: Mapping[str, Any]) -> None:
    """Write a benchmark's figures as JSON."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"written to {path}")
