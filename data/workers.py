"""How many loader processes `num_workers: auto` means, from the processors that a training process has to itself."""

import functools
import logging
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

logger = logging.getLogger("blip.data")

_MOST = 16
"""More than any GPU is fed by: they read about 6,000 pictures of 640x480 a second."""

_CONTROL_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUPS = Path("/proc/self/cgroup")


def resolve_workers(num_workers: int | Literal["auto"]) -> int:
    """The number of loader processes of this process; what 'auto' comes to is logged, once a run."""
    return _automatic() if num_workers == "auto" else num_workers


@functools.cache
def _automatic() -> int:
    processors, processes = usable_processors(), processes_here(os.environ)
    workers = automatic_workers(processors, processes)
    logger.info("num_workers: auto is %d here: %d processor(s), %d process(es)", workers, processors, processes)
    return workers


def automatic_workers(processors: int, processes: int) -> int:
    """Loader processes for each of the `processes` that share `processors`: all but the one it runs on, at least 1."""
    return min(max(processors // processes - 1, 1), _MOST)


def usable_processors() -> int:
    """The processors that this process may use: fewer than there are where a scheduler or a container limits it."""
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows
        allowed = os.cpu_count() or 1
    return max(math.floor(min(allowed, control_group_limit(_CONTROL_GROUPS, _OWN_GROUPS))), 1)


def processes_here(environ: Mapping[str, str]) -> int:
    """The processes of this run that share the processors which this one sees, by torchrun's or SLURM's variables."""
    if "RANK" in environ:
        found = environ.get("LOCAL_WORLD_SIZE", "1")
    elif "SLURM_STEP_NUM_TASKS" in environ and "SLURM_CPUS_PER_TASK" not in environ:
        found = environ.get("SLURM_STEP_TASKS_PER_NODE", "1")  # 8(x3),4: three nodes with 8, one with 4
    else:  # a process alone, or one that srun gave processors of its own
        return 1
    return max([1, *map(int, re.findall(r"\b[0-9]+", found))])


def control_group_limit(mounted: Path, own: Path) -> float:
    """How many processors' time the control groups of a process allow, infinite where they set no limit.

    `mounted` is where the groups are mounted, `own` the file that names those of the process. Containers (Docker's
    `--cpus`, Kubernetes) and systemd limit time in this way, which leaves all processors visible.
    """
    try:
        lines = own.read_text().splitlines()
    except OSError:  # no Linux
        return math.inf
    least = math.inf
    for line in lines:
        controllers, _, path = line.partition(":")[2].partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = mounted / controllers
        # Inside a container the path may be the host's; the container's own group is then the top.
        folder = top / path.lstrip("/")
        for group in (folder, *folder.parents):
            least = min(least, _limit(group))
            if group == top:
                break
    return least


def _limit(group: Path) -> float:
    """The limit of one control group, of either version."""
    try:
        if (file := group / "cpu.max").exists():
            quota, period = file.read_text().split()
        else:
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return int(quota) / int(period) if int(quota) > 0 else math.inf
    except (OSError, ValueError, ZeroDivisionError):  # no limit (max), or no such files
        return math.inf
