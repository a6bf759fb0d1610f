"""Copies between host and device that make nobody wait."""

import torch
from torch import Tensor


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor of the host to a device, without waiting for what that is computing; one that is there is returned.

    A GPU copies by itself only from pinned memory: for any other, the host may have to wait until all earlier work of
    the GPU is done.
    """
    if device.type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def ask(*scalars: Tensor) -> list[int]:
    """The values of whole or truth-valued scalars on one device, in a single wait for it."""
    return torch.stack([scalar.long() for scalar in scalars]).cpu().tolist()
