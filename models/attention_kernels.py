"""Which of torch's attention kernels run."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel


def for_changing_shapes(device: torch.device) -> AbstractContextManager[object]:
    """A context for attention whose shapes change from call to call: decoding token by token, texts of any length.

    torch may choose cuDNN's kernels on a GPU, from 2.11 on more often, and cuDNN plans anew for each shape that it has
    not met, which takes far longer than the attention itself. The others serve every shape alike. What other devices
    do is left alone.
    """
    if device.type != "cuda":
        return nullcontext()
    return sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH])


_FEW = 64  # queries


def is_slow_when_fused(query: Tensor) -> bool:
    """Whether torch's fused attention of query [N, heads, Q, d] is slower than matrix products one after the other.

    On a CPU that of bfloat16 is, for the few queries that there are in decoding: 3 to 9 times with 577 keys.
    """
    return (
        query.device.type == "cpu"
        and query.dtype is torch.bfloat16
        and query.shape[2] <= _FEW
        and not torch.is_grad_enabled()
    )
