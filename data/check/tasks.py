"""What each task's records are and where their pictures lie, for those who look at data whatever its task."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data import caption, nlvr, nocaps, pretrain, retrieval, video_retrieval, vqa
from data.config import (
    CaptionData,
    DataConfig,
    NLVRData,
    NoCapsData,
    PretrainData,
    RetrievalData,
    VideoData,
    VQAData,
)
from data.records.formats import Format

Record = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """What a task's records are and where their pictures lie."""

    config: type[DataConfig]
    formats: dict[str, Format]  # split -> format
    files: Callable[[Any, Record], list[str]]  # config, record -> picture or clip files
    text: Callable[[Record], str]
    unique: tuple[str, ...] = ()  # fields whose values may not occur twice in a split
    unique_in_evaluation: tuple[str, ...] = ()  # the same, in val and test only


def _joined(key: str, root: str = "image_root") -> Callable[[Any, Record], list[str]]:
    def files(config: Any, record: Record) -> list[str]:
        names = record[key] if isinstance(record[key], list) else [record[key]]
        return [os.path.join(getattr(config, root), name) for name in names]

    return files


def _pretrain_files(config: PretrainData, record: Record) -> list[str]:
    if record["image"] is not None:
        return [os.path.join(config.image_root, record["image"])]
    return [os.path.join(config.url_root, pretrain.downloaded_name(record["url"]))]


def _vqa_files(config: VQAData, record: Record) -> list[str]:
    folders = vqa.Folders(config.image_root, config.vqa_root, config.vg_root)
    return [os.path.join(folders[record["dataset"]], record["image"])]


def _captions(record: Record) -> str:
    return " | ".join(record["caption"] or [])


def _question(record: Record) -> str:
    return f"{record['question']} {' / '.join(dict.fromkeys(record['answer'] or []))}"


TASKS = {
    "pretrain": Task(PretrainData, {"train": pretrain.PAIR}, _pretrain_files, _captions),
    "caption": Task(
        CaptionData,
        {"train": caption.TRAIN, "val": caption.EVAL, "test": caption.EVAL},
        _joined("image"),
        _captions,
        unique_in_evaluation=("image", "image_id"),
    ),
    "retrieval": Task(
        RetrievalData,
        {"train": caption.TRAIN, "val": retrieval.EVAL, "test": retrieval.EVAL},
        _joined("image"),
        _captions,
        unique_in_evaluation=("image",),
    ),
    "vqa": Task(
        VQAData, {"train": vqa.TRAIN, "val": vqa.EVAL, "test": vqa.EVAL}, _vqa_files, _question, unique=("question_id",)
    ),
    "nlvr": Task(
        NLVRData,
        dict.fromkeys(("train", "val", "test"), nlvr.PAIR),
        _joined("images"),
        lambda record: f"{record['sentence']} ({record['label']})",
        unique=("identifier",),
    ),
    "nocaps": Task(
        NoCapsData,
        dict.fromkeys(("val", "test"), nocaps.EVAL),
        _joined("image"),
        lambda _: "",
        unique=("image", "img_id"),
    ),
    "msrvtt": Task(
        VideoData,
        {"test": video_retrieval.EVAL},
        lambda config, record: [str(video_retrieval.clip_file(config.video_root, record["clip_name"]))],
        _captions,
    ),
}


def task_of(file: Path) -> str | None:
    """The task that a config's file name speaks of."""
    return next((name for name in ("msrvtt", *TASKS) if name in file.stem), None)
