"""A training step as a tutorial has it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from transform.image import normalize

Losses = Callable[[dict[str, Any]], dict[str, Tensor]]


def on_device(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """The batch with its tensors on the device."""
    return {name: x.to(device) if isinstance(x, Tensor) else x for name, x in batch.items()}


class TextbookStep:
    """Forward, backward and AdamW of a model, whose losses are one of `benchmarks.textbook.losses`.

    Args:
        losses: batch on the device -> scalars; `loss` among them is minimized.
        dtype: of autocast; float32 is none. With float16 the loss is scaled.
    """

    def __init__(
        self,
        model: nn.Module,
        losses: Losses,
        device: torch.device,
        dtype: torch.dtype,
        lr: float,
        weight_decay: float,
    ) -> None:
        self.model, self.losses, self.device, self.dtype = model, losses, device, dtype
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay, foreach=True)
        self.scaler = torch.amp.GradScaler(device.type, enabled=dtype is torch.float16)

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The losses of a batch as the loader gives it: uint8 images, on the host."""
        batch = on_device(batch, self.device)
        batch["image"] = normalize(batch["image"])
        with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype is not torch.float32):
            return self.losses(batch)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Train on a batch; its losses."""
        losses = self.forward(batch)
        self.optimizer.zero_grad()
        self.scaler.scale(losses["loss"]).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return losses
