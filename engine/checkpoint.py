"""Checkpoint files: written whole or not at all, the newest kept, and read again to resume from."""

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from engine.failure import explain
from files import atomic_write, open_regular
from models.weights.integrity import DamagedFile, verify_zip
from settings import ConfigError, UserError

logger = logging.getLogger("blip.engine")

LAST = "checkpoint_last.pth"
DAMAGED = ".damaged"  # what the name of a damaged checkpoint then ends in

_STATE: dict[str, tuple[type, ...]] = {  # what a checkpoint to resume from holds, besides what its parts check
    "model": (dict,),
    "optimizer": (dict,),
    "scaler": (dict,),
    "config": (dict,),
    "epoch": (int,),
    "step": (int,),
    "samples": (int,),
    "lr": (float, int),
    "losses": (dict,),
    "best": (float, int),
    "rng": (list,),
    "loaders": (list,),
}


def save(path: Path, state: dict[str, Any]) -> None:
    """Write `state` (tensors and plain values, so that `torch.load` reads it with `weights_only=True`)."""
    with _kept_named(path), atomic_write(path) as temporary:
        write(state, temporary)


def save_last(folder: Path, state: dict[str, Any], keep: int) -> None:
    """Write `checkpoint_last.pth`; its `keep - 1` predecessors stay as `checkpoint_step_STEP.pth`."""
    last = folder / LAST
    with _kept_named(last), atomic_write(last) as temporary:
        write(state, temporary)
        step = _step(last) if keep > 1 else None
        if step is not None:
            # Until the new file takes the name, a reader finds this one: see newest().
            os.replace(last, folder / f"checkpoint_step_{step:09d}.pth")
    for old in _earlier(folder)[keep - 1 :]:
        old.unlink()


def write(state: dict[str, Any], path: Path) -> None:
    """Write a file for `read`, not atomically."""
    with path.open("wb") as file:  # opened here: of a full disk torch's own writer says "unexpected pos 576 vs 534"
        try:
            torch.save(state, file)
        except RuntimeError as error:  # where the file failed in the midst of a record, torch says the same even so
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


@contextlib.contextmanager
def _kept_named(path: Path) -> Iterator[None]:
    """Tell the user of a checkpoint that cannot be written, on a full disk for one, which one there is still."""
    try:
        yield
    except OSError as error:
        kept = newest(path.parent)
        rest = f"{kept} is still there: go on from it with --resume" if kept else "no earlier one was written"
        reason = explain(error) or str(error)
        raise UserError(f"the checkpoint {path} cannot be written ({reason}). {rest}") from error


def newest(folder: Path) -> Path | None:
    """The newest checkpoint to resume from; None where there is none."""
    candidates = [folder / LAST, *_earlier(folder)]
    return next((path for path in candidates if path.exists()), None)


def newest_whole(folder: Path, *, set_aside: bool) -> Path | None:
    """The newest checkpoint to resume from that holds what was written; None where there is none at all.

    Damaged ones are named in a warning; with `set_aside` they are renamed, so that none is kept as a predecessor.
    Raises ConfigError where all are damaged.
    """
    damaged: dict[Path, DamagedFile] = {}
    for path in filter(Path.exists, [folder / LAST, *_earlier(folder)]):
        try:
            verify(path)
        except DamagedFile as error:
            damaged[path] = error
            continue
        for other, error in damaged.items():
            logger.warning("%s; going on from %s, the newest that is whole", error, path)
            if set_aside:
                os.replace(other, f"{other}{DAMAGED}")
        return path
    if damaged:
        raise ConfigError(
            f"{'; '.join(map(str, damaged.values()))}. No checkpoint in {folder} is whole: put a copy there, or start "
            "anew in another --output_dir"
        )
    return None


def verify(path: Path) -> None:
    """Raise DamagedFile unless the file is, byte by byte, a checkpoint as it was written."""
    with open_regular(path):  # a named pipe would be waited for
        pass
    verify_zip(path)
    load(path)


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint to the CPU; tensors are mapped into memory.

    Raises ConfigError where the file is missing or holds no training state, DamagedFile where it is no checkpoint.
    """
    if not path.exists():
        raise ConfigError(f"{path} does not exist on this machine; all machines of a run need the same output folder")
    state = read(path)
    if not isinstance(state, dict) or "optimizer" not in state or "rng" not in state:
        raise ConfigError(
            f"{path} holds weights but no training state to resume: start from the weights with --checkpoint {path}"
        )
    for key, kinds in _STATE.items():
        if key not in state:
            raise ConfigError(f"{path} cannot be resumed from: it has no {key!r}")
        if not isinstance(state[key], kinds) or isinstance(state[key], bool):
            raise ConfigError(f"{path} cannot be resumed from: its {key!r} is of type {type(state[key]).__name__}")
        if int in kinds and float not in kinds and state[key] < 0:
            raise ConfigError(f"{path} cannot be resumed from: its {key!r} is {state[key]}")
    return state


def read(path: Path) -> Any:
    """Read what `write` wrote, without running code; tensors are mapped into memory. DamagedFile where it is not."""
    with open_regular(path):
        pass
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except UserError:
        raise
    except Exception as error:  # torch's reader fails in every way there is
        raise DamagedFile(f"{path} is damaged, or no checkpoint of these scripts ({_first_line(error)})") from error


@contextlib.contextmanager
def reading(path: Path, key: str) -> Iterator[None]:
    """Turn what fails inside into a ConfigError that names the checkpoint and the key which is being restored."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{path} cannot be resumed from: its {key!r} does not fit ({type(error).__name__}: {_first_line(error)})"
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _step(path: Path) -> int | None:
    """The step that a checkpoint was written after; None where there is none that can be read."""
    try:
        return load(path)["step"]
    except UserError:
        return None


def _earlier(folder: Path) -> list[Path]:
    """The earlier checkpoints, the last written first. Their steps do not tell: resuming may have gone back."""
    return sorted(folder.glob("checkpoint_step_*.pth"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
