"""Checkpoints are written while training goes on: from copies in host memory, by a thread, one after the other.

A thread is enough. torch.save holds Python's lock while it pickles, for milliseconds, but not while it writes tensors.
"""

import copy
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from engine.preemption import Preemption

logger = logging.getLogger("blip.engine")

GRACE = 30.0  # seconds that torchrun gives a process from its signal to stop until it kills it
_BLOCK = 1 << 28  # bytes of host memory that are allocated at once
_ALIGNMENT = 64  # bytes
_TOLD = 1.0  # seconds of waiting from which on the log tells of them


class HostMemory:
    """Memory of the host for copies of tensors, the same for every checkpoint; pinned where it is for a GPU's.

    It is taken in blocks: torch rounds each pinned allocation up to a power of two, which would waste almost half of
    what tensors of 768 x 768 or 768 x 3072 get.
    """

    def __init__(self, pinned: bool) -> None:
        self._pinned = pinned
        self._blocks: list[torch.UntypedStorage] = []
        self._block = self._used = 0  # the block that is given out, and how many of its bytes are

    def take(self, size: int) -> torch.UntypedStorage:
        """`size` bytes that nothing else has been given since `reset`."""
        while self._block < len(self._blocks) and self._used + size > self._blocks[self._block].nbytes():
            self._block, self._used = self._block + 1, 0
        if self._block == len(self._blocks):
            block = torch.empty(max(_BLOCK, size), dtype=torch.uint8, pin_memory=self._pinned)
            self._blocks.append(block.untyped_storage())
        start = self._used
        self._used += -(-size // _ALIGNMENT) * _ALIGNMENT
        return self._blocks[self._block][start : start + size]

    def reset(self) -> None:
        """Give the same memory out again from now on."""
        self._block = self._used = 0


class BackgroundSaver:
    """Copies what a checkpoint holds, and has the copies written while the originals change.

    For each checkpoint: `wait`, then `copy` its parts, then `write`. On a process that writes none it does nothing.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._memory = HostMemory(pinned=self._on_gpu)
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None
        self._size = 0  # bytes that were copied since the last `wait`
        self._rate: float | None = None  # bytes a second, once a checkpoint is whole
        self._first: tuple[str, float] | None = None  # of the first: its size and time in words, and the time
        self._told = False

    def copy(self, value: Any) -> Any:
        """The same dicts, lists and tuples with copies of all their tensors, in host memory.

        Tensors of `value` that share memory, as tied weights do, share it in the copy. A GPU may be copying still when
        this returns; what its present stream computes afterwards may change the originals.
        """
        return self._copy(value, {})

    def _copy(self, value: Any, copies: dict[int, torch.UntypedStorage]) -> Any:
        if isinstance(value, Tensor):
            storage = value.untyped_storage()
            address = storage.data_ptr()
            if address not in copies:
                copies[address] = self._memory.take(storage.nbytes())
                copies[address].copy_(storage, non_blocking=self._on_gpu)
                self._size += storage.nbytes()
            place = value.storage_offset(), value.shape, value.stride()
            return torch.empty(0, dtype=value.dtype).set_(copies[address], *place)
        if isinstance(value, dict):
            copied = copy.copy(value)  # of its own kind and with its attributes, which a state_dict has
            copied.update({key: self._copy(item, copies) for key, item in value.items()})
            return copied
        if isinstance(value, (list, tuple)):
            return type(value)([self._copy(item, copies) for item in value])
        return value

    def write(self, save: Callable[[], None]) -> None:
        """Call `save`, which writes copies to a file, in the background."""
        if self._on_gpu:
            torch.cuda.synchronize()  # until the copies are whole
        thread = threading.Thread(target=self._run, args=(save,), name="checkpoint")
        thread.start()
        self._thread = thread  # now: a signal may end this function anywhere, and only what was started can be awaited

    def _run(self, save: Callable[[], None]) -> None:
        began = time.perf_counter()
        try:
            save()
        except Exception as error:
            self._error = error  # of the thread that trains: see `failed`
        else:
            seconds = time.perf_counter() - began
            self._rate = self._size / seconds
            self._first = self._first or (self.forecast(), seconds)

    @property
    def failed(self) -> bool:
        """Whether what was to be written last could not be; `wait` raises the reason."""
        return self._error is not None

    def wait(self) -> None:
        """Wait until what is being written is whole, and free the copies; raises what the writing raised."""
        if self._thread is not None:
            began = time.perf_counter()
            self._thread.join()
            if (waited := time.perf_counter() - began) > _TOLD:
                logger.info("waited %.1f s until the last checkpoint was written", waited)
            self._thread = None
            self._memory.reset()
            self._size = 0
        error, self._error = self._error, None
        if error is not None:
            raise error

    def close(self) -> None:
        """Wait, at the end of a run; where that ends by an error, one of the writing must not take its place."""
        try:
            self.wait()
        except Exception as error:
            logger.error("%s", error)

    def forecast(self) -> str:
        """How large what was copied is, and how long it takes to write at the rate of the last checkpoint."""
        size = f"{self._size / 1e9:.3g} GB"
        return f"{size}, in about {self._size / self._rate:.1f} s" if self._rate else size

    def tell(self) -> None:
        """Log, once, how long a checkpoint takes, and warn if a run that torchrun ends has no time to write one."""
        if self._told or self._first is None:
            return
        (words, seconds), self._told = self._first, True
        logger.info("checkpoints are written in the background: %s", words)
        if seconds > GRACE - Preemption.PATIENCE:
            logger.warning(
                "a checkpoint takes long to write (%s): torchrun kills a run %g s after its signal, so a preempted one "
                "may go on from the checkpoint before it. Save more often (save_every), write to a faster disk, or, "
                "where it is SLURM that signals, have it signal earlier (--signal=USR1@120)",
                *(words, GRACE),
            )
