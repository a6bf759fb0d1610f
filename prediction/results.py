"""What models say of a batch of pictures, and how sure they are. Fields have the names of the keys of predict.py."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from models.blip import BLIPDecoder
from models.blip_itm import BLIPMatcher
from models.blip_vqa import BLIPVQA
from models.generation import SearchOptions
from settings import UserError


@dataclass(frozen=True)
class ScoredCaption:
    """A caption and its log-probability."""

    caption: str
    log_prob: float


@dataclass(frozen=True)
class RankedAnswer:
    """One of the answers to choose from, and its probability among those that were compared to the end."""

    answer: str
    probability: float


@dataclass(frozen=True)
class TextMatch:
    """How well a text fits a picture: the matching head's probability, and the cosine of their unit vectors."""

    text: str
    match: float
    cosine: float


def best_captions(
    model: BLIPDecoder, image: Tensor, options: SearchOptions, prompt: str | None
) -> list[list[ScoredCaption]]:
    """The captions of each image [B, 3, H, W], best first, as many as the options say.

    Args:
        prompt: words to start with; the model's own when None.
    """
    captions, generated = model.generate_n_best(image, options, prompt)
    return [
        [ScoredCaption(text, log_prob) for text, log_prob in zip(texts, log_probs, strict=True)]
        for texts, log_probs in zip(captions, generated.log_probs.tolist(), strict=True)
    ]


def written_answers(model: BLIPVQA, image: Tensor, question: str) -> list[str]:
    """An answer to the question about each image [B, 3, H, W]."""
    return model.generate_answers(image, [question] * len(image))


def ranked_answers(
    model: BLIPVQA, image: Tensor, question: str, answers: Sequence[str], k: int
) -> list[list[RankedAnswer]]:
    """For each image [B, 3, H, W] the k most likely of the given answers to the question, best first."""
    order, scores = model.rank_answers(image, [question] * len(image), answers, k)
    rows: list[list[int]] = order.tolist()
    return [
        [RankedAnswer(answers[i], probability) for i, probability in zip(indices, probabilities, strict=True)]
        for indices, probabilities in zip(rows, scores.softmax(dim=1).tolist(), strict=True)
    ]


def require_finite(*numbers: Tensor) -> None:
    """Raise UserError for numbers that are none: they would be printed, written and averaged like others."""
    if not all(bool(each.isfinite().all()) for each in numbers):
        raise UserError(
            "the model gives numbers that are not finite: use bf16 or fp32 instead of fp16, or look at its weights"
        )


def text_matches(model: BLIPMatcher, image: Tensor, texts: Sequence[str]) -> list[list[TextMatch]]:
    """How well each text fits each image [B, 3, H, W]."""
    scores = model.score(image, texts)
    require_finite(scores.match, scores.cosine)
    return [
        [TextMatch(text, match, cosine) for text, match, cosine in zip(texts, matches, cosines, strict=True)]
        for matches, cosines in zip(scores.match.tolist(), scores.cosine.tolist(), strict=True)
    ]
