"""The encoder states of many images: first for their unit vectors, and then again for the matching head."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from models.rerank.work_shares import Processes, ProgressBar

logger = logging.getLogger("blip.models")


class ImageStates:
    """Encodes images to unit vectors, and keeps their states in memory for re-ranking if they fit.

    Each process encodes a share of the batches, and keeps their states on the device, else in host memory, else not at
    all. States that it needs later and did not keep (another process may have encoded them) are computed again: that
    costs about a fortieth of scoring an image with its hundreds of texts (COCO, k 256, ViT-B at 384).

    An image is always encoded in the same batch, since the other images of a batch may change the last bits of its
    states. So results depend neither on the number of processes nor on what was kept.

    Args:
        count: how many images there are.
        batch_size: how many are encoded at once.
        read: reads batches: the indices of each one's images -> the batches, in this order. It may read ahead.
        encode: a batch -> encoder states `[B, T, D]` and unit vectors `[B, embed_dim]`. For clips, T counts the tokens
            of all frames.
        budget: most GiB of states that a process keeps.
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
        """Encode this process's share -> unit vectors of all images [count, embed_dim], float32, in host memory."""
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
        """Yield the states [1, T, D] of each of these images, in order."""
        needed = [batch for batch in self.batches if batch.start < images.stop and images.start < batch.stop]
        missing = [batch for batch in needed if batch not in self._kept]
        again = iter(self.read(missing) if missing else ())
        for batch in needed:
            states = self._kept[batch] if batch in self._kept else self.encode(next(again))[0]
            for image in range(max(batch.start, images.start), min(batch.stop, images.stop)):
                yield states[image - batch.start][None]

    def _choose_storage(self, states: Tensor, images: int) -> torch.device | None:
        """Choose where to keep the states of `images` images, each as large as those in `states` [B, T, D]."""
        needed, free = images * states[0].nbytes / 2**30, _free_memory(states.device) / 2**30
        storage, why = choose_storage(needed, self.budget, states.device, free)
        logger.info("states of %d images take %.2f GiB, %s", images, needed, why)
        return storage


def choose_storage(needed: float, budget: float, device: torch.device, free: float) -> tuple[torch.device | None, str]:
    """Choose where to keep states -> a device, or None not to keep them; and the reason, for the log.

    Args:
        needed, budget: GiB that the states take, and that they may take.
        device: where they are computed.
        free: GiB that are free on `device`.
    """
    if needed > budget:
        return None, f"over states_gib = {budget:g}: not kept, images are encoded again to be re-ranked"
    if device.type == "cuda" and 2 * needed > free:  # leaves the other half to the matching head
        return torch.device("cpu"), f"within states_gib = {budget:g}: kept in host memory, {device} has {free:.1f} free"
    return device, f"within states_gib = {budget:g}: kept on {device}"


def _states_in_autocast_dtype(states: Tensor) -> Tensor:
    """States in the dtype of autocast, if on: half the memory, and the next layer would round them to it anyway."""
    kind = states.device.type
    return states.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else states


def _free_memory(device: torch.device) -> float:
    """Free bytes of a GPU, those that torch has reserved but does not use included; infinite for other devices."""
    if device.type != "cuda":
        return float("inf")
    reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + reserved
