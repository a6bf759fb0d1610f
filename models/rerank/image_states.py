"""The encoder states of many images, used twice: at once for their features, and again when they are re-ranked."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from models.rerank.work_shares import Processes, ProgressBar

logger = logging.getLogger("blip.models")


class ImageStates:
    """Images, encoded for their features and kept until they are re-ranked, or encoded again then.

    Each process encodes a share of the batches and keeps their states where they fit: on the device, else in host
    memory, else nowhere. What it is asked for later and has not kept (another process may have encoded it) it encodes
    again. To re-rank an image with its hundreds of texts costs about forty times that (COCO, k 256, ViT-B at 384).

    An image is always encoded in the same batch, since the other images of a batch may change its last bits. Therefore
    results depend neither on the number of processes nor on what was kept.

    Args:
        count: how many images there are over all processes.
        batch_size: how many are encoded at once.
        read: batches by the numbers of their images -> the batches, in this order. It may read ahead.
        encode: a batch -> encoder states `[B, T, D]` and unit vectors `[B, embed_dim]`. Clips are images whose T tokens
            are those of all their frames.
        budget: GiB of states that a process keeps at most.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        read: Callable[[Sequence[range]], Iterable[Any]],
        encode: Callable[[Any], tuple[Tensor, Tensor]],
        budget: float = 16.0,
    ) -> None:
        self.batches = [range(start, min(start + batch_size, count)) for start in range(0, count, batch_size)]
        self.count, self.read, self.encode, self.budget = count, read, encode, budget
        self._kept: dict[range, Tensor] = {}

    def __len__(self) -> int:
        return self.count

    def encode_share(self, processes: Processes, progress: ProgressBar) -> Tensor:
        """Encode this process's share -> the unit vectors of all images [count, embed_dim], float32, on the host."""
        sizes = [len(batch) for batch in self.batches]
        share = processes.share(sizes)
        mine, features, storage = self.batches[share.start : share.stop], [], None
        batches = progress(self.read(mine), "encode images", sizes[share.start : share.stop])
        for numbers, batch in zip(mine, batches, strict=True):
            states, vectors = self.encode(batch)
            features.append(vectors.float())
            states = _states_in_autocast_dtype(states)
            if numbers is mine[0]:
                storage = self._choose_storage(states, mine[-1].stop - numbers.start)
            if storage is not None:
                self._kept[numbers] = states.to(storage)
        return torch.cat(processes.gather([vectors.cpu() for vectors in features]))

    def states(self, images: range) -> Iterator[Tensor]:
        """The states of each of these images [1, T, D], in order."""
        needed = [batch for batch in self.batches if batch.start < images.stop and images.start < batch.stop]
        missing = [batch for batch in needed if batch not in self._kept]
        again = iter(self.read(missing) if missing else ())
        for batch in needed:
            states = self._kept[batch] if batch in self._kept else self.encode(next(again))[0]
            for image in range(max(batch.start, images.start), min(batch.stop, images.stop)):
                yield states[image - batch.start][None]

    def _choose_storage(self, states: Tensor, images: int) -> torch.device | None:
        """Where the states of so many images are kept, of which `states` [B, T, D] are some."""
        needed, free = images * states[0].nbytes / 2**30, _free_memory(states.device) / 2**30
        storage, why = choose_storage(needed, self.budget, states.device, free)
        logger.info("states of %d images take %.2f GiB, %s", images, needed, why)
        return storage


def choose_storage(needed: float, budget: float, device: torch.device, free: float) -> tuple[torch.device | None, str]:
    """Where states are kept, None for nowhere, and the reason for the log.

    Args:
        needed, budget: GiB that they take, and that they may take.
        device: where they are computed.
        free: GiB that are free there.
    """
    if needed > budget:
        return None, f"over states_gib = {budget:g}: not kept, images are encoded again when their turn comes"
    if device.type == "cuda" and 2 * needed > free:  # the other half is for the work on them
        return torch.device("cpu"), f"within states_gib = {budget:g}: kept in host memory, {device} has {free:.1f} free"
    return device, f"within states_gib = {budget:g}: kept on {device}"


def _states_in_autocast_dtype(states: Tensor) -> Tensor:
    """States in autocast's precision, to which their projections round them anyway: half the memory."""
    kind = states.device.type
    return states.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else states


def _free_memory(device: torch.device) -> float:
    """Bytes of a GPU that nothing occupies, with those that torch holds ready; no limit is known of other devices."""
    if device.type != "cuda":
        return float("inf")
    ready = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + ready
