"""The names of tensors in Hugging Face's BLIP checkpoints, and ours.

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
# transformers ties these to the word embeddings and to `cls.predictions.bias`, and files do not repeat tied tensors.
_TIED = ("cls.predictions.decoder.weight", "cls.predictions.decoder.bias")


def is_huggingface(state: Iterable[str]) -> bool:
    """Whether these are keys of a Hugging Face BLIP checkpoint."""
    return any(key.startswith("vision_model.") for key in state)


def from_huggingface(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Hugging Face's tensors under our names; an unknown key keeps its name."""
    return {_rename(key, theirs=0): tensor for key, tensor in state.items()}


def to_huggingface(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our tensors under Hugging Face's names; what only training needs (momentum, queues, `temp`) is left out."""
    parts = ("visual_encoder", "text_encoder", "text_decoder", "vision_proj", "text_proj", "itm_head")
    kept = {key: tensor for key, tensor in state.items() if key.split(".")[0] in parts and not key.endswith(_TIED)}
    return {_rename(key, theirs=1): tensor for key, tensor in kept.items()}


def _rename(key: str, theirs: int) -> str:
    """`key` under the other side's name; `theirs` says which of each pair above it is under now."""
    for pair in _VISION:
        if key.startswith(pair[theirs]):
            key = pair[1 - theirs] + key.removeprefix(pair[theirs])
            break
    else:
        return key
    for pair in _VISION_LAYER:
        key = re.sub(rf"(\.\d+\.){re.escape(pair[theirs])}", rf"\g<1>{pair[1 - theirs]}", key)
    return key
