"""The image encoder: timm's Vision Transformer, whose parameter names are those of the released checkpoints."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer as TimmVisionTransformer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.config import VisionConfig
from models.library_internals import embed_positions

LAYER_NORM_EPS = 1e-6
MLP_RATIO = 4  # width of the feed-forward block / width of the states
STANDARD_WIDTH = 768  # of ViT-B


class StochasticDepth(nn.Module):
    """In training, drops a residual branch for each sample with probability `rate`, and scales up the kept ones.

    It is timm's `DropPath` with the rate as a tensor, so that torch.compile need not compile every block anew.
    """

    rate: Tensor

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.register_buffer("rate", torch.tensor(rate), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        kept = torch.rand(len(x), *(1,) * (x.dim() - 1), device=x.device) >= self.rate
        return x * (kept / (1 - self.rate)).to(x.dtype)


class VisionTransformer(TimmVisionTransformer):
    """A ViT that returns the states of all tokens, with activation checkpointing in its last blocks."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__(
            img_size=config.image_size,
            patch_size=config.patch_size,
            embed_dim=config.embed_dim,
            depth=config.depth,
            num_heads=config.num_heads,
            mlp_ratio=MLP_RATIO,
            norm_layer=partial(nn.LayerNorm, eps=LAYER_NORM_EPS),
            num_classes=0,
            global_pool="",
        )
        self.config = config
        # timm's initial weights have the same scale in every ViT, which suits ViT-B. A narrower one would shrink the
        # signal, and training from scratch would first have to enlarge the weights.
        scale = max(1.0, (STANDARD_WIDTH / config.embed_dim) ** 0.5)
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear):
                module.weight.data.mul_(scale)
        if config.drop_path_rate:
            for number, block in enumerate(self.blocks):
                rate = config.drop_path_rate * number / max(config.depth - 1, 1)
                block.drop_path1, block.drop_path2 = StochasticDepth(rate), StochasticDepth(rate)

    @property
    def image_size(self) -> int:
        """Side of the square input, in pixels."""
        return self.config.image_size

    def as_input(self, image: object) -> Tensor:
        """The images, in the number format of the weights.

        Raises:
            TypeError: no tensor.
            ValueError: another shape than `[B, 3, S, S]`, pixels that are not normalized, or another device.
        """
        size, weight = self.image_size, self.patch_embed.proj.weight
        expected = f"the image encoder reads a tensor [B, 3, {size}, {size}] of normalized pixels"
        if not isinstance(image, Tensor):
            raise TypeError(f"{expected}, and got a {type(image).__name__}")
        shape = tuple(image.shape)
        if image.dim() != 4:
            raise ValueError(f"{expected}, and got shape {shape}{'; image[None] is a batch' * (image.dim() == 3)}")
        if image.shape[1] != 3:
            raise ValueError(f"{expected}, and got {image.shape[1]} channels: convert the picture to RGB")
        if shape[2:] != (size, size):
            raise ValueError(
                f"the image encoder was built for {size}x{size} pixels and got images of shape {shape}; "
                f"resize them, or build the model with image_size={shape[-1]}"
            )
        if not image.is_floating_point():
            raise ValueError(f"{expected}, and got {image.dtype}: normalize them (normalize of transform/image.py)")
        if image.device != weight.device:
            raise ValueError(f"the images are on {image.device} and the model on {weight.device}: move either by .to()")
        return image.to(weight.dtype)

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]: no masks here
        self, image: Tensor, *, first_only: bool = False
    ) -> Tensor:
        """Encode image [B, 3, H, W], normalized -> states of class token and patches [B, 1 + H/p * W/p, D].

        With `first_only` the class token's alone [B, 1, D], for which the last block computes no other.
        """
        x = embed_positions(self, self.patch_embed(self.as_input(image)))
        first_checkpointed = len(self.blocks) - self.config.checkpointed_blocks
        for i, block in enumerate(self.blocks):
            run = partial(first_state, block) if first_only and i == len(self.blocks) - 1 else block
            if i >= first_checkpointed and torch.is_grad_enabled():
                x = checkpoint(run, x, use_reentrant=False)
            else:
                x = run(x)
        return self.norm(x)


def first_state(block: Any, x: Tensor) -> Tensor:
    """What a block of the ViT makes of states x [B, T, D], for the first of them alone [B, 1, D]."""
    attention = block.attn
    query_weight, key_value_weight = attention.qkv.weight.tensor_split([attention.qkv.in_features])
    query_bias, key_value_bias = attention.qkv.bias.tensor_split([attention.qkv.in_features])
    states, x = block.norm1(x), x[:, :1]
    query = F.linear(states[:, :1], query_weight, query_bias)
    key_value = F.linear(states, key_value_weight, key_value_bias)
    query, key, value = (
        part.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)  # [B, heads, T, d]
        for part in (query, *key_value.chunk(2, dim=-1))
    )
    context = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
    x = x + block.drop_path1(attention.proj(context))
    return x + block.drop_path2(block.mlp(block.norm2(x)))


def create_vit(
    vit: str | Mapping[str, int],
    image_size: int,
    vit_grad_ckpt: bool = False,
    vit_ckpt_layer: int = 0,
    drop_path_rate: float | None = None,
) -> VisionTransformer:
    """Build an image encoder; the arguments are those of `VisionConfig.read`."""
    return VisionTransformer(VisionConfig.read(vit, image_size, vit_grad_ckpt, vit_ckpt_layer, drop_path_rate))


def interpolate_pos_embed(pos_embed: Tensor, target: int | TimmVisionTransformer) -> Tensor:
    """Resize learned position embeddings [1, 1 + N, D] of a square image to [1, 1 + M, D].

    Bicubic, without `align_corners` and antialiasing, as for the released fine-tuned checkpoints. The class token's
    embedding is kept.

    Args:
        pos_embed: the embeddings, the class token's first.
        target: M, the new number of patches, or an image encoder with so many.
    """
    num_patches = target if isinstance(target, int) else target.patch_embed.num_patches
    old_side = round((pos_embed.shape[1] - 1) ** 0.5)
    new_side = round(num_patches**0.5)
    if old_side == new_side:
        return pos_embed
    class_token, patches = pos_embed[:, :1], pos_embed[:, 1:]
    grid = patches.reshape(1, old_side, old_side, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid.float(), size=(new_side, new_side), mode="bicubic", align_corners=False)
    return torch.cat([class_token, grid.permute(0, 2, 3, 1).flatten(1, 2).to(pos_embed.dtype)], dim=1)
