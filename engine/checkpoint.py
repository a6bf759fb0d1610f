"""Checkpoint files: written whole or not at all, the newest kept, and read again to resume from."""

import os
import pickle
from pathlib import Path
from typing import Any

import torch

from files import atomic_write
from settings import ConfigError

LAST = "checkpoint_last.pth"


def save(path: Path, state: dict[str, Any]) -> None:
    """Write `state` (tensors and plain values, so that `torch.load` reads it with `weights_only=True`)."""
    with atomic_write(path) as temporary:
        torch.save(state, temporary)


def save_last(folder: Path, state: dict[str, Any], keep: int) -> None:
    """Write `checkpoint_last.pth`; its `keep - 1` predecessors stay as `checkpoint_step_STEP.pth`."""
    last = folder / LAST
    with atomic_write(last) as temporary:
        torch.save(state, temporary)
        if keep > 1 and last.exists():
            # Until the new file takes the name, a reader finds this one: see newest().
            os.replace(last, folder / f"checkpoint_step_{_step(last):09d}.pth")
    for old in _earlier(folder)[keep - 1 :]:
        old.unlink()


def remove_unfinished(folder: Path) -> None:
    """Delete the temporary files of processes that were killed while writing a checkpoint (`files.atomic_write`)."""
    for path in folder.glob(".????????.checkpoint_*.pth"):
        path.unlink()


def newest(folder: Path) -> Path | None:
    """The newest checkpoint to resume from; None where there is none."""
    candidates = [folder / LAST, *_earlier(folder)]
    return next((path for path in candidates if path.exists()), None)


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint to the CPU. Raises ConfigError where it is none, or holds no training state."""
    if not path.exists():
        raise ConfigError(f"{path} does not exist on this machine; all machines of a run need the same output folder")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ConfigError(f"{path} cannot be resumed from: it is no checkpoint of these scripts, or damaged") from error
    if not isinstance(state, dict) or "optimizer" not in state or "rng" not in state:
        raise ConfigError(
            f"{path} holds weights but no training state to resume: start from the weights with --checkpoint {path}"
        )
    return state


def _step(path: Path) -> int:
    return torch.load(path, map_location="cpu", weights_only=True, mmap=True)["step"]


def _earlier(folder: Path) -> list[Path]:
    """The earlier checkpoints, the last written first. Their steps do not tell: resuming may have gone back."""
    return sorted(folder.glob("checkpoint_step_*.pth"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
