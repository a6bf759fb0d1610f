"""Which device a process computes on, and in which precision."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor

from settings import ConfigError


def choose_device(name: str, local_rank: int = 0, world_size: int = 1) -> torch.device:
    """The device that `--device` names; 'auto' is a GPU where there is one (Apple's for a single process only)."""
    if name == "auto":
        has_mps = torch.backends.mps.is_available() and world_size == 1
        name = "cuda" if torch.cuda.is_available() else "mps" if has_mps else "cpu"
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda", "mps"):  # torch knows more, such as meta, whose tensors hold nothing
            raise ValueError
    except (RuntimeError, ValueError, OverflowError):
        raise ConfigError(f"--device {name}: unknown; choose auto, cpu, cuda or mps") from None
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError(f"--device {name}: torch sees no Apple GPU here; use --device cpu, or leave it out")
    if device.type == "mps" and world_size > 1:
        raise ConfigError(f"--device {name}: an Apple GPU serves one process alone; start one, or use --device cpu")
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise ConfigError(f"--device {name}: torch sees no CUDA GPU here; use --device cpu, or leave it out")
        if device.index is None:
            device = torch.device("cuda", local_rank)
        elif world_size > 1:
            raise ConfigError(f"--device {name}: several processes cannot share one GPU; use --device cuda")
        if device.index >= torch.cuda.device_count():
            raise ConfigError(
                f"{device} does not exist: this process sees {torch.cuda.device_count()} GPU(s); start as many "
                "processes a machine and let each of them see all its GPUs, or use --device cpu"
            )
        torch.cuda.set_device(device)
        torch.backends.cudnn.allow_tf32 = False  # torch allows it in convolutions; fp32 shall be fp32
    return device


def precision_of(name: str, device: torch.device) -> torch.dtype:
    """The dtype that `name` stands for on this device; 'auto' is bf16 on GPUs that have it in hardware, else fp32."""
    if name == "auto":
        has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if has_bf16 else torch.float32
    return {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[name]


_LARGEST_PRODUCT = 8192  # rows and columns: 1.1 TFLOP
_LONG_ENOUGH = 2e-3  # seconds, beside which a kernel's launch and the wait for it are nothing


@cache
def matrix_product_rate(
    device: torch.device, dtype: torch.dtype, clock: Callable[[], float] = time.perf_counter
) -> float:
    """FLOP/s of square matrix products on this device now: a peak that real work can be compared with.

    Data sheets name higher ones, and none for many devices and for float32. The size doubles until a product takes 2 ms
    or has 8192 rows; of each size the best of three counts, by `clock`, in seconds. It draws from no generator of the
    process.
    """
    generator = torch.Generator(device).manual_seed(0)
    size, best = 256, 0.0
    while True:
        matrix = torch.randn(size, size, device=device, generator=generator).to(dtype)
        _seconds(matrix, clock)  # chooses the kernel
        least = min(_seconds(matrix, clock) for _ in range(3))
        best = max(best, 2 * size**3 / least)
        if least >= _LONG_ENOUGH or size == _LARGEST_PRODUCT:
            return best
        size *= 2


def _seconds(matrix: Tensor, clock: Callable[[], float]) -> float:
    """How long one product takes, the wait for the device included."""
    _wait_for(matrix.device)
    began = clock()
    torch.mm(matrix, matrix)
    _wait_for(matrix.device)
    return clock() - began


def _wait_for(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


@contextmanager
def tf32_allowed() -> Iterator[None]:
    """Inside, CUDA's float32 matrix products and convolutions may round their factors to TF32, 10 bits after the point.

    As torch did by default in 2022 on GPUs that have TF32 (A100 and later); no other device is affected.
    """
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
