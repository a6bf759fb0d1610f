"""The data keys of each task's config: which files, which folders, how many at a time.

A script mixes one of these into its own config (`class Config(TrainConfig, CaptionData)`) and hands the values, never
the config itself, to the datasets. Where no file is named, the paper's annotation files are taken from `ann_root`, and
downloaded to there when missing; `train_file`, `val_file` and `test_file` name a user's own (formats: docs/data.md).
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from data.config_base import DataConfig, PublishedData
from data.records.annotations import list_files
from data.records.published import annotation_file
from data.remote.stage import Staging
from files import resolve
from settings import ConfigError, MissingFile, check, setting
from settings.prompt import PromptSettings


@dataclass
class PretrainData(DataConfig):
    """Pre-training: image-text pairs from JSON files, from WebDataset shards, or from both."""

    train_file: list[str] = setting(
        [], "lists (.json, .jsonl, .parquet) of {image, caption} or {url, caption}, as paths or patterns"
    )
    image_root: str = setting("", "folder that the annotations' `image` paths start from")
    url_root: str = setting(
        "", "folder of the downloads of records that carry `url` (docs/data.md says how it is laid out)"
    )
    laion_path: str = setting("", "folder of further annotation files, of which each epoch takes the next one")
    shards: list[str] = setting(
        [],
        "shards (WebDataset's .tar, or .parquet with pictures as bytes), with {00000..00099} or * patterns: paths, or "
        "addresses (s3://, gs://, https://, file://)",
    )
    stage_dir: str = setting(
        "", "folder on a local disk for copies of shards at addresses; empty: below the folder of temporary files"
    )
    stage_gib: float = setting(64.0, "GiB of these copies that each process may hold")
    uids: str = setting("", "list of the samples of the shards to use, a .npy file of uids as DataComp has them")
    shards_share: float | None = setting(None, "share of the samples drawn from shards; null: as many as they hold")
    shard_lanes: int | None = setting(
        None,
        "lanes to deal the shards to, a multiple of the processes, each of which then reads shards of its own; null: "
        "all processes read from the same shards",
    )
    batch_size: int = setting(75, "images per process and step")
    image_size: int = setting(224, "side in pixels of the square that images are resized to")
    min_scale: float = setting(0.2, "smallest share of a training picture's area that a crop may have")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.train_file or self.laion_path or self.shards):
            raise ConfigError("nothing to train on: give train_file (a list of files), laion_path or shards")
        if self.uids and not self.shards:
            raise ConfigError("uids lists samples of shards: give shards, or leave it out")
        check(self.stage_gib > 0, "stage_gib", self.stage_gib, "above 0")
        self.stage_dir = os.path.expanduser(self.stage_dir)
        if self.shard_lanes is not None:
            check(self.shard_lanes >= 2, "shard_lanes", self.shard_lanes, "at least 2, or null")
            if not self.shards:
                raise ConfigError("shard_lanes deals shards to the processes: give shards, or leave it out")
        if self.shards_share is not None:
            check(0 < self.shards_share < 1, "shards_share", self.shards_share, "between 0 and 1")
            if not self.shards or not (self.train_file or self.laion_path):
                raise ConfigError("shards_share mixes shards with annotation files: give both, or leave it out")

    def annotations(self, split: str) -> list[Path]:
        """The annotation files that every epoch reads; pre-training has the split 'train' only."""
        if split != "train":
            raise ValueError(f"pre-training data has no split {split!r}")
        return list_files(self.train_file, "train_file")

    def staging(self) -> Staging:
        """Where copies of shards at addresses lie."""
        return Staging(self.stage_dir, self.stage_gib)

    def laion_files(self) -> list[Path]:
        """The annotation files of `laion_path` in the order of the epochs that read them."""
        if not self.laion_path:
            return []
        folder = resolve(self.laion_path)
        if not os.path.isdir(folder):
            raise MissingFile(f"laion_path {self.laion_path!a} is no folder")
        files = sorted(path for path in folder.glob("*") if path.suffix in (".json", ".jsonl", ".parquet"))
        if not files:
            raise MissingFile(f"laion_path {self.laion_path} holds no .json, .jsonl or .parquet file")
        return files


@dataclass
class CaptionData(PublishedData, PromptSettings):
    """Captioning: COCO's Karpathy split, or own files in the same format."""

    image_root: str = setting("", "folder that the annotations' `image` paths start from")
    coco_gt_root: str = setting("annotation/coco_gt", "folder of the published ground truth of val and test")
    train_file: str = setting("", "own training annotations in place of coco_karpathy_train.json")
    val_file: str = setting("", "own validation annotations in place of coco_karpathy_val.json")
    test_file: str = setting("", "own test annotations in place of coco_karpathy_test.json")
    val_gt_file: str = setting(
        "", "own validation ground truth (COCO format); left out, the published one, or made from val_file"
    )
    test_gt_file: str = setting(
        "", "own test ground truth (COCO format); left out, the published one, or made from test_file"
    )
    batch_size: int = setting(32, "images per process and training step")
    batch_size_test: int | None = setting(
        None, "images that a process captions at once in evaluation; null: 256 on CUDA, 32 elsewhere"
    )

    published: ClassVar[dict[str, str]] = {split: f"coco_karpathy_{split}.json" for split in ("train", "val", "test")}

    def ground_truth(self, split: str) -> Path | None:
        """The COCO ground truth of 'val' or 'test'; None when the split is the user's own and brings none."""
        own = self.own_split(split)
        if file := getattr(self, f"{own or split}_gt_file"):
            return annotation_file(file)
        if own:
            return None
        return annotation_file(Path(self.coco_gt_root) / f"coco_karpathy_{split}_gt.json")


