"""For each task: its config, the formats of its records, and where their pictures are."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data import caption, nlvr, nocaps, pretrain, retrieval, video_retrieval, vqa
from data.config import (
    CaptionData,
    NLVRData,
    NoCapsData,
    PretrainData,
    RetrievalData,
    VideoData,
    VQAData,
)
from data.config_base import DataConfig
from data.records.formats import Format

Annotation = dict[str, Any]  # one record of an annotation file


@dataclass(frozen=True)
class Task:
    """What the check needs to know of a task."""

    config: type[DataConfig]
    formats: dict[str, Format]  # split -> format of its records
    files: Callable[[Any, Annotation], list[str]]  # config, record -> picture or clip files
    text: Callable[[Annotation], str]
    unique: tuple[str, ...] = ()  # fields that must differ from record to record of a split
    unique_in_evaluation: tuple[str, ...] = ()  # the same, in val and test only


def _image_file(config: CaptionData | RetrievalData | NoCapsData, record: Annotation) -> list[str]:
    return [os.path.join(config.image_root, record["image"])]


def _nlvr_files(config: NLVRData, record: Annotation) -> list[str]:
    return [os.path.join(config.image_root, image) for image in record["images"]]


def _clip_file(config: VideoData, record: Annotation) -> list[str]:
    return [str(video_retrieval.clip_file(config.video_root, record["clip_name"]))]


def _pretrain_files(config: PretrainData, record: Annotation) -> list[str]:
    if record["image"] is not None:
        return [os.path.join(config.image_root, record["image"])]
    return [os.path.join(config.url_root, pretrain.downloaded_name(record["url"]))]


def _vqa_files(config: VQAData, record: Annotation) -> list[str]:
    roots = vqa.ImageRoots(config.image_root, config.vqa_root, config.vg_root)
    return [os.path.join(roots[record["dataset"]], record["image"])]


def _captions(record: Annotation) -> str:
    return " | ".join(record["caption"] or [])


def _question(record: Annotation) -> str:
    return f"{record['question']} {' / '.join(dict.fromkeys(record['answer'] or []))}"


def _statement(record: Annotation) -> str:
    return f"{record['sentence']} ({record['label']})"


TASKS = {
    "pretrain": Task(PretrainData, {"train": pretrain.PAIR}, _pretrain_files, _captions),
    "caption": Task(
        CaptionData,
        {"train": caption.TRAIN, "val": caption.EVAL, "test": caption.EVAL},
        _image_file,
        _captions,
        unique_in_evaluation=("image", "image_id"),
    ),
    "retrieval": Task(
        RetrievalData,
        {"train": caption.TRAIN, "val": retrieval.EVAL, "test": retrieval.EVAL},
        _image_file,
        _captions,
        unique_in_evaluation=("image",),
    ),
    "vqa": Task(
        VQAData, {"train": vqa.TRAIN, "val": vqa.EVAL, "test": vqa.EVAL}, _vqa_files, _question, unique=("question_id",)
    ),
    "nlvr": Task(
        NLVRData,
        dict.fromkeys(("train", "val", "test"), nlvr.PAIR),
        _nlvr_files,
        _statement,
        unique=("identifier",),
    ),
    "nocaps": Task(
        NoCapsData,
        dict.fromkeys(("val", "test"), nocaps.EVAL),
        _image_file,
        lambda _: "",
        unique=("image", "img_id"),
    ),
    "msrvtt": Task(
        VideoData,
        {"test": video_retrieval.EVAL},
        _clip_file,
        _captions,
    ),
}


CORPUS = "capfilt"
"""The task whose data are no splits of records, but a web corpus."""


def task_of(file: Path) -> str | None:
    """The task that a config's file name contains."""
    return next((name for name in ("msrvtt", *TASKS, CORPUS) if name in file.stem), None)
