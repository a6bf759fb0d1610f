"""Which of torch's kernels run, where its own choice is a slow one."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode


def for_changing_shapes(device: torch.device) -> AbstractContextManager[object]:
    """A context for attention whose shapes change from call to call: decoding token by token, texts of any length.

    torch may choose cuDNN's kernels on a GPU, from 2.11 on more often, and cuDNN plans anew for each shape that it has
    not met, which takes far longer than the attention itself. The others serve every shape alike. What other devices
    do is left alone.
    """
    if device.type != "cuda":
        return nullcontext()
    return sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH])


_FEW_QUERIES = 64


def is_slow_when_fused(query: Tensor) -> bool:
    """Whether torch's fused attention of query [N, heads, Q, d] is slower than matrix products one after the other.

    On a CPU that of bfloat16 is, for the few queries that there are in decoding: 3 to 9 times with 577 keys.
    """
    return (
        query.device.type == "cpu"
        and query.dtype is torch.bfloat16
        and query.shape[2] <= _FEW_QUERIES
        and not torch.is_grad_enabled()
    )


_FEW_ROWS = 256
_MANY_WEIGHTS = 2**19  # reading fewer takes no longer than preparing oneDNN's product


def for_few_rows(device: torch.device, width: int) -> AbstractContextManager[object]:
    """A context for inference in which linear layers of a model `width` wide see a few rows: decoding token by token.

    torch multiplies float32 matrices on a CPU by the BLAS library that it was built with. On a processor of AMD, MKL
    multiplies 2 to 64 rows by one thread only, and 3 rows 2 to 5 times as slowly as oneDNN does. So oneDNN is used,
    up to as many rows as it is faster for (256), where torch was built with it. Elsewhere nothing is changed.
    """
    if device.type != "cpu" or width**2 < _MANY_WEIGHTS or not torch.backends.mkldnn.is_available():
        return nullcontext()
    return _OneDNNForFewRows()


class _OneDNNForFewRows(TorchFunctionMode):
    """Lets oneDNN compute the float32 linear layers of at most 256 rows; autocast and own kinds of tensors are left."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.linear and not kwargs and _pays(*args[:2]):
            x, *weight_and_bias = args
            return F.linear(x.to_mkldnn(), *weight_and_bias).to_dense()
        return func(*args, **(kwargs or {}))


def _pays(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN multiplies x [.., D] by weight [out, D] faster, and can."""
    return (
        x.device.type == "cpu"
        and x.dtype is weight.dtype is torch.float32
        and type(x) is Tensor
        and type(weight) in (Tensor, nn.Parameter)
        and weight.numel() >= _MANY_WEIGHTS
        and x.numel() <= _FEW_ROWS * x.shape[-1]
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )
