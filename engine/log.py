"""What a run reports: log lines, a progress bar, one JSON line an epoch, TensorBoard and W&B, speed and memory."""

import json
import logging
import math
import secrets
import sys
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from files import atomic_write, without_secrets
from settings import ConfigError, needs_extra
from settings.messages import printable_lines

logger = logging.getLogger("blip.engine")


class _ConsoleHandler(logging.Handler):
    """Writes above the progress bar, if there is one, and to whatever standard output is at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(printable_lines(self.format(record), sys.stdout.encoding), file=sys.stdout)
        sys.stdout.flush()


def set_up_logging(rank: int) -> logging.Handler:
    """Log `blip.*` to the console: everything from the first process, warnings from the others. Returns the handler."""
    handler = _ConsoleHandler(logging.INFO if rank == 0 else logging.WARNING)
    origin = "" if rank == 0 else f" process {rank}"
    handler.setFormatter(logging.Formatter(f"%(asctime)s{origin} %(levelname).1s %(message)s", "%H:%M:%S"))
    root = logging.getLogger("blip")
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    return handler


def to_json(value: Any) -> str:
    """One line of JSON, in which a number that is infinite or NaN, which JSON lacks, is null."""
    return json.dumps(finite(value), allow_nan=False)


def finite(value: Any) -> Any:
    """Plain data with None for every number in it that is infinite or NaN."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: finite(part) for name, part in value.items()}
    return [finite(part) for part in value] if isinstance(value, list | tuple) else value


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file whole or not at all; see `to_json`."""
    with atomic_write(path) as temporary:
        temporary.write_text(to_json(value), encoding="utf-8")


class EpochLog:
    """Writes `log.txt`, one JSON object an epoch. A resumed run drops the lines of the epochs that it repeats."""

    def __init__(self, path: Path, first_epoch: int) -> None:
        self.path = path
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
        epochs = [_epoch(line) for line in lines]
        for number, epoch in enumerate(epochs, 1):
            if epoch is None and first_epoch:
                logger.warning("%s line %d is no line of an epoch, and is dropped", path, number)
        self._lines = [
            line for line, epoch in zip(lines, epochs, strict=True) if epoch is not None and epoch < first_epoch
        ]

    def write(self, values: dict[str, Any]) -> None:
        self._lines.append(to_json(values))
        with atomic_write(self.path) as temporary:
            temporary.write_text("\n".join(self._lines) + "\n", encoding="utf-8")


def _epoch(line: str) -> int | None:
    """The epoch that a line of `log.txt` reports; None of a damaged line."""
    try:
        epoch = json.loads(line)["epoch"]
    except (ValueError, TypeError, LookupError, RecursionError):
        return None
    return epoch if isinstance(epoch, int) else None


class Events:
    """Writes scalars to TensorBoard and Weights & Biases, as the config says, from the first process."""

    def __init__(self, folder: Path, config: dict[str, Any], steps_done: int, is_first: bool) -> None:
        self._tensorboard = self._wandb = None
        if config["tensorboard"] and is_first:
            with needs_extra("train", "tensorboard = True (write tensorboard=false to do without)"):
                from torch.utils.tensorboard import SummaryWriter

            # What a killed run drew beyond its last checkpoint is drawn again.
            self._tensorboard = SummaryWriter(str(folder), purge_step=steps_done + 1 if steps_done else None)
        if config["wandb"] and is_first:
            try:
                import wandb  # pyright: ignore[reportMissingImports]  # an optional package
            except ModuleNotFoundError:
                raise ConfigError(f"wandb = {config['wandb']!r} needs a package: `pip install wandb`") from None

            id_file = folder / "wandb_id.txt"  # a resumed run goes on in the same curves
            if not (steps_done and id_file.exists()):
                id_file.write_text(secrets.token_hex(4))
            try:
                self._wandb = wandb.init(
                    project=config["wandb"],
                    name=folder.name,
                    dir=folder,
                    config=_without_secrets(config),
                    id=id_file.read_text(),
                    resume="allow",
                )
            except wandb.Error as error:  # nobody is logged in, or there is no such project
                raise ConfigError(f"wandb = {config['wandb']!r}: {error}") from None
            # Its own count of steps never goes back, as a run does that was killed after its last checkpoint.
            self._wandb.define_metric("*", step_metric="step")

    def write(self, values: dict[str, float], step: int) -> None:
        if self._tensorboard:
            for name, value in values.items():
                self._tensorboard.add_scalar(name, value, step)
        if self._wandb:
            self._wandb.log({**values, "step": step})

    def close(self) -> None:
        if self._tensorboard:
            self._tensorboard.close()
        if self._wandb:
            self._wandb.finish()


class Speed:
    """Measures samples a second, MFU, the share of time spent waiting for data, and memory, between two reports.

    The times are exact since losses are fetched right before a report, which waits for all work on the device.

    Args:
        device: what this process computes on.
        samples_per_step: of all processes.
        peak: the FLOP/s that MFU is a share of; None where nobody asks for it.
    """

    def __init__(self, device: torch.device, samples_per_step: int, peak: float | None) -> None:
        self.device, self.samples_per_step, self.peak = device, samples_per_step, peak
        self.flops_per_step = 0  # of this process, once they are counted
        self.restart()

    def restart(self) -> None:
        self._began, self.steps, self.waited = time.perf_counter(), 0, 0.0

    def count_step(self) -> None:
        self.steps += 1

    def waited_a_step(self) -> float:
        """Seconds a step since the last report that went into waiting for data."""
        return self.waited / max(self.steps, 1)

    def report(self) -> dict[str, float]:
        """The figures since the last report, `s_per_step` (seconds a step) among them."""
        seconds = time.perf_counter() - self._began
        steps = max(self.steps, 1)
        figures = {
            "samples_per_s": self.steps * self.samples_per_step / seconds,
            "s_per_step": seconds / steps,
            "data_wait": self.waited / seconds,
        }
        if memory := peak_memory(self.device):
            figures["memory_gib"] = memory / 2**30
        if self.peak and self.flops_per_step:
            figures["mfu"] = self.steps * self.flops_per_step / seconds / self.peak
        self.restart()
        return figures


def _without_secrets(value: Any) -> Any:
    """A config for another machine: lists and dicts with no password or signature in any of their texts."""
    if isinstance(value, str):
        return without_secrets(value)
    if isinstance(value, dict):
        return {key: _without_secrets(item) for key, item in value.items()}
    return [_without_secrets(item) for item in value] if isinstance(value, (list, tuple)) else value


def peak_memory(device: torch.device) -> int:
    """The most memory that was in use, in bytes: of the GPU, or of this process; 0 on Windows, which does not tell."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ModuleNotFoundError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux KiB


