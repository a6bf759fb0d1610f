"""All that this repository uses of torch and timm which they do not document: what an upgrade may break."""

# pyright: reportPrivateUsage=false

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torch.optim import Optimizer


def embed_positions(vit: VisionTransformer, patches: Tensor) -> Tensor:
    """Patches [B, N, D] -> class token and patches, with their position embeddings [B, 1 + N, D].

    timm's public `forward_features` goes on through all blocks, and can only checkpoint all of them.
    """
    return vit._pos_embed(patches)


def lerp_all(targets: list[Tensor], sources: list[Tensor], weight: float) -> None:
    """targets += weight * (sources - targets), in place, in a few launches for all tensors together."""
    torch._foreach_lerp_(targets, sources, weight)  # pyright: ignore[reportPrivateImportUsage]


def skip_step_where(optimizer: Optimizer, broken: Tensor) -> None:
    """Let the next step of a fused optimizer change nothing if `broken` [] is not zero, without asking the device.

    `found_inf` is how torch's GradScaler tells a fused optimizer; it stays until it is set anew.
    """
    optimizer.found_inf = broken  # pyright: ignore[reportAttributeAccessIssue]


def allow_compiled_variants(count: int) -> None:
    """Let torch.compile keep so many variants of one piece of code; beyond its own 8 it would run uncompiled.

    The limit goes by this name in every version from 2.6 on.
    """
    torch._dynamo.config.cache_size_limit = count
