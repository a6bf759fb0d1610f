"""VQA accuracy as visualqa.org/evaluation.html defines it, and the file that its server takes.

An answer is right to the degree that people gave it: leave each of the ten annotators out in turn, count min(1, matches
among the others / 3), and take the mean. Before comparing, the answers of both sides are brought to one form
(`normalize_answer`). The server's program leaves answers as they are where all ten annotators agree; that differs only
for predictions which are not in this form themselves.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from metrics.ground_truth import GroundTruthError, is_id, read_json

_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {word: str(number) for number, word in enumerate(_NUMBERS)} | {"none": "0"}
_ARTICLES = frozenset(("a", "an", "the"))
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'  # all but the apostrophe and the colon, which can carry meaning
_NOT = "ain are ca could did does do had has have is might must need ought sha should was were wo would"
_ENDINGS = {
    "'d": "he they who you how there that where what somebody someone something",
    "'ll": "it they who you what that how somebody someone something",
    "'re": "they you there what where when why how",
    "'ve": "could might must should would they we you who i not what where",
    "'s": "he she that there what where when who why how let somebody someone something everyone",
    "'m": "i",
}  # not `its`, `were`, `well`, `ill`, `shed`, ...: without an apostrophe these are words of their own
_CONTRACTIONS = (
    {f"{verb}nt": f"{verb}n't" for verb in _NOT.split(" ")}
    | {f"{verb}ntve": f"{verb}n't've" for verb in ("could", "might", "must", "should", "would")}
    | {word + ending[1:]: word + ending for ending, words in _ENDINGS.items() for word in words.split(" ")}
    | {"maam": "ma'am", "oclock": "o'clock", "twas": "'twas", "yall": "y'all"}
)


@lru_cache(maxsize=2**16)  # a split has millions of answers, few of which differ
def normalize_answer(answer: str) -> str:
    """One form for answers that mean the same: `"The  two dogs, dont!"` -> `"2 dogs don't"`.

    Lower case; number words become digits; articles, periods that are no decimal point and commas inside numbers go; an
    apostrophe missing from a contraction is put back; other punctuation becomes a space, or goes where a space is
    beside it already (and, in the server's program as here, wherever the answer holds a number with a comma).
    """
    written = re.sub(r"\s", " ", answer).strip()
    text = written
    has_joined_number = re.search(r"\d,\d", written) is not None
    for mark in _PUNCTUATION:
        goes = has_joined_number or f"{mark} " in written or f" {mark}" in written
        text = text.replace(mark, "" if goes else " ")
    text = re.sub(r"\.(?!\d)", "", text)
    words = [_DIGITS.get(word, word) for word in text.lower().split()]
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def answer_accuracy(answer: str, given: Sequence[str]) -> float:
    """How right `answer` is, from 0 to 1, by the answers people gave.

    With fewer than four annotators, three matches among the others cannot be: then all others must agree, and with one
    annotator the answer must be theirs.
    """
    answer, given = normalize_answer(answer), [normalize_answer(one) for one in given]
    if len(given) == 1:
        return float(answer == given[0])
    matches = sum(one == answer for one in given)
    needed = min(3, len(given) - 1)
    return sum(min(1.0, (matches - (one == answer)) / needed) for one in given) / len(given)


def unanswerable(annotated: Mapping[Any, Mapping[str, Any]], candidates: Iterable[str]) -> list[Any]:
    """The ids of the questions of which no candidate is an answer that somebody gave."""
    known = {normalize_answer(candidate) for candidate in candidates}
    return [
        question_id
        for question_id, annotation in annotated.items()
        if known.isdisjoint(normalize_answer(answer) for answer in annotation["answers"])
    ]


@dataclass(frozen=True)
class VqaScores:
    """The scores of `score_vqa`.

    Attributes:
        overall: accuracy in percent over all questions with annotations.
        by_answer_type, by_question_type: the same for each type that the annotations name ('yes/no', 'number', 'other';
            'how many', ...); empty where they name none.
        per_question: question_id -> accuracy from 0 to 1.
        unanswered: annotated questions without a prediction; they count as wrong.
    """

    overall: float
    by_answer_type: dict[str, float]
    by_question_type: dict[str, float]
    per_question: dict[Any, float]
    unanswered: int

    @property
    def remarks(self) -> list[str]:
        """What a reader of the scores should know, a sentence each."""
        missing = f"annotated questions without an answer, which count as wrong: {self.unanswered}"
        return [missing] if self.unanswered else []


def read_annotations(
    source: str | Path | Mapping[str, Any] | Sequence[Mapping[str, Any]], questions: Collection[Any] | None = None
) -> dict[Any, dict[str, Any]]:
    """Annotations by question_id: {answers: list[str], answer_type, question_type (where named)} each.

    Takes the official file (`annotations` with `answers: [{answer}]`) or a training list (`{question_id, answer: [..]}`
    each), as a path or as its content. A list's entries without a question_id (Visual Genome's), and those whose
    answers are blank, are left out.

    Raises GroundTruthError where an entry has no answers or the question_id of another, one of the official file has
    none, or none is about one of the `questions` (ids).
    """
    content = read_json(source) if isinstance(source, str | Path) else source
    entries = content.get("annotations") if isinstance(content, Mapping) else content
    where = str(source) if isinstance(source, str | Path) else "the ground truth"
    if not isinstance(entries, Sequence) or not all(isinstance(entry, Mapping) for entry in entries):
        raise GroundTruthError(f"{where}: expected a list of {{question_id, answer}}, or {{annotations: [..]}}")
    annotations: dict[Any, dict[str, Any]] = {}
    for row, entry in enumerate(entries):
        if "question_id" not in entry:
            if isinstance(content, Mapping):
                raise GroundTruthError(f"{where}: annotation {row} has no question_id, as the official layout has")
            continue
        question = entry["question_id"]
        if not is_id(question):
            raise GroundTruthError(
                f"{where}: annotation {row} has the question_id {question!r:.60}, expected a number or text"
            )
        if question in annotations:
            raise GroundTruthError(
                f"{where}: annotation {row} has the question_id of an earlier one, {question!r}: keep one of them"
            )
        types = {key: str(entry[key]) for key in ("answer_type", "question_type") if entry.get(key) is not None}
        annotations[question] = {"answers": _answers(entry, f"{where}: annotation {row} (question_id {question!r})")}
        annotations[question] |= types
    if questions is not None:
        _check_split(questions, annotations, where)
    scored = {question: entry for question, entry in annotations.items() if entry["answers"]}
    if annotations and not scored:
        raise GroundTruthError(f"{where}: the answers to all {len(annotations)} questions are blank")
    return scored


def _answers(entry: Mapping[str, Any], where: str) -> list[str]:
    """The answers of an entry that are not blank; `where` it is, for errors."""
    answers = entry.get("answers", entry.get("answer"))
    if not answers and answers != "":
        raise GroundTruthError(f"{where} has no answers to compare with")
    listed = answers if isinstance(answers, list | tuple) else [answers]
    texts: list[str] = []
    for one in listed:
        text = one.get("answer") if isinstance(one, Mapping) else one
        if not isinstance(text, str):
            raise GroundTruthError(f"{where} has the answer {text!r:.60}, expected text")
        texts.append(text)
    return [text for text in texts if text.strip()]


def _check_split(questions: Collection[Any], annotations: Mapping[Any, Any], where: str) -> None:
    if not any(question in annotations for question in questions):
        raise GroundTruthError(
            f"{where}: none of {len(questions)} questions has a question_id among the {len(annotations)} annotated "
            "ones: are these the annotations of the split that is answered?"
        )


def score_vqa(predictions: Iterable[Mapping[str, Any]], annotations: Mapping[Any, Mapping[str, Any]]) -> VqaScores:
    """Accuracy of `predictions` ({question_id, answer}) by `annotations`, as `read_annotations` gives them.

    Predictions for questions without annotations are not counted; none in common is a GroundTruthError.
    """
    answers = {entry["question_id"]: entry["answer"] for entry in predictions}
    _check_split(answers, annotations, "the ground truth")
    unanswered = sum(question not in answers for question in annotations)
    accuracy = {
        question: answer_accuracy(answers[question], entry["answers"]) if question in answers else 0.0
        for question, entry in annotations.items()
    }
    return VqaScores(
        overall=_percent(accuracy.values()),
        by_answer_type=_by_type(accuracy, annotations, "answer_type"),
        by_question_type=_by_type(accuracy, annotations, "question_type"),
        per_question=accuracy,
        unanswered=unanswered,
    )


def _by_type(accuracy: Mapping[Any, float], annotations: Mapping[Any, Mapping[str, Any]], key: str) -> dict[str, float]:
    types = sorted({entry[key] for entry in annotations.values() if key in entry})
    return {
        name: _percent([accuracy[question] for question, entry in annotations.items() if entry.get(key) == name])
        for name in types
    }


def _percent(accuracy: Iterable[float]) -> float:
    accuracy = list(accuracy)
    return 100 * sum(accuracy) / len(accuracy)
