"""One run of `benchmarks.run`: jobs and checks one after the other, until the budget ends."""

import contextlib
import gc
import time
import traceback
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch

from benchmarks.budget import BudgetEnded, ends_at
from benchmarks.checks import CHECKS, Finding, run_check
from benchmarks.comparison import Comparison, NoTime, measure
from benchmarks.context import Context
from benchmarks.jobs import Job
from benchmarks.measurement import commit, machine, save
from benchmarks.tables import comparison_table
from engine.device import matrix_product_rate


class Session:
    """What was measured, what failed and what was left out.

    Args:
        out: folder of the results.
        rounds: how often each way is timed at most.
        deadline: on the clock `time.monotonic`; what would end after it is left out, and what does not end then is
            ended.
    """

    def __init__(self, context: Context, out: Path, rounds: int, deadline: float) -> None:
        self.context, self.out, self.rounds, self.deadline = context, out, rounds, deadline
        self.results: list[dict[str, Any]] = []
        self.failed: list[str] = []
        self.left_out: list[str] = []
        self._found: dict[str, Any] = {}  # by the checks
        by = time.process_time if context.device.type == "cpu" else time.perf_counter
        self.peak = matrix_product_rate(context.device, context.dtype, by)
        print(f"fastest matrix product in {context.precision}: {self.peak / 1e12:.3g} TFLOP/s", flush=True)

    def run(self, job: Job, jobs_left: int = 1) -> None:
        """Measure the comparisons of a job. They may take an equal share of what is left of the budget, for rounds."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            self.left_out.append(f"{job.name}: the budget is used up")
            return
        rounds_end = time.monotonic() + left / jobs_left
        try:
            with ends_at(self.deadline):
                for comparison in job.prepare(self.context):
                    self._measure(comparison, rounds_end)
        except BudgetEnded:
            self.left_out.append(f"{job.name}: the budget ended while it ran")
        except (NoTime, ImportError) as reason:  # an ImportError names the package that is missing
            self.left_out.append(f"{job.name}: {reason}")
        except Exception as error:  # the other jobs still have something to tell
            traceback.print_exc()
            self.failed.append(f"{job.name}: {type(error).__name__}: {error}")
        self._free_memory()

    def _measure(self, comparison: Comparison, rounds_end: float) -> None:
        result = measure(comparison, self.context, self.peak, self.rounds, self.deadline, rounds_end)
        self.results.append(result)
        print(f"\n{comparison_table([result])}", flush=True)
        where = "-".join(part for part in (result["device"], result["precision"]) if part)
        save(self.out / f"{comparison.name}-{where}.json", result)

    def check(self, names: Collection[str]) -> None:
        """Run the checks of these names, and write what each found."""
        for check in CHECKS:
            name = check.__name__
            if name not in names:
                continue
            if time.monotonic() >= self.deadline:
                self.left_out.append(f"check {name}: the budget is used up")
                continue
            began = time.monotonic()
            try:
                with ends_at(self.deadline):
                    finding = run_check(check, self.context)
            except BudgetEnded:
                self.left_out.append(f"check {name}: the budget ended while it ran")
            except ImportError as missing:
                self.left_out.append(f"check {name}: {missing}")
            else:
                self._record(name, finding, time.monotonic() - began)
            self._free_memory()

    def _record(self, name: str, finding: Finding, seconds: float) -> None:
        print(f"{'pass' if finding.passed else 'FAIL'}  {name}: {finding.text}", flush=True)
        if not finding.passed:
            self.failed.append(f"check {name}: {finding.text}")
        self._found[name] = {"passed": finding.passed, "found": finding.text, "seconds": round(seconds, 1)}
        about = {"machine": machine(self.context.device), "commit": commit()}
        save(self.out / f"checks-{self.context.device.type}.json", {"checks": self._found, **about})

    def _free_memory(self) -> None:
        gc.collect()
        if self.context.device.type == "cuda":
            with contextlib.suppress(RuntimeError):  # after some errors CUDA does nothing more, and this is no news
                torch.cuda.empty_cache()

    def summary(self) -> int:
        """Print everything that was measured, and what was not; the exit status."""
        if self.results:
            print(f"\n{comparison_table(self.results)}")
        for title, names in (("left out", self.left_out), ("FAILED", self.failed)):
            for name in names:
                print(f"{title}: {name}")
        return 1 if self.failed else 0
