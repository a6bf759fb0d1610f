"""What a checkpoint was made for and trained on, if known: an evaluation warns where that makes scores misleading."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data.config import RETRIEVAL_FILES, CaptionData, NLVRData
from data.records.published import SPLITS
from files import resolve
from models.weights.conversions import CONVERSIONS
from models.weights.files import read_state
from models.weights.released import Released, find_released

# The published split that each task is fine-tuned on where the config names no own file.
_PUBLISHED_TRAINING = {
    "caption": CaptionData.published["train"],
    "nlvr": NLVRData.published["train"],
    **{f"retrieval {dataset}": files["train"] for dataset, files in RETRIEVAL_FILES.items()},
}


@dataclass(frozen=True)
class TrainedCheckpoint:
    """What is known of a checkpoint that these scripts, or those of 2022, wrote, or that others converted.

    Attributes:
        task: as in `Released`; recognized by the parts of the model, or by the name of the conversion.
        finetuned_on: what it was trained on: published splits as in `Released`, own annotation files by their absolute
            paths. If it started from a released checkpoint, also what that was fine-tuned on.
        scores: none, since none were published of this file.
    """

    task: str
    finetuned_on: tuple[str, ...]
    scores: Mapping[str, float] = field(default_factory=dict)


def provenance(source: str | None) -> Released | TrainedCheckpoint | None:
    """What is known of the checkpoint at `source`; None if nothing is, or if there is no checkpoint."""
    if not source:
        return None
    if released := find_released(source):
        return released
    if conversion := CONVERSIONS.get(source):
        return TrainedCheckpoint(conversion.task, ())
    path = Path(os.path.expanduser(source))
    if not os.path.isfile(path) or path.suffix == ".safetensors":
        return None  # Hugging Face's formats do not hold it
    state, metadata = read_state(path)
    task = _task({key.split(".")[0] for key in state})
    if task is None:
        return None
    config = metadata.get("config")
    return TrainedCheckpoint(task, tuple(_training_data(task, config if isinstance(config, Mapping) else {})))


def _task(parts: set[str]) -> str | None:
    """The task of a model with these parts."""
    if "cls_head" in parts:
        return "nlvr"
    if "text_decoder" in parts:
        return "caption" if "text_encoder" not in parts else "pretrain" if "itm_head" in parts else "vqa"
    return "retrieval" if "itm_head" in parts else None


def _training_data(task: str, config: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a run with this config trained on, as in `TrainedCheckpoint.finetuned_on`."""
    own = _texts(config.get("train_file"))
    if own:
        yield from (str(resolve(file).absolute()) for file in own)
    elif task == "vqa":
        folder = "".join(_texts(config.get("ann_root")))
        for name in _texts(config.get("train_files")):
            yield name if name in SPLITS else str(resolve(f"{folder}/{name}.json").absolute())
    elif "ann_root" in config:
        dataset = " ".join(["retrieval", *_texts(config.get("dataset"))]) if task == "retrieval" else task
        if file := _PUBLISHED_TRAINING.get(dataset):
            yield Path(file).stem
    for pretrained in _texts(config.get("pretrained")):
        if began_with := find_released(pretrained):
            yield from began_with.finetuned_on


def _texts(value: Any) -> list[str]:
    """The texts of a key that holds one or several; a config that these scripts did not write may hold anything."""
    return [text for text in (value if isinstance(value, list | tuple) else [value]) if isinstance(text, str) and text]
