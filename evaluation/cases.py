"""The samples of an evaluation as people look at them: what was wanted, what was got, how far off it is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from evaluation.gallery import Case
from evaluation.report import Findings
from metrics.caption import CaptionScores
from metrics.retrieval import labelled, ranks, retrieval_scores

Files = Sequence[str | Path]


def caption_cases(
    predictions: Sequence[Mapping[str, Any]],
    references: Mapping[Any, Sequence[str]],
    scores: CaptionScores,
    files: Mapping[Any, Files],
) -> list[Case]:
    """Captions by their CIDEr (of one image alone, where words have no weight, by ROUGE-L)."""
    by = "CIDEr" if "CIDEr" in scores.scores else "ROUGE-L"
    cases = []
    for prediction in predictions:
        image = prediction["image_id"]
        each = {metric: round(value, 2) for metric, value in scores.per_image[image].items()}
        lines = {"image_id": image, "prediction": prediction["caption"], "references": list(references[image])}
        cases.append(Case(files[image], lines | each, -each[by], f"{by} {each[by]:.1f}"))
    return cases


def answer_cases(
    predictions: Sequence[Mapping[str, Any]],
    annotations: Mapping[Any, Mapping[str, Any]],
    accuracy: Mapping[Any, float],
    questions: Mapping[Any, tuple[str, Files]],
) -> list[Case]:
    """Answers by their accuracy; questions without annotations are left out. `questions`: id -> question, pictures."""
    cases = []
    for prediction in predictions:
        number = prediction["question_id"]
        if number not in annotations:
            continue
        question, files = questions[number]
        lines = {"question_id": number, "question": question, "prediction": prediction["answer"]}
        known = {key: value for key, value in annotations[number].items() if value}
        cases.append(Case(files, lines | known, 1 - accuracy[number], f"accuracy {100 * accuracy[number]:.0f}"))
    return cases


def judgement_cases(predictions: Sequence[Mapping[str, Any]], files: Mapping[int, Files]) -> list[Case]:
    """NLVR2's pairs by the probability given to the wrong label.

    `predictions`: {index, sentence, label, prediction, probability (that the sentence is true)} each.
    """
    return [
        Case(
            files[one["index"]],
            one,
            error := round(1 - one["probability"] if one["label"] else one["probability"], 6),
            f"{100 * (1 - error):.0f}% for the right label",
        )
        for one in predictions
    ]


class Candidates(Protocol):
    """What was scored for each of N queries: ids [N, k] and scores [N, k]."""

    ids: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True)
class Searched:
    """The two sides of a retrieval: images or clips (`visual` is 'img' or 'vid'), and texts.

    Attributes:
        texts_of: the right texts of each image.
        image_of: the right image of each text.
        files: the pictures, or the clip, of each image.
    """

    texts: Sequence[str]
    texts_of: Sequence[Sequence[int]]
    image_of: Sequence[int]
    files: Sequence[Files]
    visual: str = "img"


def retrieval_findings(
    to_text: Candidates, to_image: Candidates, searched: Searched
) -> tuple[dict[str, float], Findings]:
    """Recall in both directions under the names of the 2022 logs, and labelled by direction with every query's rank."""
    one = searched
    text_ranks = ranks(to_text.ids, to_text.scores, one.texts_of, len(one.texts))
    image_ranks = ranks(to_image.ids, to_image.scores, one.image_of, len(one.files))
    scores = retrieval_scores(text_ranks, image_ranks, one.visual)
    name = {"img": "image", "vid": "video"}[one.visual]
    cases = []
    for image, (text, rank) in enumerate(zip(_first(to_text), text_ranks.tolist(), strict=True)):
        lines = {"direction": f"{name}-to-text", "right": [one.texts[i] for i in one.texts_of[image]]}
        lines |= {"found first": one.texts[text], "rank": rank + 1}
        cases.append(Case(one.files[image], lines, rank, f"{name}-to-text, rank {rank + 1}"))
    for text, (image, rank) in enumerate(zip(_first(to_image), image_ranks.tolist(), strict=True)):
        right = one.image_of[text]
        pictures = [*one.files[right], *(one.files[image] if image != right else [])]
        lines = {"direction": f"text-to-{name}", "text": one.texts[text], "rank": rank + 1}
        cases.append(Case(pictures, lines, rank, f"text-to-{name}, rank {rank + 1}"))
    return scores, Findings(labelled(scores), cases)


def _first(found: Candidates) -> list[int]:
    """The best-scored candidate of each query; of equal scores the later, as ranks count."""
    best = found.scores.max(axis=1, keepdims=True)
    return np.where(found.scores == best, found.ids, -1).max(axis=1).tolist()
