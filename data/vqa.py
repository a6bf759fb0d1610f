"""Visual question answering: VQA v2 (ten annotators' answers), Visual Genome (one answer), or own questions."""

import logging
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data.dataset import EvalDataset, EvalImage, Sample, TrainDataset, TrainImage
from data.records.annotations import AnnotationError, Annotations, TextLimit, records
from data.records.formats import Format, answers, identifier, path, quote, replace_lone_surrogates, text
from data.text import clean_question

_QUESTION = (
    path("image"),
    text("question"),
    text("dataset", required=False),
    identifier("question_id", required=False),
)
_TYPES = (text("question_type", required=False), text("answer_type", required=False))

TRAIN = Format("vqa", (*_QUESTION, answers("answer")), needed="answer")
EVAL = Format("vqa eval", (*_QUESTION, answers("answer", required=False), *_TYPES))

logger = logging.getLogger("blip.data")

VISUAL_GENOME_WEIGHT = 0.2  # of its single answer; those of VQA v2 weigh the share of ten people who gave them


def weighted_answers(answers: Sequence[str], dataset: str | None) -> dict[str, float]:
    """Each different answer with its weight: the share of the annotators who gave it, or Visual Genome's constant."""
    if dataset == "vg":
        return dict.fromkeys(answers, VISUAL_GENOME_WEIGHT)
    return {answer: count / len(answers) for answer, count in Counter(answers).items()}


class ImageRoots:
    """dataset of a record -> the folder of its image; `image_root` for other datasets and for a folder not given."""

    def __init__(self, image_root: str | Path, vqa_root: str | Path, vg_root: str | Path) -> None:
        self._roots: dict[str | None, str | Path] = {"vqa": vqa_root or image_root, "vg": vg_root or image_root}
        self._default = image_root

    def __getitem__(self, dataset: str | None) -> str | Path:
        return self._roots.get(dataset, self._default)


class VQATrain(TrainDataset):
    """Batch: image uint8 [B, 3, S, S], question list[str], answers list[str] (those of all questions in one list),
    weights float32 [len(answers)], n list[int] (answers of each question)."""

    def __init__(
        self,
        files: Sequence[str | Path],
        transform: TrainImage,
        *,
        image_root: str | Path = "",
        vqa_root: str | Path = "",
        vg_root: str | Path = "",
        seed: int = 0,
    ) -> None:
        super().__init__(Annotations(files, TRAIN), image_root, transform, seed)
        self._roots = ImageRoots(image_root, vqa_root, vg_root)

    def sample(self, record: dict[str, Any], rng: np.random.Generator) -> Sample:
        answers = weighted_answers(record["answer"], record["dataset"])
        file = os.path.join(self._roots[record["dataset"]], record["image"])
        return {
            "image": self.image(file, rng),
            "question": clean_question(record["question"]),
            "answers": list(answers),
            "weights": list(answers.values()),
            "files": [file],
        }

    def collate(self, samples: Sequence[Sample]) -> dict[str, Any]:
        batch = super().collate(samples)
        batch["n"] = [len(answers) for answers in batch["answers"]]
        batch["answers"] = [answer for answers in batch["answers"] for answer in answers]
        batch["weights"] = torch.tensor([weight for weights in batch["weights"] for weight in weights])
        return batch


def check_lengths(questions: VQATrain, limit: TextLimit) -> None:
    """Raise AnnotationError for the first answer that the model cannot read whole; questions are cut."""
    questions.annotations.check_lengths("answer", limit)


class VQAEval(EvalDataset):
    """Batch: image uint8 [B, 3, S, S], question list[str], question_id list, index int64 [B].

    A record without a `question_id` gets its row, from 0; two records with one id are an AnnotationError. `annotations`
    hold the answers and their types where the split has them.
    """

    listed = ("question_id",)

    def __init__(
        self,
        files: Sequence[str | Path],
        transform: EvalImage,
        *,
        image_root: str | Path = "",
        vqa_root: str | Path = "",
        vg_root: str | Path = "",
    ) -> None:
        super().__init__(Annotations(files, EVAL), image_root, transform)
        self._roots = ImageRoots(image_root, vqa_root, vg_root)
        self.question_ids = _question_ids(self.annotations)

    def __getitem__(self, row: int) -> Sample:
        record = self.annotations[row]
        return {
            "image": self.image(record["image"], self._roots[record["dataset"]]),
            "question": clean_question(record["question"]),
            "question_id": self.question_ids[row],
            "index": row,
        }

    def files(self, row: int) -> list[str]:
        record = self.annotations[row]
        return [os.path.join(self._roots[record["dataset"]], record["image"])]

    def questions(self) -> dict[Any, tuple[str, list[str]]]:
        """question_id -> the question as in the file, and its picture."""
        return {
            self.question_ids[row]: (record["question"], self.files(row)) for row, record in enumerate(self.annotations)
        }

    def ground_truth(self) -> dict[Any, dict[str, Any]]:
        """question_id -> the annotators' `answers`, `question_type` and `answer_type` (those that the file has).

        A question without answers is left out. Raises AnnotationError where there are answers, and all are blank.
        """
        truth: dict[Any, dict[str, Any]] = {}
        blank: list[int] = []
        for row, record in enumerate(self.annotations):
            if record["answer"]:
                types = {key: record[key] for key in ("question_type", "answer_type") if record[key]}
                truth[self.question_ids[row]] = {"answers": record["answer"], **types}
            elif record["answer"] is not None:
                blank.append(row)
        if blank and not truth:
            raise AnnotationError(f"{self.annotations.place(blank[0])}, and all others: 'answer' is blank")
        if blank:
            places = (len(blank), self.annotations.place(blank[0]))
            logger.warning("%d questions whose answers are blank are not scored; the first is %s", *places)
        return truth


def _question_ids(annotations: Annotations) -> list[int | str]:
    ids = [row if given is None else given for row, given in enumerate(annotations.values("question_id"))]
    annotations.check_distinct(
        "question_id", ids, "it must be its own (that of a record without one is its row, counted from 0)"
    )
    return ids


def answer_list(file: str | Path, limit: TextLimit | None = None) -> list[str]:
    """The candidate answers of a JSON list of strings, without those that are blank.

    Raises AnnotationError for anything else, and for an answer longer than the limit.
    """
    answers: list[str] = []
    blank = 0
    for number, answer in enumerate(records(Path(file)), start=1):
        if not isinstance(answer, str):
            expected = "expected a JSON list of answers, each a string"
            raise AnnotationError(f"{file}, answer {number}: is {quote(answer)}, {expected}")
        if limit:
            limit.check(answer, f"{file}, answer {number}:")
        if answer.strip():
            answers.append(replace_lone_surrogates(answer))
        else:
            blank += 1
    if not answers:
        raise AnnotationError(
            f"{file}: expected a JSON list of answers, found {'only blank ones' if blank else 'none'}"
        )
    if blank:
        logger.warning("%s: %d blank answers are left out", file, blank)
    return answers
