"""`python -m demo [--quick] [--seed S] [--folder DIR]`: see the package's docstring."""

import argparse
import json
import logging
import os
import platform
import subprocess
import sys
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

import torch

import demo
from demo.recipe import FOLDER, FULL, QUICK, SEEDS, Step, next_commands, run
from engine.failure import exit_on_user_error
from files import REPOSITORY, atomic_write, open_regular
from settings import MissingPackage, needs_extra
from settings.flags import Parser, seed
from settings.messages import message

logger = logging.getLogger("blip.demo")

_OPTIONAL = ("av", "matplotlib", "pyarrow", "pycocoevalcap", "tensorboard")  # what the recipe or its report needs


def main(arguments: list[str] | None = None) -> None:
    parser = Parser(
        prog="python -m demo", description=demo.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small worlds and few steps: shows that all parts work")
    parser.add_argument("--seed", type=seed, default=0, help="of the worlds and of every training (default 0)")
    parser.add_argument("--folder", help=f"where everything is written (default {FOLDER}, with --quick {FOLDER}_quick)")
    parser.add_argument("--report", action="store_true", help="run nothing: write the report of what was run before")
    flags = parser.parse_args(arguments)
    if flags.seed >= SEEDS:
        parser.error(f"--seed {flags.seed} must be below 2**62")
    try:
        _check_packages()
    except MissingPackage as error:
        sys.exit(f"demo: {error}")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    logging.getLogger("tensorboard").setLevel(logging.WARNING)  # it says of each events file that none follows
    default = Path(f"{FOLDER}_quick") if flags.quick else FOLDER
    here = not flags.folder and Path.cwd() == REPOSITORY
    folder = default if here else Path(flags.folder or default).absolute()
    os.chdir(REPOSITORY)  # the configs' paths start from there
    if flags.report:
        try:
            _report(folder)
        except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
            reason = str(error).partition("\n")[0]
            sys.exit(message(f"demo: {folder} holds no whole run to report ({type(error).__name__}: {reason})"))
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # a ValueError for a NUL in the name
        parser.error(f"--folder {folder}: no folder can be made there ({getattr(error, 'strerror', None) or error})")
    with exit_on_user_error(None, 0):
        try:
            steps = list(run(folder, QUICK if flags.quick else FULL, flags.seed))
        except subprocess.CalledProcessError as error:
            sys.exit(f"demo: {error.cmd[-1]} ended with status {error.returncode}; its output stands above")
        record = {
            "seed": flags.seed,
            "quick": flags.quick,
            "machine": _machine(),
            "steps": [asdict(step) for step in steps],
        }
        with atomic_write(folder / "run.json") as path:
            path.write_text(json.dumps(record, indent=2), encoding="utf-8")
        _report(folder)


def _check_packages() -> None:
    """Raise MissingPackage for a package that is not installed: now, not when all is trained and the report is due."""
    for package in _OPTIONAL:
        with needs_extra("demo", "the demonstration"):
            import_module(package)


_NOTHING_LEARNED = "A quick run: all parts work, but so few steps learn nothing, and the scores say nothing."


def _report(folder: Path) -> None:
    from demo.page import write_report  # loads matplotlib, whose absence is told before

    file = folder / "run.json"
    if not file.exists():
        sys.exit(message(f"demo: {file} does not exist: nothing was run there, or not to its end"))
    with open_regular(file) as opened:
        record = json.loads(opened.read())
    steps = [Step(**step) for step in record["steps"]]
    about = f"Seed {record['seed']}; {record['machine']}."
    if record["quick"]:
        about += f" {_NOTHING_LEARNED}"
    scores = write_report(folder, steps, about)
    if record["quick"]:
        logger.info("%s", _NOTHING_LEARNED)
    for score in scores:
        beside = [
            f"{name} {value:.1f}"
            for name, value in (("guess", score.chance), ("target", score.target), ("from scratch", score.scratch))
            if value is not None
        ]
        logger.info("%-42s %6.1f   %s", score.name, score.value, "  ".join(beside))
    logger.info("%.1f minutes; open %s", sum(step.seconds for step in steps) / 60, folder / "report.html")
    activate = "`source .venv/bin/activate`, then " if Path(sys.prefix) == REPOSITORY / ".venv" else ""
    logger.info("Try next: %sfrom %s\n    %s", activate, REPOSITORY, "\n    ".join(next_commands(folder)))


def _machine() -> str:
    return f"{os.cpu_count()} CPU cores ({platform.machine()}), torch {torch.__version__}"


if __name__ == "__main__":
    main()
