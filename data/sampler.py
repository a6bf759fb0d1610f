"""Samplers: which samples are in which batch, as a pure function of seed, epoch, rank and position.

A training batch is a list of `(epoch, index)` pairs, so a dataset can draw a sample's augmentation from
(seed, epoch, index) whichever worker loads it. Global batches are split among the processes in rank order: W processes
with batches of B see, step by step, what one process with batches of W * B sees.
"""

import itertools
import logging
from collections.abc import Callable, Iterator

import numpy as np

from data.order import Order
from settings import ConfigError

logger = logging.getLogger("blip.data")

_MUCH = 0.05  # of the samples; when lanes are so unequal that an epoch leaves out more, that is a warning


class TrainSampler:
    """The batches of one process; `set_epoch` chooses the epoch and the batch to start at.

    `order(epoch)` is the order of the epoch's samples. What is left at its end of a global batch, or of a step of
    several, is left out.
    """

    def __init__(self, order: Callable[[int], Order], batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        self.order = order
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size
        self.set_epoch(0)

    def set_epoch(self, epoch: int, start_batch: int = 0, batches_per_step: int = 1) -> None:
        """Go to `epoch`; iteration starts at its batch `start_batch`, reading nothing of those before.

        It ends with the last whole step of `batches_per_step` batches: what no step uses is neither staged nor decoded,
        and no loader worker is still busy with it when the next epoch begins. Raises ConfigError where the epoch has
        too few samples for one step, or lanes that this number of processes and this batch size cannot share out.
        """
        self.epoch = epoch
        self.start_batch = start_batch
        self.batches_per_step = batches_per_step
        self._order = self.order(epoch)
        if not len(self._order):
            raise ConfigError(f"the training set of epoch {epoch} has no samples")
        lanes = len(self._order.lanes)
        if lanes > 1 and (lanes % self.world_size or self.batch_size % (lanes // self.world_size)):
            raise ConfigError(_not_shared_out(lanes, self.batch_size, self.world_size))
        if not len(self):
            accumulated = f", accumulation_steps {batches_per_step}" if batches_per_step > 1 else ""
            raise ConfigError(
                f"the training set has {len(self._order)} samples, fewer than one step takes (batch size "
                f"{self.batch_size} on {self.world_size} process(es){accumulated}): lower the batch size"
                f"{' or accumulation_steps' if accumulated else ''}"
            )

    def __len__(self) -> int:
        """The batches of a whole epoch, whatever `start_batch`: a multiple of those of a step."""
        return self._batches_of(self._order)

    def _batches_of(self, order: Order) -> int:
        batches = len(order) // (self.batch_size * self.world_size)
        return batches - batches % self.batches_per_step

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        self._log_left_out()
        for indices in self.indices(self.start_batch):
            yield [(self.epoch, index) for index in indices.tolist()]

    def indices(self, start_batch: int = 0) -> Iterator[np.ndarray]:
        """This process's indices [batch_size] of each batch of the epoch from `start_batch` on.

        They are made while they are read: nothing of the order is kept, and each call begins anew. An index modulo the
        number of the dataset's records, `size(epoch)`, is that of the record.
        """
        return self._indices(self._order, start_batch)

    def following(self) -> Iterator[np.ndarray]:
        """This process's indices of each batch of the next epoch, whose order is made when the first is asked for."""
        yield from self._indices(self.order(self.epoch + 1), 0)

    def _indices(self, order: Order, start_batch: int) -> Iterator[np.ndarray]:
        whole = order.share(self.batch_size, self.rank, self.world_size, start_batch)
        return itertools.islice(whole, max(self._batches_of(order) - start_batch, 0))

    def _log_left_out(self) -> None:
        left_out, used = self._order.left_out, len(self._order)
        if left_out and self.rank == 0:
            share = left_out / (left_out + used)
            logger.log(
                logging.WARNING if share > _MUCH else logging.INFO,
                "epoch %d leaves out %d samples of shards (%.1f%% of all samples), by which other lanes are longer "
                "than the shortest of %d; every epoch leaves out others%s",
                *(self.epoch, left_out, 100 * share, len(self._order.lanes)),
                ". Fewer shard_lanes, or more and smaller shards, leave out less" if share > _MUCH else "",
            )


def _not_shared_out(lanes: int, batch_size: int, world_size: int) -> str:
    """What to do about lanes of which each process cannot have its own, or which cannot give equal parts of a batch."""
    fitting = [world_size * own for own in range(1, batch_size + 1) if batch_size % own == 0]
    below = max((count for count in fitting if count < lanes), default=None)
    above = min((count for count in fitting if count > lanes), default=None)
    nearest = " or ".join(str(count) for count in (below, above) if count)
    if lanes % world_size:
        return (
            f"shard_lanes = {lanes}: must be a multiple of the {world_size} processes, each of which reads lanes of "
            f"its own, and divide the global batch of {batch_size * world_size}: {nearest}"
        )
    own = lanes // world_size
    return (
        f"shard_lanes = {lanes}: each of {world_size} process(es) reads {own} of them, which cannot give equal parts "
        f"of its batch of {batch_size}: set shard_lanes to {nearest}, or the batch size to a multiple of {own}"
    )


class EvalSampler:
    """The batches of one process's share of 0..size-1; the shares of all processes hold each index exactly once.

    A share is a consecutive range, so results joined in rank order are in the dataset's order.
    """

    def __init__(self, size: int, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        self.share = range(size * rank // world_size, size * (rank + 1) // world_size)
        self.batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self.share) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        return (list(self.share[i : i + self.batch_size]) for i in range(0, len(self.share), self.batch_size))
