"""The card of a model that is shared: what it is, what it was trained on, how well it does, and what its owner adds."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from models.base import VisionLanguageModel
from models.blip import BLIPDecoder
from models.blip_nlvr import BLIPNLVR
from models.blip_vqa import BLIPVQA
from models.errors import one_line
from models.image_text import ImageTextModel
from models.paths import open_regular
from models.weights.address import without_secrets
from models.weights.files import read_state
from models.weights.integrity import CheckpointError

_LARGEST = 16 << 20  # bytes of an `evaluate.txt`
# Keys of a run's config that tell of its data and training. Of files only the names are told, not where they lie.
_TOLD = (
    *("pretrained", "dataset", "train_file", "train_files", "corpus", "image_size"),
    *("max_epoch", "batch_size", "batch_size_train", "init_lr"),
)
_TASKS: tuple[tuple[type[VisionLanguageModel], str, str | None], ...] = (
    (BLIPDecoder, "captions images", "image-to-text"),
    (BLIPVQA, "answers questions about images", "visual-question-answering"),
    (ImageTextModel, "compares images with texts", None),
    (BLIPNLVR, "tells whether a sentence about two images is true (NLVR2)", None),
)


def model_card(
    model: VisionLanguageModel,
    name: str,
    *,
    transformers_class: str | None,
    checkpoint: Path | None,
    scores: Path | None,
) -> str:
    """A card in Markdown, with the hub's metadata in front.

    Args:
        name: the model's.
        transformers_class: the class of `transformers` that loads the folder, if one does.
        checkpoint: the file that the weights come from; its config tells what they were trained on.
        scores: an `evaluate.txt`; when None, the scores that `checkpoint` holds, else those of the file beside it.

    Raises:
        CheckpointError: `scores` holds none.
    """
    does, tag = next(((does, tag) for kind, does, tag in _TASKS if isinstance(model, kind)), ("encodes images", None))
    library = "transformers" if transformers_class else None
    data = ModelCardData(library_name=library, pipeline_tag=tag, tags=["blip"])
    metadata = read_state(checkpoint)[1] if checkpoint else {}
    config = metadata.get("config")
    loaders = [f"`{transformers_class}` of `transformers`"] if transformers_class else []
    loaders.append(f'`build_from_checkpoint({type(model).__name__}, "{name}")` of the code that wrote it')
    return f"""---
# license: fill in, for example bsd-3-clause
{data.to_yaml()}
---

# {name}

A BLIP model ([arXiv 2201.12086](https://arxiv.org/abs/2201.12086)) that {does}.

This folder is loaded by {" and by ".join(loaders)}.

## License

*Fill in: under which license the weights may be used. It depends on the data, and on the weights of the beginning.*

## Size

{_table(_sizes(model))}

## Training

{_table(_told(config if isinstance(config, Mapping) else {})) or "*Fill in: what it was trained on.*"}

## Scores

{_table(_scores(metadata, checkpoint, scores)) or "*Fill in: how well it does, and on which data.*"}

## Limits

*Fill in: what it is meant for, and what it must not be used for.*
"""


def _table(rows: Mapping[str, str]) -> str:
    """Rows of two columns in Markdown; empty without any."""
    return (
        "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows.items())])
        if rows
        else ""
    )


def _sizes(model: VisionLanguageModel) -> dict[str, str]:
    vision, text = model.visual_encoder.config, model.text_config
    return {
        "parameters": f"{sum(parameter.numel() for parameter in model.parameters()):,}",
        "image": f"{vision.image_size} x {vision.image_size} pixels, mean {model.pixels.mean}, std {model.pixels.std}",
        "image encoder": f"ViT, {vision.depth} blocks, {vision.embed_dim} wide, patches of {vision.patch_size} pixels",
        "text model": f"BERT, {text.num_hidden_layers} layers, {text.hidden_size} wide",
        "vocabulary": f"{len(model.tokenizer):,} tokens",
    }


def _told(config: Mapping[str, Any]) -> dict[str, str]:
    """What a run's config tells of its data and training."""
    return {key: _shown(config[key]) for key in _TOLD if config.get(key) not in (None, "", [], ())}


def _shown(value: Any) -> str:
    values = value if isinstance(value, list | tuple) else [value]
    names = [os.path.basename(without_secrets(one)) if isinstance(one, str) else str(one) for one in values]
    return one_line(", ".join(names)).replace("|", r"\|")


def _scores(metadata: Mapping[str, Any], checkpoint: Path | None, scores: Path | None) -> dict[str, str]:
    """The scores to tell: those of the file, else those of the checkpoint, else those of `evaluate.txt` beside it."""
    found = metadata.get("metrics")
    if scores is None and checkpoint is not None and not found and (checkpoint.parent / "evaluate.txt").is_file():
        scores = checkpoint.parent / "evaluate.txt"
    if scores is not None:
        with open_regular(scores) as file:
            content = file.read(_LARGEST)
        try:
            found = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{scores} holds no scores: it is not JSON ({one_line(error)})") from error
        if not isinstance(found, dict):
            raise CheckpointError(f"{scores} holds no scores by name")
    return dict(_numbers(found)) if isinstance(found, Mapping) else {}


def _numbers(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The scores that are numbers; a comparison with published ones is told by the one that was got."""
    for name, value in found.items():
        number = value.get("got") if isinstance(value, Mapping) else value
        if isinstance(number, int | float) and not isinstance(number, bool):
            yield one_line(name).replace("|", r"\|"), f"{number:.4g}"