class ProgressDisplay:
    """Shows how many of `steps` steps are done: a bar on a terminal, log lines elsewhere, nothing if not `shown`."""

    def __init__(self, title: str, steps: int, first: int = 0, shown: bool = True) -> None:
        self.title, self.steps, self.shown = title, steps, shown
        terminal = shown and sys.stderr.isatty()
        self._bar = tqdm(total=steps, initial=first, desc=title, dynamic_ncols=True) if terminal else None

    def advance(self) -> None:
        if self._bar is not None:
            self._bar.update()

    def report(self, step: int, text: str, seconds_left: float | None = None) -> None:
        """Show `text` behind the bar, or log a line: `step` steps done, `text`, and the time left."""
        if self._bar is not None:
            self._bar.set_postfix_str(text)
        elif self.shown:
            eta = "" if seconds_left is None else f"  ETA {timedelta(seconds=round(seconds_left))}"
            logger.info("%s [%d/%d]  %s%s", self.title, step, self.steps, text, eta)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def status_line(losses: dict[str, float], speed: dict[str, float], lr: float) -> str:
    """Losses, learning rate and speed in one line."""
    parts = [f"{name} {value:.4g}" for name, value in losses.items()]
    parts += [f"lr {lr:.3g}", f"{speed['samples_per_s']:.3g} samples/s"]
    if "mfu" in speed:
        parts.append(f"MFU {speed['mfu']:.1%}")
    if "memory_gib" in speed:
        parts.append(f"memory {speed['memory_gib']:.2f} GiB")
    parts.append(f"data wait {speed['data_wait']:.0%}")
    return "  ".join(parts)
