"""NLVR2: accuracy over examples, and consistency over statements, which stand with several pairs of images each."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class NlvrScores:
    """The scores of `score_nlvr`.

    Attributes:
        accuracy: share of examples judged rightly, in percent.
        consistency: share of statements judged rightly for every pair of images they come with, in percent.
        examples, statements: how many of each.
        correct: whether each example is judged rightly, in the order given.
    """

    accuracy: float
    consistency: float
    examples: int
    statements: int
    correct: tuple[bool, ...]


def statement_of(identifier: str | int | None, sentence: str) -> str:
    """The statement an example belongs to: `dev-850-0-2` (split, set, pair, sentence) -> `dev-850-2`.

    The same sentence stands with several pairs of images of one set; only the pair's number differs. Where the
    identifier is none of NLVR2's, or there is none, it is the sentence itself that examples share.
    """
    parts = str(identifier).split("-")
    if len(parts) != 4:
        return sentence
    split, images, _, number = parts
    return f"{split}-{images}-{number}"


def score_nlvr(predictions: Sequence[bool], labels: Sequence[bool], statements: Sequence[Hashable]) -> NlvrScores:
    """Accuracy and consistency of true/false `predictions`.

    `statements` has one key an example, the same for examples that share a statement: see `statement_of`.
    """
    if not len(predictions) == len(labels) == len(statements) or not len(labels):
        raise ValueError(
            f"{len(predictions)} predictions, {len(labels)} labels, {len(statements)} statements: the counts must agree"
        )
    correct = tuple(bool(got) == bool(wanted) for got, wanted in zip(predictions, labels, strict=True))
    whole: dict[Hashable, bool] = {}
    for statement, right in zip(statements, correct, strict=True):
        whole[statement] = whole.get(statement, True) and right
    return NlvrScores(
        accuracy=100 * sum(correct) / len(correct),
        consistency=100 * sum(whole.values()) / len(whole),
        examples=len(correct),
        statements=len(whole),
        correct=correct,
    )
