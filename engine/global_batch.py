"""The global batch: the samples of one optimizer step over all processes, which a run keeps when their number changes.

Learning rates are tuned for it, and the steps of an epoch, the schedule and the order of the queues follow from it. So
a run that is resumed on fewer or more processes takes the same samples in every step as before, divided anew.
"""

import dataclasses
import logging
from pathlib import Path
from typing import TypeVar

from engine import checkpoint
from engine.config import TrainConfig
from settings import ConfigError

logger = logging.getLogger("blip.engine")

Config = TypeVar("Config", bound=TrainConfig)

BATCH_KEYS = ("batch_size_train", "batch_size")  # the batch of a process is one of these keys of a script's config


def divide(samples: int, processes: int, most: int, lanes: int = 1) -> tuple[int, int]:
    """Divide the `samples` of a step: returns the batch of a process and how many of them it accumulates.

    A process takes `most` samples at a time at most, which is what fits into its memory, and as few batches as can be.
    Where it reads several of the `lanes` that shards are dealt to, its batch is a multiple of them, if there is one.
    Raises ConfigError where the processes cannot take equally many samples.
    """
    if samples % processes:
        fewer = next(number for number in range(processes - 1, 0, -1) if samples % number == 0)
        more = next((number for number in range(processes + 1, samples + 1) if samples % number == 0), None)
        sizes = [size for size in (samples // processes * processes, -(-samples // processes) * processes) if size]
        raise ConfigError(
            f"the {samples:,} samples of an optimizer step cannot be divided among {processes} processes: take "
            f"{fewer}{f' or {more}' if more else ''} processes, or another global batch by "
            + " or ".join(f"global_batch_size={size}" for size in sizes)
        )
    share = samples // processes
    possible = [number for number in range(-(-share // most), share + 1) if share % number == 0]
    own = max(1, lanes // processes)
    batches = next((number for number in possible if share // number % own == 0), possible[0])
    return share // batches, batches


def global_batch_of(path: Path) -> int:
    """The samples of an optimizer step of the run that wrote the checkpoint `path`."""
    state = checkpoint.load(path)
    with checkpoint.reading(path, "config"):
        config = state["config"]
        batch = next(config[key] for key in BATCH_KEYS if key in config)
        return int(batch) * int(config["accumulation_steps"]) * len(state["rng"])


def keep_global_batch(config: Config, processes: int, before: int | None) -> Config:
    """The config with the batch of a process and the accumulation by which the run keeps its global batch.

    Args:
        before: the global batch of the run that is resumed; None at the beginning of a run.
    """
    key = next(key for key in BATCH_KEYS if hasattr(config, key))
    most = getattr(config, key)
    configured = most * config.accumulation_steps * processes
    samples = config.global_batch_size or before or configured
    batch, accumulated = divide(samples, processes, most, getattr(config, "shard_lanes", None) or 1)
    if before not in (None, samples):
        logger.warning(
            "an optimizer step took %d samples before and takes %d from here on: global_batch_size says so",
            *(before, samples),
        )
    if samples != configured:
        logger.info(
            "an optimizer step takes %d samples: %d process(es) with %s = %d and accumulation_steps = %d, in place of "
            "the %d and %d given, by which it would take %d; global_batch_size asks for another global batch",
            *(samples, processes, key, batch, accumulated, most, config.accumulation_steps, configured),
        )
    if accumulated > 1 and 2 * batch <= most:
        logger.warning(
            "%s = %d is far below the %d that a process may take, since %d samples a process have no larger divisor: "
            "negatives come from a batch; another number of processes, or another global_batch_size, divides better",
            *(key, batch, most, samples // processes),
        )
    adapted = {key: batch, "accumulation_steps": accumulated, "global_batch_size": samples}
    return dataclasses.replace(config, **adapted)
