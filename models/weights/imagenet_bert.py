"""Initialize pre-training: the image encoder from ImageNet, the text models from BERT (paper, section 4.1)."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from models.vocabulary import standard_vocabulary
from models.weights.download import cache_dir, download
from models.weights.files import State, read_state
from models.weights.load import BY_VOCABULARY, LoadReport, load_state

if TYPE_CHECKING:
    from models.blip_pretrain import BLIPPretrain


DEIT_BASE = "https://dl.fbaipublicfiles.com/deit/deit_base_patch16_224-b5f2ef4d.pth"
VIT_LARGE = "timm/vit_large_patch16_224.augreg_in21k"
BERT_BASE = "google-bert/bert-base-uncased"


def initialize_pretraining(model: "BLIPPretrain", vit: str | Path, text: str | Path = BERT_BASE) -> list[LoadReport]:
    """Initialize a `BLIPPretrain`: image encoder, text encoder and decoder, and the momentum copies.

    Args:
        vit: see `initialize_vit`.
        text: see `initialize_text`.

    Raises:
        ConfigError: BERT's weights, but a vocabulary in which its words have other ids.
        CheckpointError, DownloadError: as the two.
    """
    if text == BERT_BASE:
        model.vocabulary.check_weights(standard_vocabulary(), f"{BERT_BASE} (initialize = true)")
    reports = [
        initialize_vit(model.visual_encoder, vit),
        initialize_text(model.text_encoder, text),
        initialize_text(model.text_decoder, text),
    ]
    model.reset_momentum()
    return reports


def initialize_vit(visual_encoder: nn.Module, source: str | Path) -> LoadReport:
    """Initialize the image encoder from ImageNet.

    Args:
        visual_encoder: from `models.vit.create_vit`; position embeddings are resized to its image size.
        source: 'base' (DeiT-B/16 224), 'large' (ViT-L/16 224, ImageNet-21k), or any checkpoint with timm's ViT names.

    Raises:
        CheckpointError: the weights are those of another ViT.
        DownloadError: they are not on this machine and cannot be downloaded.
    """
    if source == "base":
        source = download(DEIT_BASE, cache_dir() / DEIT_BASE.rsplit("/", 1)[-1], sha256="b5f2ef4d")
    elif source == "large":
        source = VIT_LARGE
    state, _ = read_state(source)
    return load_state(
        visual_encoder,
        state,
        source=str(source),
        ignored=dict.fromkeys(("head", "pre_logits"), "ImageNet's classifier is not needed"),
    )


def initialize_text(text_model: nn.Module, source: str | Path = BERT_BASE) -> LoadReport:
    """Initialize a text encoder (`TextModel`) or decoder (`TextDecoder`) from BERT.

    What BERT lacks keeps its values: the cross-attentions, and the word embeddings of `[DEC]` and `[ENC]`.

    Args:
        source: a hub repository or folder of BERT's masked language model.

    Raises:
        CheckpointError: a BERT of another size, or with another vocabulary than the model's tokenizer.
        DownloadError: the weights are not on this machine and cannot be downloaded.
    """
    state, _ = read_state(source)
    state = {_current_name(key): tensor for key, tensor in state.items()}
    ignored: dict[str, str] = dict.fromkeys(
        ("*pooler.*", "cls.seq_relationship", "*token_type_embeddings.weight"), "BLIP has one kind of segment"
    )
    if not hasattr(text_model, "cls"):
        state = {key.removeprefix("bert."): tensor for key, tensor in state.items()}
        ignored["cls"] = "an encoder predicts no words"
    return load_state(
        text_model,
        _with_added_tokens(state, text_model.state_dict()),
        source=str(source),
        reinitialized={"*.crossattention.*": "BERT has no cross-attention"},
        ignored=ignored,
    )


def _current_name(key: str) -> str:
    """Rename a key of an old or new BERT file to today's name, with `bert.` before all but the head's."""
    key = key.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
    return key if key.startswith(("bert.", "cls.")) else f"bert.{key}"


def _with_added_tokens(state: State, expected: State) -> State:
    """Append the model's own rows for `[DEC]` and `[ENC]` to the tensors with a row for each token."""
    extended = dict(state)
    for key, tensor in state.items():
        if key.endswith(BY_VOCABULARY) and key in expected and len(expected[key]) == len(tensor) + 2:
            extended[key] = torch.cat([tensor, expected[key][len(tensor) :].to(tensor)])
    return extended
