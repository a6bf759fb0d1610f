"""Save a model as a folder that `transformers` loads.

The BLIP classes of `transformers` are `BlipForConditionalGeneration` (a captioner), `BlipForQuestionAnswering` and
`BlipForImageTextRetrieval`.
"""

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from models.blip import BLIPDecoder
from models.blip_vqa import BLIPVQA
from models.image_text import ImageTextModel
from models.paths import atomic_write
from models.vit import LAYER_NORM_EPS, MLP_RATIO
from models.weights.huggingface_names import to_huggingface
from models.weights.integrity import save_safetensors

if TYPE_CHECKING:
    from transformers import BlipConfig


def save_huggingface(model: BLIPDecoder | BLIPVQA | ImageTextModel, folder: str | Path) -> Path:
    """Write `model` as a folder that `transformers` loads: weights, configuration, tokenizer, image processor.

    Args:
        model: from `blip_decoder`, `blip_vqa`, `blip_itm` or `blip_retrieval` (saved without its momentum and queues).
        folder: created if necessary; files of the same names are replaced.

    Returns:
        `folder`.

    Raises:
        ValueError: Hugging Face has no class for this model.
    """
    from transformers import BlipImageProcessor, BlipProcessor  # slow to import, and only needed here

    config = _config(model)
    side = model.visual_encoder.image_size
    mean, std = list(model.pixels.mean), list(model.pixels.std)
    images = BlipImageProcessor(size={"height": side, "width": side}, image_mean=mean, image_std=std)
    processor = BlipProcessor(images, model.tokenizer)
    weights = {key: tensor.contiguous().cpu() for key, tensor in to_huggingface(model.state_dict()).items()}

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as name:
        config.save_pretrained(name)
        processor.save_pretrained(name)
        Path(name, "vocab.txt").write_text("".join(f"{token}\n" for token in model.vocabulary.tokens), encoding="utf-8")
        for file in Path(name).iterdir():  # each file appears whole
            os.replace(file, folder / file.name)
    with atomic_write(folder / "model.safetensors") as temporary:
        save_safetensors(weights, temporary, {"format": "pt"})
    return folder


def _config(model: BLIPDecoder | BLIPVQA | ImageTextModel) -> "BlipConfig":
    """The `transformers.BlipConfig` of a model."""
    from transformers import BlipConfig

    if isinstance(model, BLIPVQA) and model.vision_width != model.text_config.hidden_size:
        raise ValueError(
            "Hugging Face's BlipForQuestionAnswering needs image and text states of one width; this model's image "
            f"encoder is {model.vision_width} wide and its text encoder {model.text_config.hidden_size}"
        )
    architecture = transformers_class(model)
    if architecture is None:
        raise ValueError(
            f"Hugging Face has no BLIP class for {type(model).__name__}, only for captioners, VQA and retrieval "
            "models; load a pre-trained checkpoint into blip_decoder or blip_itm and save that"
        )
    text_model = model.text_decoder.bert if isinstance(model, BLIPDecoder) else model.text_encoder
    text, vision, special = text_model.config, model.visual_encoder.config, model.special
    # Where a model has no language-model loss or no projections, Hugging Face's default values are written.
    label_smoothing = 0.1 if isinstance(model, ImageTextModel) else model.label_smoothing
    projection = model.vision_proj.out_features if isinstance(model, ImageTextModel) else 256
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
    if isinstance(model, BLIPDecoder):
        config.prompt = model.prompt  # which `build_from_checkpoint` reads
    return config


def transformers_class(model: nn.Module) -> str | None:
    """The name of the class of `transformers` that is the same network as this model; None where there is none."""
    parts = {key.split(".")[0] for key in model.state_dict()}
    has_twins = any(".self0." in key for key in model.state_dict())
    if "text_encoder" not in parts and "text_decoder" in parts:
        return "BlipForConditionalGeneration"
    if "text_decoder" in parts and "itm_head" not in parts:
        is_one_width = isinstance(model, BLIPVQA) and model.vision_width == model.text_config.hidden_size
        return "BlipForQuestionAnswering" if is_one_width else None
    if "text_decoder" not in parts and {"itm_head", "vision_proj", "text_proj"} <= parts and not has_twins:
        return "BlipForImageTextRetrieval"
    return None
