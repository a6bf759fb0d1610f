"""The findings of each task: its scores by name, and its samples for people to inspect, each with its error."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from evaluation.findings import Case, Findings
from metrics.caption import CaptionScores
from metrics.nlvr import score_nlvr, statement_of
from metrics.retrieval import labeled, ranks, retrieval_scores
from metrics.vqa import VqaScores

Files = Sequence[str | Path]


def caption_findings(
    predictions: Sequence[Mapping[str, Any]],
    references: Mapping[Any, Sequence[str]],
    scores: CaptionScores,
    files: Mapping[Any, Files],
) -> Findings:
    """The findings on captions: the scores, and the sum of CIDEr and BLEU-4, by which the best weights are chosen."""
    metrics = scores.scores | {"CIDEr+BLEU-4": scores.scores.get("CIDEr", 0.0) + scores.scores["BLEU-4"]}
    cases = _caption_cases(predictions, references, scores, files)
    return Findings(metrics, scores.scores, cases, scores.not_computed, scores.remarks)


def nocaps_findings(
    predictions: Sequence[Mapping[str, Any]],
    references: Mapping[Any, Sequence[str]],
    domains: Mapping[str, CaptionScores],
    files: Mapping[Any, Files],
) -> Findings:
    """The findings on NoCaps: captions and their scores in each domain, from `metrics.nocaps.score_nocaps`."""
    metrics, figures, not_computed = {}, {}, {}
    for domain, scored in domains.items():
        prefix = "" if domain == "all" else f"{domain}-domain "
        metrics |= {f"{domain}_{name}": value for name, value in scored.scores.items()}
        figures |= {f"{prefix}{name}": value for name, value in scored.scores.items()}
        not_computed |= {f"{prefix}{name}": reason for name, reason in scored.not_computed.items()}
    cases = _caption_cases(predictions, references, domains["all"], files)
    return Findings(metrics, figures, cases, not_computed, domains["all"].remarks)


def _caption_cases(
    predictions: Sequence[Mapping[str, Any]],
    references: Mapping[Any, Sequence[str]],
    scores: CaptionScores,
    files: Mapping[Any, Files],
) -> list[Case]:
    """Captions with the error -CIDEr; -ROUGE-L for a single image, for which CIDEr is not computed."""
    by = "CIDEr" if "CIDEr" in scores.scores else "ROUGE-L"
    cases = []
    for prediction in predictions:
        image = prediction["image_id"]
        if image not in scores.per_image:  # it has no references to score it by
            continue
        each = {metric: round(value, 2) for metric, value in scores.per_image[image].items()}
        lines = {"image_id": image, "prediction": prediction["caption"], "references": list(references[image])}
        cases.append(Case(files[image], lines | each, -each[by], f"{by} {each[by]:.1f}"))
    return cases


def vqa_findings(
    predictions: Sequence[Mapping[str, Any]],
    annotations: Mapping[Any, Mapping[str, Any]],
    scores: VqaScores,
    questions: Mapping[Any, tuple[str, Files]],
    log_question_types: bool,
) -> Findings:
    """The findings on VQA: answers and their accuracy, overall and by the type of answer and question.

    Args:
        annotations: question_id -> what people answered; questions without annotations are left out of the cases.
        questions: question_id -> the question, and its image files.
        log_question_types: also log the accuracy of each of VQA v2's 65 question types.
    """
    metrics = {"acc": scores.overall}
    metrics |= {f"acc_{kind}": accuracy for kind, accuracy in scores.by_answer_type.items()}
    if log_question_types:
        metrics |= {f"acc_question_{kind}": accuracy for kind, accuracy in scores.by_question_type.items()}
    figures = {"accuracy": scores.overall, **scores.by_answer_type, **scores.by_question_type}
    cases = _vqa_cases(predictions, annotations, scores.per_question, questions)
    return Findings(metrics, figures, cases, remarks=scores.remarks)


def _vqa_cases(
    predictions: Sequence[Mapping[str, Any]],
    annotations: Mapping[Any, Mapping[str, Any]],
    accuracy: Mapping[Any, float],
    questions: Mapping[Any, tuple[str, Files]],
) -> list[Case]:
    """Answers with the error 1 - accuracy; questions without annotations are left out."""
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


def nlvr_findings(predictions: Sequence[Mapping[str, Any]], files: Mapping[int, Files]) -> Findings:
    """The findings on NLVR2: accuracy, consistency (statements judged rightly with all their image pairs), and cases.

    Args:
        predictions: {index, identifier, sentence, label, prediction, probability (that the sentence is true)} each.
        files: index -> the two image files.
    """
    scores = score_nlvr(
        [one["prediction"] for one in predictions],
        [one["label"] for one in predictions],
        [statement_of(one["identifier"], one["sentence"]) for one in predictions],
    )
    values = {"consistency": scores.consistency}
    return Findings(
        {"acc": scores.accuracy, **values}, {"accuracy": scores.accuracy, **values}, _nlvr_cases(predictions, files)
    )


def _nlvr_cases(predictions: Sequence[Mapping[str, Any]], files: Mapping[int, Files]) -> list[Case]:
    """NLVR2's image pairs, with the probability of the wrong label as the error."""
    cases = []
    for one in predictions:
        error = round(1 - one["probability"] if one["label"] else one["probability"], 6)
        cases.append(Case(files[one["index"]], one, error, f"{100 * (1 - error):.0f}% for the right label"))
    return cases


