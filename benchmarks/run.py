"""Measure this code on this machine: each job against its baseline, in alternating rounds of one run.

    python -m benchmarks.run                                   # everything; results go to benchmarks/results
    python -m benchmarks.run --device cuda --budget 480        # on a GPU, within 8 minutes
    python -m benchmarks.run --only steps --budget 600         # training steps
    python -m benchmarks.run --only rerank caption --precision bf16
    python -m benchmarks.run --sizes tiny                      # whether everything runs; its times mean nothing

Both sides of a comparison have the same weights, inputs and precision. The baseline is the textbook way
(benchmarks/textbook), and Hugging Face's model where it has the job; their results are compared, and in fp32 a
difference above 1e-4 fails the job. The checks (benchmarks/checks.py) compare precisions, compilation, checkpointing
and resuming with plain fp32 training. On a CPU one thread is used, and processor time is measured.

Results are written as they come, a JSON file a comparison. `python -m benchmarks.pages` then brings the tables of
README.md and docs/performance.md up to date. The budget counts from the start of Python, and what is not done when it
ends is ended. What it does not suffice for, or a missing package prevents, is named at the end. The exit status is 1 if
a job or a check failed.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks import BEGAN
from benchmarks.checks import CHECKS, SLOW_CHECKS
from benchmarks.context import Context
from benchmarks.jobs import JOBS
from benchmarks.measurement import RESULTS, machine
from benchmarks.session import Session
from engine.device import choose_device
from engine.failure import exit_on_user_error
from files import REPOSITORY
from prediction.writers import check_outputs
from settings import UserError
from settings.flags import Parser, at_least

LAST_GROUPS = ("compile", "loader")  # minutes of compiling, and what needs no GPU: after all that tells more
GROUPS = ("checks", *dict.fromkeys(job.group for job in JOBS))
NAMES = (*GROUPS, *(check.__name__ for check in CHECKS), *(job.name for job in JOBS))


def main(arguments: Sequence[str] | None = None) -> None:
    flags = _parse(arguments)
    torch.set_num_threads(1)
    with exit_on_user_error(None, 0):
        device = choose_device(flags.device)
    precision = flags.precision or ("bf16" if device.type == "cuda" else "fp32")
    deadline = BEGAN + (flags.budget or float("inf"))
    chosen = set(flags.only or GROUPS)
    with tempfile.TemporaryDirectory() as folder:
        context = Context(device, precision, flags.sizes == "tiny", Path(folder))
        print(", ".join(f"{name} {value}" for name, value in machine(device).items()), flush=True)
        session = Session(context, flags.out, flags.rounds, deadline)
        all_checks = {check.__name__ for check in CHECKS}
        checks = all_checks if "checks" in chosen else all_checks & chosen
        jobs = [job for job in JOBS if chosen & {job.name, job.group}]
        last = sum(job.group in LAST_GROUPS for job in jobs)
        session.check(checks - SLOW_CHECKS)  # first: whether it runs at all
        for jobs_left in range(len(jobs), last, -1):
            session.run(jobs[-jobs_left], jobs_left)
        session.check(checks & SLOW_CHECKS)
        for jobs_left in range(last, 0, -1):
            session.run(jobs[-jobs_left], jobs_left)
    sys.exit(session.summary())


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default: %(default)s)")
    parser.add_argument("--only", nargs="+", choices=NAMES, metavar="NAME", help=f"some of: {', '.join(NAMES)}")
    parser.add_argument("--budget", type=at_least(1), metavar="SECONDS", help="of the command; what runs then is ended")
    parser.add_argument("--rounds", type=at_least(1), default=5, help="at most, while time is left (default: 5)")
    parser.add_argument("--precision", choices=["fp32", "bf16", "fp16"], help="default: bf16 on a GPU, fp32 on a CPU")
    parser.add_argument("--sizes", choices=["full", "tiny"], default="full", help="(default: full)")
    parser.add_argument("--out", type=writable_folder, help="folder of the results (default: benchmarks/results)")
    flags = parser.parse_args(arguments)
    if flags.out is None:
        flags.out = RESULTS if flags.sizes == "full" else REPOSITORY / "output" / "benchmarks"
    return flags


def writable_folder(path: str) -> Path:
    """A type of flags: a folder that figures can be written to, which is tried before minutes of measuring."""
    try:
        check_outputs([Path(path) / "result.json"], [])
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return Path(path)


if __name__ == "__main__":
    main()
