"""What the last steps were given, so that one whose loss or gradient is not finite can be done again."""

import contextlib
import os
import shlex
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engine import checkpoint
from engine.config import TrainConfig
from engine.device import precision_of
from engine.distributed import gather_objects
from engine.failure import explain
from engine.progress import Progress
from engine.randomness import rng_state
from engine.run import CONFIG, REPLAYED, Run
from files import atomic_write
from settings import UserError

_FILES_ON_A_LINE = 4  # of a message


class NotFinite(UserError, FloatingPointError):
    """A loss or a gradient became infinite or NaN."""


@dataclass
class _Step:
    """What this process was given for a step, and the guard's answer.

    The answer of a CUDA device is on the host as soon as `arrived` has happened; that of another device stays there.
    """

    progress: Progress
    lr: float
    batches: list[dict[str, Any]]
    rng: dict[str, Any]
    broken: Tensor | None = None
    arrived: torch.cuda.Event | None = None

    @property
    def was_finite(self) -> bool | None:
        """None as long as the host does not know."""
        if self.broken is None or self.broken.device.type != "cpu":
            return None
        if self.arrived is not None and not self.arrived.query():
            return None
        return not self.broken


class StepRecorder:
    """Keeps what each step is given until it is known to be finite, which costs no wait: on a GPU a few steps later."""

    def __init__(self, run: Run[TrainConfig]) -> None:
        self.run = run
        self._steps: deque[_Step] = deque()

    def begin(self, batches: list[dict[str, Any]], progress: Progress, lr: float) -> None:
        """Keep what the step that now begins is given."""
        self._steps.append(_Step(progress, lr, batches, rng_state()))

    def end(self, broken: Tensor) -> None:
        """Fetch the guard's answer to the step that has just been given to the device: a scalar, 0 if it is finite."""
        step = self._steps[-1]
        if broken.device.type == "cuda":
            step.broken = torch.empty_like(broken, device="cpu", pin_memory=True).copy_(broken, non_blocking=True)
            step.arrived = torch.cuda.Event()
            step.arrived.record()
        else:
            step.broken = broken.clone()

    def drop_finite(self) -> None:
        """Forget the steps that are known to be finite by now; after one that is not, forget all that follow."""
        while self._steps and self._steps[0].was_finite:
            self._steps.popleft()
        if self._steps and self._steps[0].was_finite is False:
            self._steps = deque([self._steps[0]])

    @contextlib.contextmanager
    def replayable(self, model: nn.Module) -> Iterator[None]:
        """For a fetch of losses: where it raises NotFinite, write that step down, and add how to do it again.

        Inside, all processes raise NotFinite, or none.
        """
        try:
            yield
        except NotFinite as error:
            advice = self._write(model)
            raise NotFinite(f"{error}\n{gather_objects([advice])[0]}") from None
        self._steps.clear()  # all finite; elsewhere than on CPU and CUDA this is the first that is known of them

    def _write(self, model: nn.Module) -> str:
        """Write the first step that was not finite into a folder of its own; returns what to tell the user."""
        step = next(step for step in self._steps if step.broken is not None and step.broken)  # all have arrived
        folder = self.run.output_dir / f"nonfinite_step_{step.progress.step}"
        reason = None
        try:
            folder.mkdir(exist_ok=True)
            if self.run.is_first:
                _save(folder / REPLAYED, self._shared(step, model))
            _save(process_file(folder, self.run.rank), {"batches": step.batches, "rng": step.rng})
        except OSError as error:
            reason = explain(error) or str(error)
        reasons = [reason for reason in gather_objects([reason]) if reason]
        if reasons:
            return f"The step cannot be replayed, for it cannot be written down ({reasons[0]})."
        flags = {"config": self.run.output_dir / CONFIG, "output_dir": self.run.output_dir, "replay": folder}
        named = [text for name, value in flags.items() for text in (f"--{name}", str(value))]
        command = [sys.executable, sys.argv[0], *named, "--device", self.run.device.type]
        return (
            "To replay this step alone, in one process, which names the first layer that is not finite:\n"
            f"  cd {shlex.quote(os.getcwd())} && {shlex.join(command)}"
        )

    def _shared(self, step: _Step, model: nn.Module) -> dict[str, Any]:
        """What is the same on all processes.

        The guard keeps what is trained as it was before the step. Queues and momentum copies have moved on until now:
        they are close to what they were, and what is not finite in them is a consequence of the step, made zero here.
        """
        dtype = str(precision_of(self.run.config.precision, self.run.device)).removeprefix("torch.")
        weights = model.state_dict()
        return {
            "model": {name: torch.nan_to_num(x, 0.0, 0.0, 0.0) for name, x in weights.items()},
            "progress": asdict(step.progress),
            "lr": step.lr,
            "processes": self.run.world_size,
            "precision": {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}[dtype],
        }


def process_file(folder: Path, rank: int) -> Path:
    """Where what process `rank` was given is written."""
    return folder / f"process_{rank}.pth"


def _save(path: Path, state: dict[str, Any]) -> None:
    with atomic_write(path) as temporary:
        checkpoint.write(state, temporary)


def report(rank: int, values: dict[str, float], files: list[str]) -> str:
    """What a process computed in a step that is not finite, from which files; a few on a line, lest it be cut."""
    listed = " ".join(f"{name}={value:g}" for name, value in values.items())
    lines = [", ".join(files[i : i + _FILES_ON_A_LINE]) for i in range(0, len(files), _FILES_ON_A_LINE)]
    return f"process {rank}: {listed}; files:\n      " + ("\n      ".join(lines) or "not named by the batch")