class RankedCandidates(Protocol):
    """The k candidates of each of N queries, ids [N, k], with their scores [N, k]."""

    @property
    def ids(self) -> np.ndarray: ...
    @property
    def scores(self) -> np.ndarray: ...


@dataclass(frozen=True)
class SearchedSplit:
    """A split for retrieval: its images (or clips), its texts, and which match.

    Attributes:
        texts: all texts.
        texts_of: the indices of the texts that match each image.
        image_of: the index of the image that matches each text.
        files: the files of each image or clip.
        visual: 'img' for images, 'vid' for clips.
    """

    texts: Sequence[str]
    texts_of: Sequence[Sequence[int]]
    image_of: Sequence[int]
    files: Sequence[Files]
    visual: str = "img"


def retrieval_findings(to_text: RankedCandidates, to_image: RankedCandidates, split: SearchedSplit) -> Findings:
    """Recall in both directions, and the rank of every query's right answer."""
    text_ranks = ranks(to_text.ids, to_text.scores, split.texts_of, len(split.texts))
    image_ranks = ranks(to_image.ids, to_image.scores, split.image_of, len(split.files))
    scores = retrieval_scores(text_ranks, image_ranks, split.visual)
    name = {"img": "image", "vid": "video"}[split.visual]
    cases = []
    for image, (text, rank) in enumerate(zip(_first(to_text), text_ranks.tolist(), strict=True)):
        lines = {"direction": f"{name}-to-text", "right": [split.texts[i] for i in split.texts_of[image]]}
        lines |= {"found first": split.texts[text], "rank": rank + 1}
        cases.append(Case(split.files[image], lines, rank, f"{name}-to-text, rank {rank + 1}"))
    for text, (image, rank) in enumerate(zip(_first(to_image), image_ranks.tolist(), strict=True)):
        right = split.image_of[text]
        pictures = [*split.files[right], *(split.files[image] if image != right else [])]
        lines = {"direction": f"text-to-{name}", "text": split.texts[text], "rank": rank + 1}
        cases.append(Case(pictures, lines, rank, f"text-to-{name}, rank {rank + 1}"))
    return Findings(scores, labeled(scores), cases)


def _first(found: RankedCandidates) -> list[int]:
    """The candidate of each query with the highest score; of equal ones the largest id, as `ranks` counts."""
    best = found.scores.max(axis=1, keepdims=True)
    return np.where(found.scores == best, found.ids, -1).max(axis=1).tolist()