@dataclass
class NoCapsData(PublishedData, PromptSettings):
    """NoCaps: images of objects that COCO does not have, captioned and sent to the server."""

    image_root: str = setting("", "folder that the annotations' `image` paths start from")
    val_file: str = setting("", "own annotations in place of nocaps_val.json")
    test_file: str = setting("", "own annotations in place of nocaps_test.json")
    batch_size: int | None = setting(None, "images that a process captions at once; null: 256 on CUDA, 32 elsewhere")

    published: ClassVar[dict[str, str]] = {"val": "nocaps_val.json", "test": "nocaps_test.json"}


RETRIEVAL_FILES = {
    dataset: {split: f"{prefix}_{split}.json" for split in ("train", "val", "test")}
    for dataset, prefix in (("coco", "coco_karpathy"), ("flickr", "flickr30k"))
}


@dataclass
class RetrievalData(PublishedData):
    """Image-text retrieval: COCO, Flickr30k, or own files in the same format."""

    dataset: Literal["coco", "flickr"] = setting("coco", "whose published annotations are used: coco or flickr")
    image_root: str = setting("", "folder that the annotations' `image` paths start from")
    train_file: str = setting("", "own training annotations in place of the published ones")
    val_file: str = setting("", "own validation annotations in place of the published ones")
    test_file: str = setting("", "own test annotations in place of the published ones")
    batch_size_train: int = setting(32, "images per process and training step")
    batch_size_test: int = setting(64, "images that a process encodes at once in evaluation")

    def published_file(self, split: str) -> str | None:
        return RETRIEVAL_FILES[self.dataset].get(split)


@dataclass
class VQAData(PublishedData):
    """Visual question answering: VQA v2 with Visual Genome questions, or own files in the same format."""

    vqa_root: str = setting("", "folder of the images of records with `dataset: vqa`")
    vg_root: str = setting("", "folder of the images of records with `dataset: vg`")
    image_root: str = setting(
        "", "folder of the images of records without `dataset`, and of those whose own root is empty"
    )
    train_files: list[str] = setting(["vqa_train", "vqa_val", "vg_qa"], "published training annotations, by name")
    train_file: str = setting("", "own training annotations in place of train_files")
    val_file: str = setting("", "own annotated questions to validate on; the published split has none")
    test_file: str = setting("", "own test questions in place of vqa_test.json")
    answer_list: str = setting("", "own JSON list of candidate answers in place of answer_list.json")
    val_gt_file: str = setting("", "official annotations to score val_file by; empty: its own answers")
    test_gt_file: str = setting("", "official annotations to score test_file by; empty: its own answers, if any")
    batch_size_train: int = setting(16, "images per process and training step")
    batch_size_test: int = setting(32, "images per process and evaluation step")
    image_size: int = setting(480, "side in pixels of the square that images are resized to")

    published: ClassVar[dict[str, str]] = {"test": "vqa_test.json"}

    def __post_init__(self) -> None:
        check(bool(self.train_file or self.train_files), "train_files", self.train_files, "at least one, or train_file")
        super().__post_init__()

    def image_folders(self) -> dict[str, str]:
        """The folders of images, by the arguments of the datasets."""
        return {"image_root": self.image_root, "vqa_root": self.vqa_root, "vg_root": self.vg_root}

    def own_split(self, split: str) -> str | None:
        if split == "train" and not self.train_file:
            return None  # an own val beside published training questions makes sense: the published val has no answers
        return super().own_split(split)

    def annotations(self, split: str) -> list[Path]:
        if split == "train" and not self.train_file:
            return [
                annotation_file(Path(self.ann_root) / f"{name.removesuffix('.json')}.json") for name in self.train_files
            ]
        return super().annotations(split)

    def ground_truth(self, split: str) -> Path | None:
        """The official annotations of 'val' or 'test'; None where the questions' own answers count, if any."""
        official = {"val": self.val_gt_file, "test": self.test_gt_file}[split]
        return resolve(official) if official else None

    def answer_file(self) -> Path:
        """The JSON list of the answers that ranking chooses from.

        Raises ConfigError where the training questions are the user's own and no list is given: the published answers
        belong to other questions.
        """
        if self.train_file and not self.answer_list:
            raise ConfigError(
                "answer_list: train_file is your own, so name the JSON list of its answers to choose from (or "
                f"{Path(self.ann_root) / 'answer_list.json'} for those of VQA v2), or set inference: generate"
            )
        return annotation_file(self.answer_list or Path(self.ann_root) / "answer_list.json")


@dataclass
class NLVRData(PublishedData):
    """NLVR2: is a sentence true of two images?"""

    image_root: str = setting("", "folder that the annotations' `images` paths start from")
    train_file: str = setting("", "own training annotations in place of nlvr_train.json")
    val_file: str = setting("", "own validation annotations in place of nlvr_dev.json")
    test_file: str = setting("", "own test annotations in place of nlvr_test.json")
    batch_size_train: int = setting(16, "pairs per process and training step")
    batch_size_test: int = setting(64, "pairs per process and evaluation step")

    published: ClassVar[dict[str, str]] = {"train": "nlvr_train.json", "val": "nlvr_dev.json", "test": "nlvr_test.json"}


@dataclass
class VideoData(PublishedData):
    """Text-to-video retrieval: MSR-VTT's test clips, or own clips in the same format."""

    video_root: str = setting("", "folder of the clips; `clip_name` without a suffix means .mp4")
    test_file: str = setting("", "own annotations in place of msrvtt_test.jsonl")
    num_frm_test: int = setting(8, "frames taken evenly from a clip")
    batch_size: int = setting(64, "clips that a process encodes at once")

    published: ClassVar[dict[str, str]] = {"test": "msrvtt_test.jsonl"}
