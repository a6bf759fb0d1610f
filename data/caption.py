"""Captioning: `{image, caption, image_id}` to train on, `{image, caption: [..]}` to evaluate (COCO, or own files)."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data.dataset import EvalDataset, EvalImage, Sample, TrainDataset, TrainImage, pick_caption
from data.records.annotations import AnnotationError, Annotations
from data.records.formats import Format, captions, identifier, path
from data.text import clean_caption, join_prompt

TRAIN = Format(
    "caption", (path("image"), captions("caption"), identifier("image_id", required=False)), needed="caption"
)
EVAL = Format(
    "caption eval", (path("image"), captions("caption", required=False), identifier("image_id", required=False))
)

_COCO_NAME = re.compile(r"(?:.*[/_])?(\d{12})\.\w+")


class CaptionTrain(TrainDataset):
    """Batch: image uint8 [B, 3, S, S], caption list[str] (each with its prompt, cleaned), image_id int64 [B].

    The batch's image_id numbers the file's `image_id`s from 0; for a record without one, its image's path.
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
        self._image_ids = self.annotations.factorize("image_id", "image")

    def record(self, epoch: int, index: int) -> dict[str, Any]:
        return super().record(epoch, index) | {"image_id": int(self._image_ids[index])}

    def sample(self, record: dict[str, Any], rng: np.random.Generator) -> Sample:
        caption = join_prompt(self.prompt, clean_caption(pick_caption(record["caption"], rng), self.max_words))
        file = os.path.join(self.image_root, record["image"])
        return {
            "image": self.image(file, rng),
            "caption": caption,
            "image_id": record["image_id"],
            "files": [file],
        }


class CaptionEval(EvalDataset):
    """Batch: image uint8 [B, 3, S, S], image_id list, index int64 [B].

    Ground truth and predictions are matched by image_id. It is the record's `image_id`; where no record has one, the
    number in file names like COCO's (COCO_val2014_000000391895.jpg, val2017/000000391895.jpg: 391895), and for other
    names the row, from 0.
    """

    listed = ("image_id",)

    def __init__(self, files: Sequence[str | Path], image_root: str | Path, transform: EvalImage) -> None:
        super().__init__(Annotations(files, EVAL), image_root, transform)
        self.image_ids = _image_ids(self.annotations)

    def __getitem__(self, row: int) -> Sample:
        return {"image": self.image(self.annotations[row]["image"]), "image_id": self.image_ids[row], "index": row}

    def ground_truth(self) -> dict[str, Any]:
        """The file's own captions in COCO's ground truth format, for a split that brings no ground truth file.

        An image whose captions hold no word has an empty one. Raises AnnotationError where an image has none.
        """
        annotations: list[dict[str, Any]] = []
        for row, record in enumerate(self.annotations):
            if record["caption"] is None:
                raise AnnotationError(f"{self.annotations.place(row)} has no caption to compare with")
            for caption in record["caption"] or [""]:
                annotations.append({"image_id": self.image_ids[row], "id": len(annotations), "caption": caption})
        return {"images": [{"id": image_id} for image_id in self.image_ids], "annotations": annotations}


def _image_ids(annotations: Annotations) -> list[int | str]:
    """The id of each record's image, as `CaptionEval` describes it."""
    given = annotations.values("image_id")
    ids: list[int | str] = given
    if all(image_id is None for image_id in given):
        names = [_COCO_NAME.fullmatch(image) for image in annotations.values("image")]
        numbers = [int(name[1]) for name in names if name]
        ids = [*numbers] if len(numbers) == len(names) else [*range(len(names))]
    elif None in given:
        raise AnnotationError(
            f"{annotations.place(given.index(None))} has no image_id, though other records have one: give it its own"
        )
    annotations.check_distinct("image_id", ids)
    return ids
