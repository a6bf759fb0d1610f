"""Captioning: `{image, caption, image_id}` to train on, `{image, caption: [..]}` to evaluate (COCO, or own files)."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data.dataset import EvalDataset, EvalImage, Sample, TrainDataset, TrainImage, one_of
from data.records.annotations import AnnotationError, Annotations
from data.records.formats import Format, identity, path, texts
from data.text import clean_caption

TRAIN = Format("caption", (path("image"), texts("caption"), identity("image_id", required=False)))
EVAL = Format("caption eval", (path("image"), texts("caption", required=False), identity("image_id", required=False)))

_COCO_NAME = re.compile(r"(?:.*[/_])?(\d{12})\.\w+")


class CaptionTrain(TrainDataset):
    """Batch: image uint8 [B, 3, S, S], caption list[str] (each `prompt` + cleaned), image_id int64 [B].

    Equal `image_id`s of the file become equal numbers counted from 0; without them, images are told apart by path.
    """

    def __init__(
        self,
        files: Sequence[str | Path],
        image_root: str | Path,
        transform: TrainImage,
        *,
        prompt: str = "",
        max_words: int = 30,
        seed: int = 0,
    ) -> None:
        super().__init__(Annotations(files, TRAIN), image_root, transform, seed)
        self.prompt = prompt
        self.max_words = max_words
        self._image_ids = self.annotations.consecutive("image_id", "image")

    def record(self, epoch: int, index: int) -> dict[str, Any]:
        return super().record(epoch, index) | {"image_id": int(self._image_ids[index])}

    def sample(self, record: dict[str, Any], rng: np.random.Generator) -> Sample:
        caption = self.prompt + clean_caption(one_of(record["caption"], rng), self.max_words)
        file = os.path.join(self.image_root, record["image"])
        return {
            "image": self.image(file, rng),
            "caption": caption,
            "image_id": record["image_id"],
            "files": [file],
        }


class CaptionEval(EvalDataset):
    """Batch: image uint8 [B, 3, S, S], image_id list, index int64 [B].

    An image's id, by which ground truth and predictions meet, is the record's `image_id`; where no record has one, it
    is the number in file names like COCO's (COCO_val2014_000000391895.jpg, val2017/000000391895.jpg: 391895), and else
    the row, from 0.
    """

    listed = ("image_id",)

    def __init__(self, files: Sequence[str | Path], image_root: str | Path, transform: EvalImage) -> None:
        super().__init__(Annotations(files, EVAL), image_root, transform)
        self.image_ids = _image_ids(self.annotations)

    def __getitem__(self, row: int) -> Sample:
        return {"image": self.image(self.annotations[row]["image"]), "image_id": self.image_ids[row], "index": row}

    def ground_truth(self) -> dict[str, Any]:
        """The file's own captions in COCO's ground truth format, for a split that brings no ground truth file.

        Raises AnnotationError where an image has no caption.
        """
        annotations = []
        for row, record in enumerate(self.annotations):
            if not record["caption"]:
                raise AnnotationError(f"{self.annotations.place(row)} has no caption to compare with")
            for caption in record["caption"]:
                annotations.append({"image_id": self.image_ids[row], "id": len(annotations), "caption": caption})
        return {"images": [{"id": image_id} for image_id in self.image_ids], "annotations": annotations}


def _image_ids(annotations: Annotations) -> list[int | str]:
    records = list(annotations)
    ids = [record["image_id"] for record in records]
    if all(image_id is None for image_id in ids):
        names = [_COCO_NAME.fullmatch(record["image"]) for record in records]
        ids = [int(name[1]) for name in names] if all(names) else list(range(len(records)))
    if None in ids:
        raise AnnotationError(
            f"{annotations.place(ids.index(None))} has no image_id, though other records have one: give it its own"
        )
    annotations.check_distinct("image_id", ids)
    return ids
