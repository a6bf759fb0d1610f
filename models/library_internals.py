"""All uses of undocumented parts of torch and timm: what an upgrade of these libraries may break."""

# pyright: reportPrivateUsage=false

from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


def embed_positions(vit: VisionTransformer, patches: Tensor) -> Tensor:
    """Prepend the class token to patches [B, N, D], and add the position embeddings -> [B, 1 + N, D].

    timm's public `forward_features` also runs the blocks, and can checkpoint only all of them.
    """
    return vit._pos_embed(patches)


def lerp_all(targets: list[Tensor], sources: list[Tensor], weight: float) -> None:
    """targets += weight * (sources - targets), in place, in a few kernel launches for all tensors together."""
    torch._foreach_lerp_(targets, sources, weight)  # pyright: ignore[reportPrivateImportUsage]


def copy_all(targets: list[Tensor], sources: list[Tensor]) -> None:
    """Copy each source into its target, of the same shape, in a few kernel launches for all tensors together."""
    torch._foreach_copy_(targets, sources)  # pyright: ignore[reportPrivateImportUsage]


def skip_step_where(optimizer: Optimizer, broken: Tensor) -> None:
    """Make the next step of a fused optimizer do nothing if the scalar `broken` is not zero, without a device sync.

    `found_inf` is the attribute by which torch's GradScaler does this. It stays set until it is set again.
    """
    optimizer.found_inf = broken  # pyright: ignore[reportAttributeAccessIssue]


def fused_adamw_skips_steps(device: torch.device) -> bool:
    """Whether `skip_step_where` has an effect on a fused AdamW on this device, which is tried out on one number.

    Apple's GPUs run a fused AdamW that ignores `found_inf` before torch 2.13.
    """
    number = nn.Parameter(torch.ones(1, device=device))
    number.grad = torch.ones_like(number)
    optimizer = torch.optim.AdamW([number], lr=0.5, fused=True)
    skip_step_where(optimizer, torch.ones((), device=device))
    optimizer.step()
    return number.item() == 1.0


def skip_steps_on_the_host(optimizer: Optimizer) -> None:
    """Make GradScaler read on the host whether a step is to be skipped, as it does for optimizers that are not fused.

    `_step_supports_amp_scaling` is the attribute by which a fused optimizer says that it skips by itself.
    """
    optimizer._step_supports_amp_scaling = False  # pyright: ignore[reportAttributeAccessIssue]


_aten = torch.ops.aten
_FORMULAS = flop_registry | {  # torch counts no attention of a CPU
    _aten._scaled_dot_product_flash_attention_for_cpu: flop_registry[_aten._scaled_dot_product_flash_attention],
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: flop_registry[
        _aten._scaled_dot_product_flash_attention_backward
    ],
}


class ModelFlops(TorchDispatchMode):
    """Counts the floating-point operations inside, but not those that activation checkpointing computes again.

    These run in the backward pass, as gradients do, but with gradients enabled. The formulas are those of
    `torch.utils.flop_counter`, whose FlopCounterMode counts what is computed again, too.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        formula = _FORMULAS.get(func._overloadpacket)
        in_backward = torch._C._current_graph_task_id() != -1
        if formula is not None and not (in_backward and torch.is_grad_enabled()):
            self.total += formula(*args, **kwargs, out_val=out)
        return out


def allow_compiled_variants(count: int) -> None:
    """Let torch.compile keep up to `count` variants of one function; above its default of 8, code runs uncompiled.

    The limit has this name in every version from 2.6 on.
    """
    torch._dynamo.config.cache_size_limit = count
