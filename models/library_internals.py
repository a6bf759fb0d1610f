"""All uses of undocumented parts of torch and timm: what an upgrade of these libraries may break."""

# pyright: reportPrivateUsage=false

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torch.optim import Optimizer


def embed_positions(vit: VisionTransformer, patches: Tensor) -> Tensor:
    """Prepend the class token to patches [B, N, D], and add the position embeddings -> [B, 1 + N, D].

    timm's public `forward_features` also runs the blocks, and can checkpoint only all of them.
    """
    return vit._pos_embed(patches)


def lerp_all(targets: list[Tensor], sources: list[Tensor], weight: float) -> None:
    """targets += weight * (sources - targets), in place, in a few kernel launches for all tensors together."""
    torch._foreach_lerp_(targets, sources, weight)  # pyright: ignore[reportPrivateImportUsage]


def skip_step_where(optimizer: Optimizer, broken: Tensor) -> None:
    """Make the next step of a fused optimizer do nothing if the scalar `broken` is not zero, without a device sync.

    `found_inf` is the attribute by which torch's GradScaler does this. It stays set until it is set again.
    """
    optimizer.found_inf = broken  # pyright: ignore[reportAttributeAccessIssue]


def allow_compiled_variants(count: int) -> None:
    """Let torch.compile keep up to `count` variants of one function; above its default of 8, code runs uncompiled.

    The limit has this name in every version from 2.6 on.
    """
    torch._dynamo.config.cache_size_limit = count
