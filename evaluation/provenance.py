"""What a checkpoint was made for and trained on, as far as it tells: evaluations warn of figures that mean little."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data.config import RETRIEVAL_FILES, CaptionData, NLVRData
from data.records.published import SPLITS
from files import resolve
from models.weights.files import read_state
from models.weights.released import Released, find_released

# What each task is fine-tuned on where no own file is named.
_PUBLISHED_TRAINING = {
    "caption": CaptionData.published["train"],
    "nlvr": NLVRData.published["train"],
    **{f"retrieval {dataset}": files["train"] for dataset, files in RETRIEVAL_FILES.items()},
}


@dataclass(frozen=True)
class TrainedCheckpoint:
    """A checkpoint that these scripts, or those of 2022, wrote.

    Attributes:
        task: as in `Released`, told by the model's parts.
        finetuned_on: what its last training saw: published splits as in `Released`, own annotation files by their whole
            path. And what the released checkpoint saw that it began with, if it did.
        scores: none; nothing was published of it.
    """

    task: str
    finetuned_on: tuple[str, ...]
    scores: Mapping[str, float] = field(default_factory=dict)


def provenance(source: str | None) -> Released | TrainedCheckpoint | None:
    """What is known of the checkpoint at `source`; None where it tells nothing, or where there is none."""
    if not source:
        return None
    if released := find_released(source):
        return released
    path = Path(source).expanduser()
    if not path.is_file() or path.suffix == ".safetensors":
        return None  # the formats of Hugging Face have no place for it
    state, beside = read_state(path)
    task = _task({key.split(".")[0] for key in state})
    config = beside.get("config")
    return (
        TrainedCheckpoint(task, tuple(_training_data(task, config if isinstance(config, Mapping) else {})))
        if task
        else None
    )


def _task(parts: set[str]) -> str | None:
    """The task of a model by its parts."""
    if "cls_head" in parts:
        return "nlvr"
    if "text_decoder" in parts:
        return "caption" if "text_encoder" not in parts else "pretrain" if "itm_head" in parts else "vqa"
    return "retrieval" if "itm_head" in parts else None


def _training_data(task: str, config: Mapping[str, Any]) -> Iterator[str]:
    """What a run with this config trains on."""
    own = config.get("train_file")
    if own:
        yield from (str(resolve(file).absolute()) for file in ([own] if isinstance(own, str) else own))
    elif task == "vqa":
        for name in config.get("train_files", ()):
            yield name if name in SPLITS else str(resolve(f"{config.get('ann_root', '')}/{name}.json").absolute())
    elif "ann_root" in config:
        dataset = f"retrieval {config.get('dataset')}" if task == "retrieval" else task
        if file := _PUBLISHED_TRAINING.get(dataset):
            yield Path(file).stem
    if began_with := find_released(str(config.get("pretrained") or "")):
        yield from began_with.finetuned_on
