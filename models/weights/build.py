"""Build the model that a checkpoint was made for, from the checkpoint alone."""

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from models.base import VisionLanguageModel
from models.blip import BLIPDecoder, BLIPFeatureExtractor
from models.blip_itm import BLIPMatcher
from models.blip_nlvr import BLIPNLVR
from models.blip_pretrain import BLIPPretrain
from models.blip_retrieval import BLIPRetrieval
from models.blip_vqa import BLIPVQA
from models.config import VIT_SIZES, TextConfig
from models.errors import ConfigError, one_line
from models.paths import resolve
from models.pixels import stored_pixels
from models.vocabulary import Vocabulary, stored_vocabulary
from models.weights.files import State, read_state, without_wrappers
from models.weights.huggingface_names import from_huggingface, is_huggingface
from models.weights.integrity import CheckpointError
from models.weights.load import load_state
from models.weights.sizes import check_kinds, check_size, count_heads, count_layers, shape_of

Model = TypeVar("Model", bound=VisionLanguageModel)


def build_from_checkpoint(
    kind: type[Model],
    source: str | Path,
    *,
    vocab_file: str | Path | Vocabulary | None = None,
    image_size: int | None = None,
) -> Model:
    """Build a model with the sizes, the vocabulary and the weights of a checkpoint.

    Args:
        kind: the model's class, such as `BLIPDecoder`.
        source: released name, path, URL or hub name.
        vocab_file: the vocabulary of an older checkpoint, which carries none, where it is not in its place any more.
        image_size: side of the square input, in pixels, to which position embeddings are resized; the checkpoint's own
            when None.

    Raises:
        CheckpointError: the checkpoint is not one of such a model, or lacks a size or its vocabulary.
        ConfigError: it carries another vocabulary than `vocab_file`.
        DownloadError: it is not on this machine and cannot be downloaded.
    """
    stored, metadata = read_state(source)
    state, _ = without_wrappers(stored)
    config = metadata.get("config")
    config = {} if config is None else config
    if isinstance(config, Mapping):
        config = {**config, **_described_sizes(metadata)}
    architecture = read_architecture(state, config, str(source))
    _check_image_size(architecture, metadata, str(source))
    vocabulary = vocab_file or stored_vocabulary(metadata, str(source)) or architecture.vocab_file
    if isinstance(vocabulary, str | Path) and not vocab_file and not os.path.exists(vocabulary):
        raise CheckpointError(
            f"{source} was trained with the vocabulary of {vocabulary}, which is not here: name the file where it is "
            "now, to predict.py by --vocab_file, in Python by `build_from_checkpoint(..., vocab_file=...)`"
        )
    with _named(str(source)):
        size = architecture.image_size if image_size is None else image_size
        model = replace(architecture, vocab_file=vocabulary, image_size=size).build(kind)
    model.pixels = stored_pixels(metadata, str(source)) or model.pixels
    model.check_weights(metadata, str(source))
    load_state(model, stored, source=str(source))
    return model


@dataclass(frozen=True)
class Architecture:
    """The sizes and settings of a model, as its checkpoint gives them.

    Attributes:
        image_size: side of the square input, in pixels.
        vit: the image encoder: a name of `VIT_SIZES`, or a mapping of sizes.
        text: the sizes of the text models.
        embed_dim: width of the space in which images and texts are compared.
        prompt: the words every caption starts with; by default the released captioners' prompt.
        vocab_file: the tokenizer's vocabulary; bert-base-uncased's when None.
    """

    image_size: int
    vit: str | dict[str, int]
    text: TextConfig
    embed_dim: int = 256
    prompt: str = "a picture of "
    vocab_file: str | Path | Vocabulary | None = None

    def build(self, kind: type[Model]) -> Model:
        """Build a model of class `kind` with these sizes and random weights."""
        text = asdict(self.text)
        if issubclass(kind, BLIPDecoder):
            return kind(text, self.image_size, self.vit, prompt=self.prompt, vocab_file=self.vocab_file)
        if issubclass(kind, BLIPMatcher | BLIPRetrieval | BLIPPretrain):
            return kind(text, self.image_size, self.vit, embed_dim=self.embed_dim, vocab_file=self.vocab_file)
        if issubclass(kind, BLIPFeatureExtractor | BLIPVQA | BLIPNLVR):
            return kind(text, self.image_size, self.vit, vocab_file=self.vocab_file)
        raise TypeError(f"{kind.__name__} is no network of models/ that a checkpoint could be of")


