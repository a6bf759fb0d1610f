"""What belongs to no single part: errors for people, paths, whole files, seeds, schedules, documented settings."""

import dataclasses
import math
import os
import random
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

REPOSITORY = Path(__file__).resolve().parent


class UserError(Exception):
    """What a person can mend: the message says what was found, where, and what to do about it.

    It ends a script with the message alone. Every other exception is a bug, and keeps its traceback.
    """


class ConfigError(UserError, ValueError):
    """A setting that cannot work, be it a config's, a flag's or an argument's."""


class MissingFile(UserError, FileNotFoundError):
    """A file that a setting names is not there."""


def resolve(path: str | os.PathLike) -> Path:
    """The file that `path` means: as given if it exists from here, else the same path inside the repository.

    `configs/med_config.json` therefore works from any working directory. A path that exists in neither place comes
    back as given, so that an error about it shows what the user wrote.
    """
    path = Path(path).expanduser()
    if not path.is_absolute() and not path.exists() and (REPOSITORY / path).exists():
        return REPOSITORY / path
    return path


@contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[Path]:
    """Write a file whole or not at all: yields a temporary path beside `path`, renamed onto it when the block succeeds.

    The temporary name keeps the suffix (writers such as `numpy.savez` would append a missing one) and is unique, so
    processes that write the same file at once do not disturb each other: the last one wins. The file's mode is what the
    umask says, whichever way it was written (safetensors makes files that only their owner can read).
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{secrets.token_hex(4)}.{path.name}")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)
        _sync(temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if os.name == "posix":  # the rename itself is durable only when the folder is; Windows has no such call
        _sync(path.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def set_seed(seed: int) -> None:
    """Seed Python, numpy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def cosine_lr(epoch: float, max_epoch: float, init_lr: float, min_lr: float) -> float:
    """From `init_lr` at epoch 0 to `min_lr` at `max_epoch` along half a cosine."""
    return min_lr + (init_lr - min_lr) * 0.5 * (1 + math.cos(math.pi * epoch / max_epoch))


def warmup_lr(step: int, max_step: int, warmup_lr: float, init_lr: float) -> float:
    """From `warmup_lr` at step 0 to `init_lr` at `max_step` along a line, then level."""
    if step >= max_step:
        return init_lr
    return warmup_lr + (init_lr - warmup_lr) * step / max_step


def step_lr(epoch: int, init_lr: float, min_lr: float, decay_rate: float) -> float:
    """`init_lr * decay_rate ** epoch`, never under `min_lr`."""
    return max(min_lr, init_lr * decay_rate**epoch)


@dataclasses.dataclass
class Settings:
    """A part of a config: what a script's config class mixes in is made of these.

    Rules between values are a part's `__post_init__`, which ends with `super().__post_init__()`: the next part's.
    """

    def __post_init__(self) -> None:
        """The end of the row."""


def check(holds: bool, key: str, value: Any, rule: str) -> None:
    """Raise ConfigError with key, value and rule unless the rule holds."""
    if not holds:
        raise ConfigError(f"{key} = {value}: must be {rule}")


def setting(default: Any, meaning: str) -> Any:
    """A field of a config dataclass with its default and the meaning that `--help` shows.

    A list or dict default is copied for each instance. `...` marks a key that every config must give.
    """
    metadata = {"help": meaning}
    if default is ...:
        return dataclasses.field(metadata=metadata, kw_only=True)
    if isinstance(default, (list, dict)):
        return dataclasses.field(default_factory=default.copy, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)
