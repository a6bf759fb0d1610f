"""The keys that every task's data has, and the choice between published annotations and a user's own."""

import abc
import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, TypeVar

from data.dataset import EvalDataset, TrainDataset
from data.loaders import EvalLoader, Share, TrainLoader, eval_loader
from data.records.published import annotation_file
from data.workers import resolve_workers
from settings import ConfigError, Settings, check, setting
from transform.image import Augmentation, EvalTransform, TrainTransform

_MOST = {  # what no machine of today exceeds; a number far above it is a mistake, and would fill the memory
    "image_size": 10_000,
    "batch_size": 1_000_000,
    "batch_size_train": 1_000_000,
    "batch_size_test": 1_000_000,
    "num_frm_test": 10_000,
}
_MOST_WORKERS = 1_000
_FOLDERS = ("image_root", "url_root", "vqa_root", "vg_root", "video_root")  # `~` is the home in them, as in files

EvalData = TypeVar("EvalData", bound=EvalDataset)


@dataclass
class LoadedData(Settings):
    """The keys that whatever reads pictures has."""

    num_workers: int | Literal["auto"] = setting(
        "auto",
        "loader processes of each process of a run; 0 loads in that process itself, auto goes by the processors it has",
    )
    max_bad_images: float = setting(0.01, "share of unreadable training images above which a run ends with an error")

    def __post_init__(self) -> None:
        number = 0 if self.num_workers == "auto" else self.num_workers
        rule = "0 or more, or auto" if number < 0 else f"at most {_MOST_WORKERS:,}"
        check(0 <= number <= _MOST_WORKERS, "num_workers", number, rule)
        for key in _FOLDERS:
            if folder := getattr(self, key, ""):
                setattr(self, key, os.path.expanduser(folder))
        check(0 <= self.max_bad_images <= 1, "max_bad_images", self.max_bad_images, "a share, from 0 to 1")
        super().__post_init__()

    def workers(self) -> int:
        """`num_workers` as a number."""
        return resolve_workers(self.num_workers)


@dataclass
class DataConfig(LoadedData, abc.ABC):
    """The keys that the data of every task has."""

    image_size: int = setting(384, "side in pixels of the square that images are resized to")
    augmentation: Augmentation = setting(
        "full", "training pictures: full (crop, flip, RandAugment), crop (crop and flip only) or none (whole pictures)"
    )
    min_scale: float = setting(0.5, "smallest share of a training picture's area that a crop may have")

    def __post_init__(self) -> None:
        for key, most in _MOST.items():
            value = getattr(self, key, 1)
            if value is None:  # left to the device
                continue
            check(1 <= value <= most, key, value, "at least 1" if value < 1 else f"at most {most:,}")
        check(0 < self.min_scale <= 1, "min_scale", self.min_scale, "a share of the area, above 0 and up to 1")
        super().__post_init__()

    @abc.abstractmethod
    def annotations(self, split: str) -> list[Path]:
        """The annotation files of a split; published ones are fetched when missing."""

    def eval_transform(self) -> EvalTransform:
        """The transform from a picture to the model's input in evaluation."""
        return EvalTransform(self.image_size)

    def train_transform(self) -> TrainTransform:
        """The transform from a picture to the model's input in training."""
        return TrainTransform(self.image_size, self.min_scale, self.augmentation)

    def eval_loader(self, dataset: EvalData, batch_size: int, share: Share) -> EvalLoader[EvalData]:
        """The batches of a split that this process evaluates."""
        return eval_loader(dataset, batch_size, num_workers=self.workers(), **share)

    def train_loader(self, dataset: TrainDataset, batch_size: int, share: Share) -> TrainLoader:
        """The batches that this process trains on."""
        return TrainLoader(dataset, batch_size, num_workers=self.workers(), max_bad_images=self.max_bad_images, **share)


@dataclass
class PublishedData(DataConfig):
    """The keys of tasks whose annotations were published with the paper, and the choice between those and own files.

    A task's class brings `train_file`, `val_file` and `test_file`, as far as the task has these splits.
    """

    ann_root: str = setting("annotation", "folder of the published annotation files, fetched to there when missing")

    published: ClassVar[dict[str, str]] = {}  # split -> name of the paper's annotation file

    def __post_init__(self) -> None:
        if self.published_file("train") and list(self._own_files()) == ["train"]:
            raise ConfigError("train_file is your own, but neither val_file nor test_file is there to validate on")
        for split in ("val", "test"):
            if truth := getattr(self, f"{split}_gt_file", ""):
                own = self.own_split(split)
                rule = (
                    f"empty where {own}_file stands in for {split}: name that file as {split}_file to score it by this"
                )
                check(own in (None, split), f"{split}_gt_file", truth, rule)
        super().__post_init__()

    def published_file(self, split: str) -> str | None:
        """The name of the paper's annotation file of a split; None if there is none."""
        return self.published.get(split)

    def _own_files(self) -> dict[str, str]:
        """Split -> the user's own annotation file, of the splits that have one."""
        files = {split: getattr(self, f"{split}_file", "") for split in ("train", "val", "test")}
        return {split: file for split, file in files.items() if file}

    def own_split(self, split: str) -> str | None:
        """The split whose own file is used as `split`; None where the published annotations are.

        Published annotations are used only where no own file is named, so that nobody's own model is tested on COCO by
        mistake; where there are own files, val and test stand in for each other.
        """
        own = list(self._own_files())
        if split in own or not own:
            return split if own else None
        other = {"val": "test", "test": "val"}.get(split)
        if other not in own:
            raise ConfigError(f"{own[0]}_file is your own, but there is no {split}_file: give it, published or own")
        return other

    def evaluated_splits(self) -> list[str]:
        """The splits to evaluate: 'val' and 'test', or only the one that there is an own file of."""
        return list(dict.fromkeys(self.own_split(split) or split for split in ("val", "test")))

    def annotations(self, split: str) -> list[Path]:
        """The files of 'train', 'val' or 'test': the user's own, or the published one (fetched when missing)."""
        if own := self.own_split(split):
            return [annotation_file(self._own_files()[own])]
        name = self.published_file(split)
        if name is None:
            raise ConfigError(f"no annotations were published for this task's split {split!r}: give {split}_file")
        return [annotation_file(Path(self.ann_root) / name)]
