"""Which of torch's attention kernels run on a GPU."""

from contextlib import AbstractContextManager, nullcontext

import torch
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
