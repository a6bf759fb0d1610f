"""What a call costs beside time: floating-point operations and memory; and what the device can do at best."""

import contextlib
import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

# torch counts the attention kernels of GPUs only, and no layers by oneDNN.
_cpu_attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_cpu_attention_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def _attention_flops(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """Two matrix products: queries with keys, and weights with values; shapes [B, heads, L, d] of each."""
    batch, heads, length, width = query
    return 2 * batch * heads * length * key[2] * (width + value[3])


def _attention_backward_flops(_: Any, query: Any, key: Any, value: Any, *__: Any, **___: Any) -> int:
    """Five products: the weights anew, and the gradients of weights, values, queries and keys."""
    batch, heads, length, width = query
    return 2 * batch * heads * length * key[2] * (3 * width + 2 * value[3])


def _onednn_flops(x: Any, weight: Any, *_: Any, **__: Any) -> int:
    """A linear layer: x [.., D] by weight [out, D]."""
    return 2 * math.prod(x) * weight[0]


class FlopCounter(FlopCounterMode):
    """Counts the floating-point operations of matrix products, convolutions and attention, on a CPU, too."""

    def __init__(self) -> None:
        own = {
            _cpu_attention: _attention_flops,
            _cpu_attention_backward: _attention_backward_flops,
            torch.ops.aten.mkldnn_linear: _onednn_flops,
        }
        super().__init__(display=False, custom_mapping=own)


class Recomputed:
    """The operations that activation checkpointing of image encoders did a second time, inside `counted`."""

    def __init__(self) -> None:
        self.flops = 0

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """Count what is recomputed inside."""
        own = partial(checkpoint, context_fn=lambda: (contextlib.nullcontext(), self._add()))
        with mock.patch("models.vit.checkpoint", own):
            yield

    @contextlib.contextmanager
    def _add(self) -> Iterator[None]:
        counter = FlopCounter()
        try:
            with counter:
                yield
        finally:  # recomputing stops early, by an exception, once everything needed is there
            self.flops += counter.get_total_flops()


def count_flops(call: Callable[[], Any]) -> tuple[int, int]:
    """The operations of a call, and how many more it recomputed."""
    recomputed = Recomputed()
    with torch.compiler.set_stance("force_eager"), recomputed.counted(), FlopCounter() as counter:
        call()
    return counter.get_total_flops() - recomputed.flops, recomputed.flops


class MemoryGauge:
    """The most memory that a call takes, in bytes: of a GPU's tensors, or of this process elsewhere (Linux)."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def used(self) -> int:
        """What is in use now."""
        if self.device.type == "cuda":
            return torch.cuda.memory_allocated(self.device)
        return _of_process("VmRSS")

    def peak(self, call: Callable[[], Any]) -> int:
        """The most that was in use during a call; 0 where this cannot be known."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            call()
            return torch.cuda.max_memory_allocated(self.device)
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM back to VmRSS
        call()
        return _of_process("VmHWM")


def _of_process(name: str) -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), 0)
