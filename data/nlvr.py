"""NLVR2: `{images: [left, right], sentence, label: 'True' / 'False'}`; is the sentence true of the two images?"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data.dataset import EvalDataset, EvalImage, Sample, TrainDataset, TrainImage
from data.records.annotations import Annotations, TextLimit
from data.records.formats import Format, identifier, text, texts, truth
from data.text import clean_caption

PAIR = Format(
    "nlvr",
    (texts("images", count=2), text("sentence"), truth("label"), identifier("identifier", required=False)),
)

MAX_WORDS = 40
_OTHER_SIDE = {"left": "right", "right": "left"}


def swap_sides(sentence: str) -> str:
    """The sentence for the same images in the other order: the words left and right are exchanged."""
    return re.sub(r"\b(left|right)\b", lambda side: _OTHER_SIDE[side[0]], sentence)


class NLVRTrain(TrainDataset):
    """Batch: image uint8 [2B, 3, S, S] (the left images, then the right ones), sentence list[str], label int64 [B].

    Half of the pairs, drawn anew each epoch, are swapped, and `left` and `right` in their sentences with them.
    """

    def __init__(
        self, files: Sequence[str | Path], image_root: str | Path, transform: TrainImage, *, seed: int = 0
    ) -> None:
        super().__init__(Annotations(files, PAIR), image_root, transform, seed)

    def sample(self, record: dict[str, Any], rng: np.random.Generator) -> Sample:
        left, right = record["images"]
        sentence = clean_caption(record["sentence"], MAX_WORDS)
        if rng.random() >= 0.5:
            left, right, sentence = right, left, swap_sides(sentence)
        files = [os.path.join(self.image_root, name) for name in (left, right)]
        return {
            "image": torch.stack([self.image(file, rng) for file in files]),  # [2, 3, S, S]
            "sentence": sentence,
            "label": int(record["label"]),
            "files": files,
        }

    def collate(self, samples: Sequence[Sample]) -> dict[str, Any]:
        batch = _left_then_right(super().collate(samples))
        batch["files"] = batch["files"][0::2] + batch["files"][1::2]  # in the order of the images, too
        return batch


class NLVREval(EvalDataset):
    """Batch: image uint8 [2B, 3, S, S] (the left images, then the right ones), sentence list[str], label int64 [B],
    index int64 [B]."""

    def __init__(self, files: Sequence[str | Path], image_root: str | Path, transform: EvalImage) -> None:
        super().__init__(Annotations(files, PAIR), image_root, transform)

    def files(self, row: int) -> list[str]:
        return [os.path.join(self.image_root, name) for name in self.annotations[row]["images"]]

    def __getitem__(self, row: int) -> Sample:
        record = self.annotations[row]
        return {
            "image": torch.stack([self.image(name) for name in record["images"]]),
            "sentence": clean_caption(record["sentence"], MAX_WORDS),
            "label": int(record["label"]),
            "index": row,
        }

    def collate(self, samples: Sequence[Sample]) -> dict[str, Any]:
        return _left_then_right(super().collate(samples))


def check_lengths(pairs: NLVRTrain | NLVREval, limit: TextLimit) -> None:
    """Raise AnnotationError for the first sentence that the model cannot read whole."""
    pairs.annotations.check_lengths("sentence", limit, lambda sentence: clean_caption(sentence, MAX_WORDS))


def _left_then_right(batch: dict[str, Any]) -> dict[str, Any]:
    batch["image"] = batch["image"].transpose(0, 1).flatten(0, 1).contiguous()  # [B, 2, ...] -> [2B, ...]
    return batch
