"""The image encoder: timm's Vision Transformer, whose parameter names are those of the released checkpoints."""

from collections.abc import Mapping
from functools import partial

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer as TimmVisionTransformer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from utils import check

VIT_SIZES: dict[str, dict[str, int]] = {
    "tiny": {"embed_dim": 192, "depth": 12, "num_heads": 3, "patch_size": 16},
    "small": {"embed_dim": 384, "depth": 12, "num_heads": 6, "patch_size": 16},
    "base": {"embed_dim": 768, "depth": 12, "num_heads": 12, "patch_size": 16},
    "large": {"embed_dim": 1024, "depth": 24, "num_heads": 16, "patch_size": 16},
}
# ViT-L is the only size that was trained with stochastic depth.
DEFAULT_DROP_PATH = {"large": 0.1}
STANDARD_WIDTH = 768


class StochasticDepth(nn.Module):
    """Leaves a block's branch out for a random share `rate` of the samples in training, and scales the others up.

    timm's `DropPath`, but for the rate, which is a tensor: compiled code is then the same for every block.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.register_buffer("rate", torch.tensor(rate), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        kept = torch.rand(len(x), *(1,) * (x.dim() - 1), device=x.device) >= self.rate
        return x * (kept / (1 - self.rate)).to(x.dtype)


class VisionTransformer(TimmVisionTransformer):
    """A ViT that returns all its tokens and can trade compute for memory in its last blocks.

    Args:
        image_size: side of the square input, in pixels.
        embed_dim, depth, num_heads, patch_size: the architecture.
        drop_path_rate: stochastic depth of the last block; grows linearly from 0 in the first.
        checkpointed_blocks: how many of the last blocks recompute their activations in the backward pass.
    """

    def __init__(
        self,
        image_size: int,
        embed_dim: int,
        depth: int,
        num_heads: int,
        patch_size: int = 16,
        drop_path_rate: float = 0.0,
        checkpointed_blocks: int = 0,
    ) -> None:
        super().__init__(
            img_size=image_size,
            patch_size=patch_size,
            embed_dim=embed_dim,
            depth=depth,
            num_heads=num_heads,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            num_classes=0,
            global_pool="",
        )
        # timm's weights suit ViT-B. In a narrower network weights of the same size would pass on a smaller share of the
        # signal, and training from scratch would begin with making them larger.
        scale = max(1.0, (STANDARD_WIDTH / embed_dim) ** 0.5)
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear):
                module.weight.data.mul_(scale)
        if drop_path_rate:
            for number, block in enumerate(self.blocks):
                rate = drop_path_rate * number / max(depth - 1, 1)
                block.drop_path1, block.drop_path2 = StochasticDepth(rate), StochasticDepth(rate)
        self.image_size = image_size
        self.checkpointed_blocks = checkpointed_blocks

    def forward(self, image: Tensor) -> Tensor:
        """image [B, 3, H, W], normalised -> states of the class token and the patches [B, 1 + H/p * W/p, D]."""
        if image.shape[-2:] != (self.image_size, self.image_size):
            raise ValueError(
                f"the image encoder was built for {self.image_size}x{self.image_size} pixels and got images of shape "
                f"{tuple(image.shape)}; resize them, or build the model with image_size={image.shape[-1]}"
            )
        x = self._pos_embed(self.patch_embed(image))
        first_checkpointed = len(self.blocks) - self.checkpointed_blocks
        for i, block in enumerate(self.blocks):
            if i >= first_checkpointed and torch.is_grad_enabled():
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        return self.norm(x)


def create_vit(
    vit: str | Mapping[str, int],
    image_size: int,
    vit_grad_ckpt: bool = False,
    vit_ckpt_layer: int = 0,
    drop_path_rate: float | None = None,
) -> VisionTransformer:
    """Build the image encoder.

    Args:
        vit: a name of `VIT_SIZES`, or a mapping `{embed_dim, depth, num_heads, patch_size}`.
        image_size: side of the square input, in pixels; a multiple of the patch size.
        vit_grad_ckpt: recompute activations in the backward pass, to save memory.
        vit_ckpt_layer: the number of blocks, counted from the last, that do so; all, where there are fewer.
        drop_path_rate: stochastic depth; by default 0.1 for 'large' and none elsewhere.

    Raises:
        ConfigError: see `vit_size`; an image size that is no multiple of the patches'; a negative `vit_ckpt_layer`.
    """
    size = vit_size(vit)
    check_image_size(image_size, size["patch_size"])
    check(vit_ckpt_layer >= 0, "vit_ckpt_layer", vit_ckpt_layer, "0 or more")
    if drop_path_rate is None:
        drop_path_rate = DEFAULT_DROP_PATH.get(vit, 0.0) if isinstance(vit, str) else 0.0
    return VisionTransformer(
        image_size,
        **size,
        drop_path_rate=drop_path_rate,
        checkpointed_blocks=min(vit_ckpt_layer, size["depth"]) if vit_grad_ckpt else 0,
    )


def vit_size(vit: str | Mapping[str, int]) -> dict[str, int]:
    """The sizes that `vit` means, `{embed_dim, depth, num_heads, patch_size}`.

    Raises:
        ConfigError: an unknown name, a mapping with missing or unknown keys, sizes that do not fit.
    """
    if isinstance(vit, str):
        check(vit in VIT_SIZES, "vit", vit, f"{', '.join(VIT_SIZES)}, or a mapping of sizes")
        size = dict(VIT_SIZES[vit])
    else:
        size = {"patch_size": 16, **vit}
        keys = set(VIT_SIZES["base"])
        check(set(size) == keys, "vit", dict(vit), "a name, or a mapping of embed_dim, depth, num_heads and patch_size")
        check(min(size.values()) >= 1, "vit", dict(vit), "of sizes of at least 1")
    whole = size["embed_dim"] % size["num_heads"] == 0
    check(whole, "vit", size, "of an embed_dim that num_heads divides")
    return size


def check_image_size(image_size: int, patch_size: int) -> None:
    """Raise ConfigError unless patches cover the image."""
    check(image_size % patch_size == 0, "image_size", image_size, f"a multiple of the patch size, {patch_size}")


def interpolate_pos_embed(pos_embed: Tensor, num_patches: int) -> Tensor:
    """Resize learned position embeddings [1, 1 + N, D] of a square image to [1, 1 + num_patches, D].

    Bicubic, corners not aligned, no antialiasing, as the released fine-tuned checkpoints were made; the class token's
    row is kept.
    """
    old_side = round((pos_embed.shape[1] - 1) ** 0.5)
    new_side = round(num_patches**0.5)
    if old_side == new_side:
        return pos_embed
    class_token, patches = pos_embed[:, :1], pos_embed[:, 1:]
    grid = patches.reshape(1, old_side, old_side, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid.float(), size=(new_side, new_side), mode="bicubic", align_corners=False)
    return torch.cat([class_token, grid.permute(0, 2, 3, 1).flatten(1, 2).to(pos_embed.dtype)], dim=1)
