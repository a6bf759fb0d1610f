"""Build the model that a checkpoint was made for, from the checkpoint alone."""

import inspect
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from models.config import VIT_SIZES, TextConfig
from models.paths import resolve
from models.weights.files import CheckpointError, State, read_state, without_wrappers
from models.weights.huggingface import from_huggingface, is_huggingface
from models.weights.load import load_state

Model = TypeVar("Model", bound=nn.Module)


def build_from_checkpoint(kind: type[Model], source: str | Path) -> Model:
    """A model of one's choice with all sizes, and all weights, from a checkpoint.

    Args:
        kind: the model's class, such as `BLIPDecoder`.
        source: released name, path, URL or hub name.

    Raises:
        CheckpointError: the checkpoint is not of this task, or does not tell its sizes.
        DownloadError: it is not here and cannot be fetched.
    """
    stored, metadata = read_state(source)
    state, _ = without_wrappers(stored)
    config = metadata.get("config")
    sizes = read_architecture(state, config if isinstance(config, Mapping) else {}, str(source))
    accepted = inspect.signature(kind).parameters
    model = kind(**{name: value for name, value in sizes.items() if name in accepted})
    load_state(model, stored, source=str(source))
    return model


def read_architecture(state: State, config: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The constructor arguments of the model that `state` belongs to.

    Shapes tell all sizes but the numbers of attention heads. Those, and the settings of the text model that are no
    sizes, are taken from `config` (a training run's, or Hugging Face's); where it does not tell, the heads have 64
    dimensions, as in the named sizes.
    """
    vision_heads = config.get("vision_config", {}).get("num_attention_heads")
    if is_huggingface(state):
        state = from_huggingface(dict(state))
    if "visual_encoder.pos_embed" not in state:
        raise CheckpointError(f"{source} holds no image encoder, so it is no BLIP checkpoint")
    patches, width = state["visual_encoder.pos_embed"].shape[1] - 1, state["visual_encoder.pos_embed"].shape[2]
    patch_size = state["visual_encoder.patch_embed.proj.weight"].shape[-1]
    text = next((part for part in ("text_encoder", "text_decoder.bert") if _has(state, part)), None)
    if text is None:
        raise CheckpointError(f"{source} holds no text model, so it is no BLIP checkpoint")

    vit = config.get("vit")
    if isinstance(vit, Mapping):
        vision_heads = vit.get("num_heads", vision_heads)
    text_settings = _text_settings(config, source)
    text_heads = text_settings.get("num_attention_heads")
    positions, hidden_size = state[f"{text}.embeddings.position_embeddings.weight"].shape
    arguments: dict[str, Any] = {
        "image_size": round(patches**0.5) * patch_size,
        "vit": {
            "embed_dim": width,
            "depth": _count(state, "visual_encoder.blocks."),
            "num_heads": vision_heads or _heads(width, source, "vit: {num_heads: ...}"),
            "patch_size": patch_size,
        },
        "med_config": text_settings
        | {
            "hidden_size": hidden_size,
            "num_hidden_layers": _count(state, f"{text}.encoder.layer."),
            "num_attention_heads": text_heads or _heads(hidden_size, source, "med_config: {num_attention_heads: ...}"),
            "intermediate_size": state[f"{text}.encoder.layer.0.intermediate.dense.weight"].shape[0],
            "max_position_embeddings": positions,
        },
    }
    if "vision_proj.weight" in state:
        arguments["embed_dim"] = state["vision_proj.weight"].shape[0]
    arguments["vit"] = next((name for name, size in VIT_SIZES.items() if size == arguments["vit"]), arguments["vit"])
    if config.get("vocab_file"):
        arguments["vocab_file"] = resolve(config["vocab_file"])
    if config.get("prompt") is not None:  # an empty one is a prompt too
        arguments["prompt"] = config["prompt"]
    return arguments


def _text_settings(config: Mapping[str, Any], source: str) -> dict[str, Any]:
    """What a configuration tells of the text model: in Hugging Face's `text_config`, or in a run's `med_config`."""
    described = config.get("text_config") or config.get("med_config")
    if not described:
        return {}
    if not isinstance(described, Mapping) and not resolve(described).is_file():
        raise CheckpointError(
            f"{source} was trained with the text model of {described}, which is not here: put the file back, as it "
            "tells the number of attention heads, or write its content into the checkpoint's `config` as `med_config`"
        )
    return asdict(TextConfig.read(described))


def _has(state: State, prefix: str) -> bool:
    return any(key.startswith(f"{prefix}.") for key in state)


def _count(state: State, prefix: str) -> int:
    return len({key.removeprefix(prefix).split(".")[0] for key in state if key.startswith(prefix)})


def _heads(width: int, source: str, key: str) -> int:
    if width % 64:
        raise CheckpointError(f"{source} does not tell its number of attention heads: add `{key}` to its `config`")
    return width // 64
