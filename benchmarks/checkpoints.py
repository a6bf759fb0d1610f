"""Checkpoints: how long training stands still for one, and how long until its file is whole.

    python -m benchmarks.checkpoints [--gigabytes 7.6] [--folder .] [--device auto]

A state of so many gigabytes is written into the folder, on whose disk the time depends, once while training waits and
once in the background. Steps of a small network are timed alone, and while the file is being written.
Results go to benchmarks/results/checkpoints.json.
"""

import argparse
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.measurement import RESULTS, machine, save
from engine import checkpoint
from engine.background import BackgroundSaver
from engine.device import choose_device
from settings.flags import Parser

_TENSOR = 1 << 20  # numbers in each tensor of the state, 4 MiB
_STEPS = 100  # that are timed alone
_WIDTH, _DEPTH, _BATCH = 512, 24, 64  # of the network: 10 to 100 ms a step on a CPU


class Steps:
    """A training of its own, whose steps are timed."""

    def __init__(self, device: torch.device) -> None:
        self.network = nn.Sequential(*(nn.Linear(_WIDTH, _WIDTH) for _ in range(_DEPTH))).to(device)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), fused=True)
        self.inputs = torch.randn(_BATCH, _WIDTH, device=device)

    def until(self, done: Callable[[int], bool]) -> float:
        """The median seconds of a step, of as many as it takes until `done` of their number."""
        seconds: list[float] = []
        while not done(len(seconds)):
            began = time.perf_counter()
            self.optimizer.zero_grad()
            loss = self.network(self.inputs).square().mean()
            loss.backward()
            self.optimizer.step()
            loss.item()  # waits for the device
            seconds.append(time.perf_counter() - began)
        return statistics.median(seconds)


def measure(state: dict[str, Tensor], folder: Path, device: torch.device) -> dict[str, float]:
    """Write the state in both ways -> seconds."""
    steps, saver, whole = Steps(device), BackgroundSaver(device), threading.Event()
    steps.until(lambda count: count == 10)
    found = {"step": steps.until(lambda count: count == _STEPS)}
    path = folder / "checkpoint_last.pth"

    def in_background() -> None:
        checkpoint.save(path, copied)
        whole.set()

    for name in ("first_copy", "copy"):  # the memory is allocated for the first, and used again
        saver.wait()
        whole.clear()
        began = time.perf_counter()
        copied = saver.copy(state)
        saver.write(in_background)
        found[name] = time.perf_counter() - began
        found["step_meanwhile"] = steps.until(lambda _: whole.is_set())
        found["whole"] = time.perf_counter() - began
    saver.wait()
    began = time.perf_counter()
    checkpoint.save(path, state)
    return found | {"foreground": time.perf_counter() - began}


def positive(text: str) -> float:
    """A type of flags: numbers above 0."""
    number = float(text)
    if not 0 < number < 1e6:
        raise argparse.ArgumentTypeError(f"{text} must be above 0")
    return number


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=positive, default=7.6)
    parser.add_argument("--folder", type=Path, default=Path(), help="a folder on the disk that is meant")
    parser.add_argument("--device", default="auto")
    flags = parser.parse_args()
    device = choose_device(flags.device)
    count = max(1, round(flags.gigabytes * 1e9 / (4 * _TENSOR)))
    state = {str(number): torch.randn(_TENSOR, device=device) for number in range(count)}
    with tempfile.TemporaryDirectory(dir=flags.folder) as name:
        seconds = measure(state, Path(name), device)
    measured = {
        "bytes": 4 * _TENSOR * count,
        "device": device.type,
        "machine": machine(device),
        "seconds": seconds,
    }
    print(json.dumps(measured, indent=2))
    save(RESULTS / "checkpoints.json", measured)


if __name__ == "__main__":
    main()
