"""Batches to the device: to a GPU on a stream of their own, so that they are copied while it computes."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

Batch = dict[str, Any]


class Transfer:
    """Moves the tensors of batches to a device.

    A stream of a GPU does one thing after the other: on the stream that computes, a copy would wait for all work given
    to it before, and what comes next for the copy. On a second stream a copy starts at once. The host is ahead of a GPU
    while it trains, as a step reads no value back: it copies the next batch while the present step computes.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def move(self, batch: Batch) -> Batch:
        """The batch on the device, usable at once by what is computed next."""
        return self._usable(*self._start(batch))

    def ahead(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches on the device; to a GPU each is copied while the one before it is worked on."""
        if self._stream is None:
            yield from map(self.move, batches)
            return
        started = None
        for batch in batches:
            following = self._start(batch)
            if started is not None:
                yield self._usable(*started)
            started = following
        if started is not None:
            yield self._usable(*started)

    def _start(self, batch: Batch) -> tuple[Batch, torch.cuda.Event | None]:
        """Start to copy -> the batch, and on a GPU the event of its arrival."""
        if self._stream is None:
            return self._copy(batch), None
        with torch.cuda.stream(self._stream):
            copied, arrived = self._copy(batch), torch.cuda.Event()
            arrived.record(self._stream)
        return copied, arrived

    def _copy(self, batch: Batch) -> Batch:
        return {
            key: value.to(self.device, non_blocking=True) if isinstance(value, Tensor) else value
            for key, value in batch.items()
        }

    def _usable(self, batch: Batch, arrived: torch.cuda.Event | None) -> Batch:
        """Make the stream that computes wait for the batch's arrival, and the batch's memory last until it is used."""
        if arrived is not None:
            computing = torch.cuda.current_stream(self.device)
            computing.wait_event(arrived)
            for value in batch.values():
                if isinstance(value, Tensor):  # else its memory went to the next copy as soon as the host forgets it
                    value.record_stream(computing)
        return batch
