"""To and from Hugging Face's BLIP classes: their key names, and a folder that `transformers` loads.

The text parts have the same names on both sides (both are BERT's); the image encoder's differ. The three classes are
`BlipForConditionalGeneration` (a captioner), `BlipForQuestionAnswering` and `BlipForImageTextRetrieval`.
"""

import os
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.torch import save_file
from torch import Tensor, nn

from models.paths import atomic_write
from models.vit import LAYER_NORM_EPS, MLP_RATIO

if TYPE_CHECKING:
    from transformers import BlipConfig

    from models.blip import BLIPDecoder
    from models.blip_vqa import BLIPVQA
    from models.image_text import ImageTextModel

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


def save_huggingface(model: "BLIPDecoder | BLIPVQA | ImageTextModel", folder: str | Path) -> Path:
    """Write `model` as a folder that `transformers` loads: weights, configuration, tokenizer, image processor.

    Args:
        model: from `blip_decoder`, `blip_vqa`, `blip_itm` or `blip_retrieval` (saved without its momentum and queues).
        folder: made if need be; files of the same names are replaced.

    Returns:
        `folder`.

    Raises:
        ValueError: Hugging Face has no class for this model.
    """
    from transformers import BlipImageProcessor, BlipProcessor  # slow to import, and only needed here

    config = _config(model)
    side = model.visual_encoder.image_size
    processor = BlipProcessor(BlipImageProcessor(size={"height": side, "width": side}), model.tokenizer)
    weights = {key: tensor.contiguous().cpu() for key, tensor in to_huggingface(model.state_dict()).items()}

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as name:
        config.save_pretrained(name)
        processor.save_pretrained(name)
        for file in Path(name).iterdir():  # each file appears whole
            os.replace(file, folder / file.name)
    with atomic_write(folder / "model.safetensors") as temporary:
        save_file(weights, temporary, metadata={"format": "pt"})
    return folder


def _config(model: "BLIPDecoder | BLIPVQA | ImageTextModel") -> "BlipConfig":
    """The `transformers.BlipConfig` of a model."""
    from transformers import BlipConfig

    from models.blip import BLIPDecoder
    from models.image_text import ImageTextModel

    architecture = _architecture(model)
    text_model = model.text_decoder.bert if isinstance(model, BLIPDecoder) else model.text_encoder
    text, vision, special = text_model.config, model.visual_encoder.config, model.special
    # A matcher has no language-model loss, and a captioner no projections: there Hugging Face's own values stand.
    label_smoothing = 0.1 if isinstance(model, ImageTextModel) else model.label_smoothing
    projection = model.vision_proj.out_features if isinstance(model, ImageTextModel) else 256
    if architecture == "BlipForQuestionAnswering" and vision.embed_dim != text.hidden_size:
        raise ValueError(
            "Hugging Face's BlipForQuestionAnswering wants image and text states of one width; this model's image "
            f"encoder is {vision.embed_dim} wide and its text encoder {text.hidden_size}"
        )
    config = BlipConfig(
        text_config={
            "vocab_size": text_model.embeddings.word_embeddings.num_embeddings,
            "hidden_size": text.hidden_size,
            "encoder_hidden_size": vision.embed_dim,
            "intermediate_size": text.intermediate_size,
            "num_hidden_layers": text.num_hidden_layers,
            "num_attention_heads": text.num_attention_heads,
            "max_position_embeddings": text.max_position_embeddings,
            "hidden_act": "gelu",
            "layer_norm_eps": text.layer_norm_eps,
            "hidden_dropout_prob": text.hidden_dropout_prob,
            "attention_probs_dropout_prob": text.attention_probs_dropout_prob,
            "bos_token_id": special.dec,
            "eos_token_id": special.sep,
            "sep_token_id": special.sep,
            "pad_token_id": special.pad,
            "label_smoothing": label_smoothing,
        },
        vision_config={
            "hidden_size": vision.embed_dim,
            "intermediate_size": MLP_RATIO * vision.embed_dim,
            "num_hidden_layers": vision.depth,
            "num_attention_heads": vision.num_heads,
            "image_size": vision.image_size,
            "patch_size": vision.patch_size,
            "hidden_act": "gelu",
            "layer_norm_eps": LAYER_NORM_EPS,  # 1e-6; the library's default, 1e-5, shifts every image state
        },
        image_text_hidden_size=projection,
        label_smoothing=label_smoothing,
    )
    config.architectures = [architecture]
    return config


def _architecture(model: nn.Module) -> str:
    """The Hugging Face class that has the parts of this model."""
    parts = {key.split(".")[0] for key in model.state_dict()}
    doubled = any(".self0." in key for key in model.state_dict())
    if "text_encoder" not in parts and "text_decoder" in parts:
        return "BlipForConditionalGeneration"
    if "text_decoder" in parts and "itm_head" not in parts:
        return "BlipForQuestionAnswering"
    if "text_decoder" not in parts and {"itm_head", "vision_proj", "text_proj"} <= parts and not doubled:
        return "BlipForImageTextRetrieval"
    raise ValueError(
        f"Hugging Face has no BLIP class for {type(model).__name__}, only for captioners, VQA and retrieval models; "
        "load a pre-trained checkpoint into blip_decoder or blip_itm and save that"
    )
