"""Renames tensors between Hugging Face's BLIP checkpoints and this package.

The text parts have the same names on both sides (both are BERT's); the image encoder's differ.
"""

import re
from collections.abc import Iterable

from torch import Tensor

_VISION = (
    ("vision_model.embeddings.class_embedding", "visual_encoder.cls_token"),
    ("vision_model.embeddings.position_embedding", "visual_encoder.pos_embed"),
    ("vision_model.embeddings.patch_embedding.", "visual_encoder.patch_embed.proj."),
    ("vision_model.post_layernorm.", "visual_encoder.norm."),
    ("vision_model.encoder.layers.", "visual_encoder.blocks."),
)
_VISION_LAYER = (
    ("layer_norm1.", "norm1."),
    ("layer_norm2.", "norm2."),
    ("self_attn.projection.", "attn.proj."),
    ("self_attn.qkv.", "attn.qkv."),
)
# transformers ties these to the word embeddings and to `cls.predictions.bias`; its files hold tied tensors once.
_TIED = ("cls.predictions.decoder.weight", "cls.predictions.decoder.bias")


def is_huggingface(state: Iterable[str]) -> bool:
    """Whether these are keys of a Hugging Face BLIP checkpoint."""
    return any(key.startswith("vision_model.") for key in state)


def from_huggingface(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename Hugging Face's tensors to ours; unknown keys keep their names."""
    return {_rename(key, column=0): tensor for key, tensor in state.items()}


def to_huggingface(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename our tensors to Hugging Face's, without those that only training needs (momentum, queues, `temp`)."""
    parts = ("visual_encoder", "text_encoder", "text_decoder", "vision_proj", "text_proj", "itm_head")
    kept = {key: tensor for key, tensor in state.items() if key.split(".")[0] in parts and not key.endswith(_TIED)}
    return {_rename(key, column=1): tensor for key, tensor in kept.items()}


def _rename(key: str, column: int) -> str:
    """Rename `key`, which is now the `column` of the pairs above (0 theirs, 1 ours), to the other column."""
    for pair in _VISION:
        if key.startswith(pair[column]):
            key = pair[1 - column] + key.removeprefix(pair[column])
            break
    else:
        return key
    for pair in _VISION_LAYER:
        key = re.sub(rf"(\.\d+\.){re.escape(pair[column])}", rf"\g<1>{pair[1 - column]}", key)
    return key