def read_architecture(state: State, config: Mapping[str, Any], source: str) -> Architecture:
    """Read the architecture of the model that `state` belongs to.

    The shapes of tensors give all sizes but the numbers of attention heads. These, and the other settings of the text
    model, come from `config` (a training run's, or Hugging Face's). Without them a head has 64 dimensions, as in all
    named sizes.
    """
    check_kinds(config, source)
    if is_huggingface(state):
        state = from_huggingface(dict(state))
    if "visual_encoder.pos_embed" not in state:
        raise CheckpointError(f"{source} holds no image encoder, so it is no BLIP checkpoint")
    text = next((part for part in ("text_encoder", "text_decoder.bert") if _has_part(state, part)), None)
    if text is None:
        raise CheckpointError(f"{source} holds no text model, so it is no BLIP checkpoint")
    vit = _vit_sizes(state, config, source)
    patches = state["visual_encoder.pos_embed"].shape[1] - 1
    side = math.isqrt(patches)
    if side < 1 or side**2 != patches:
        raise CheckpointError(f"{source}: visual_encoder.pos_embed has {patches} patches, which make no square")
    with _named(source):
        text_config = _text_config(state, text, _stored_text_config(config, source), source)
    check_size(state, vit, text_config, source)
    architecture = Architecture(
        image_size=side * vit["patch_size"],
        vit=next((name for name, size in VIT_SIZES.items() if size == vit), vit),
        text=text_config,
        vocab_file=resolve(config["vocab_file"]) if config.get("vocab_file") else None,
    )
    if "vision_proj.weight" in state:
        architecture = replace(architecture, embed_dim=shape_of(state, "vision_proj.weight", 2, source)[0])
    if config.get("prompt") is not None:  # "" is a prompt, too
        architecture = replace(architecture, prompt=config["prompt"])
    return architecture


def _described_sizes(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The sizes in `VisionLanguageModel.describe`, under the keys of a config, whose files may be gone; {} without."""
    described = metadata.get("architecture")
    if not isinstance(described, Mapping):
        return {}
    return {key: described[key] for key in ("vit", "med_config") if isinstance(described.get(key), Mapping)}


def _check_image_size(architecture: Architecture, metadata: Mapping[str, Any], source: str) -> None:
    """Raise CheckpointError where a checkpoint's description has other pictures than its position embeddings."""
    described = metadata.get("architecture")
    pixels = described.get("pixels") if isinstance(described, Mapping) else None
    size = pixels.get("image_size") if isinstance(pixels, Mapping) else None
    if size not in (None, architecture.image_size):
        raise CheckpointError(
            f"{source}: its `pixels` say {one_line(size)} for the image size, and its position embeddings are of "
            f"{architecture.image_size} pixels"
        )


def _vit_sizes(state: State, config: Mapping[str, Any], source: str) -> dict[str, int]:
    """The sizes of the image encoder. Its heads come from a run's `vit` or Hugging Face's `vision_config`, if given."""
    width = shape_of(state, "visual_encoder.pos_embed", 3, source)[2]
    heads, key = (
        (config.get("vision_config") or {}).get("num_attention_heads"),
        "vision_config: {num_attention_heads: ...}",
    )
    vit = config.get("vit")
    if heads is None or isinstance(vit, Mapping):
        heads, key = (vit.get("num_heads", heads) if isinstance(vit, Mapping) else None), "vit: {num_heads: ...}"
    return {
        "embed_dim": width,
        "depth": count_layers(state, "visual_encoder.blocks.", source),
        "num_heads": count_heads(heads, width, source, key),
        "patch_size": shape_of(state, "visual_encoder.patch_embed.proj.weight", 4, source)[3],
    }


def _text_config(state: State, part: str, stored: TextConfig | None, source: str) -> TextConfig:
    """The config of the text model with prefix `part`: sizes from its tensors, all else from `stored`."""
    positions, width = shape_of(state, f"{part}.embeddings.position_embeddings.weight", 2, source)
    heads = None if stored is None else stored.num_attention_heads
    heads = count_heads(heads, width, source, "med_config: {num_attention_heads: ...}")
    return replace(
        stored or TextConfig(),
        hidden_size=width,
        num_hidden_layers=count_layers(state, f"{part}.encoder.layer.", source),
        num_attention_heads=heads,
        intermediate_size=shape_of(state, f"{part}.encoder.layer.0.intermediate.dense.weight", 2, source)[0],
        max_position_embeddings=positions,
    )


def _stored_text_config(config: Mapping[str, Any], source: str) -> TextConfig | None:
    """The text model's config in `config`: Hugging Face's `text_config` or a run's `med_config`; None without."""
    stored = config.get("text_config") or config.get("med_config")
    if not stored:
        return None
    if not isinstance(stored, Mapping) and not os.path.isfile(resolve(stored)):
        raise CheckpointError(
            f"{source} was trained with the text model of {one_line(stored)}, which is not here: put the file back, "
            "as it holds the number of attention heads, or write its content into the checkpoint's `config` as "
            "`med_config`"
        )
    return TextConfig.read(stored)


def _has_part(state: State, prefix: str) -> bool:
    return any(key.startswith(f"{prefix}.") for key in state)


@contextmanager
def _named(source: str) -> Iterator[None]:
    """Name the checkpoint in errors of the values of its config."""
    try:
        yield
    except CheckpointError:
        raise
    except (ConfigError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{source}: in its config, {one_line(error, 300)}") from error
