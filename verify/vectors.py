"""Kinds of test vectors: a picture, what is asked about it, and the answer that a checkpoint is known to give."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

from torch import Tensor

from models.base import VisionLanguageModel
from models.blip import BLIPDecoder
from models.blip_itm import BLIPMatcher
from models.blip_vqa import BLIPVQA
from models.generation import SearchOptions
from models.image_text import MATCH

Model = TypeVar("Model", bound=VisionLanguageModel)

TOLERANCE = 1e-4
"""Of numbers: expected ones have four or five digits, and rounding differs by up to 1e-5 between devices."""


@dataclass(frozen=True)
class Finding:
    """What was got beside what is expected: numbers, or texts, which have to be equal."""

    what: str
    got: float | str
    expected: float | str

    @property
    def difference(self) -> float | None:
        """Of numbers; None of texts."""
        if isinstance(self.got, str) or isinstance(self.expected, str):
            return None
        return self.got - self.expected

    @property
    def holds(self) -> bool:
        return self.got == self.expected if self.difference is None else abs(self.difference) <= TOLERANCE


@dataclass(frozen=True, kw_only=True)
class Vector(ABC, Generic[Model]):
    """One thing that is asked of a checkpoint.

    Attributes:
        kind: the class of the model that is asked.
        checkpoint: its released name.
        picture: a name of `verify.public.PICTURES`.
        image_size: side of the square input, in pixels.
        origin: where the expected answer comes from.
    """

    kind: ClassVar[type[VisionLanguageModel]]

    checkpoint: str
    picture: str
    image_size: int
    origin: str

    @abstractmethod
    def ask(self, model: Model, image: Tensor) -> Iterator[Finding]:
        """Ask the model about the picture [1, 3, S, S], normalized."""


@dataclass(frozen=True, kw_only=True)
class MatchVector(Vector[BLIPMatcher]):
    """How well a text fits: the matching head's probability, and the cosine of the vectors; None is not compared.

    Attributes:
        first_token: the text's: `[ENC]`, with which the head was trained, or `[CLS]`, which the 2022 code gave it.
    """

    kind = BLIPMatcher
    text: str
    match: float | None = None
    cosine: float | None = None
    first_token: str = "[ENC]"

    def ask(self, model: BLIPMatcher, image: Tensor) -> Iterator[Finding]:
        scores = model.score(image, self.text)
        if self.match is not None:
            match = scores.match[0, 0].item()
            if self.first_token == "[CLS]":
                match = model(image, self.text, match_head="itm").softmax(dim=1)[0, MATCH].item()
            yield Finding(f'match "{self.text}", {self.first_token}', match, self.match)
        if self.cosine is not None:
            yield Finding(f'cosine "{self.text}"', scores.cosine[0, 0].item(), self.cosine)


@dataclass(frozen=True, kw_only=True)
class CaptionVector(Vector[BLIPDecoder]):
    """The caption that a search finds."""

    kind = BLIPDecoder
    caption: str
    num_beams: int
    min_length: int
    max_length: int

    def ask(self, model: BLIPDecoder, image: Tensor) -> Iterator[Finding]:
        (caption,) = model.generate(
            image, num_beams=self.num_beams, min_length=self.min_length, max_length=self.max_length
        )
        yield Finding(f"caption, {self.num_beams} beams", caption, self.caption)


@dataclass(frozen=True, kw_only=True)
class GreedyTokensVector(Vector[BLIPDecoder]):
    """The ids of a greedy caption without a prompt, from the start token to the end token, with blanks between them."""

    kind = BLIPDecoder
    ids: str

    def ask(self, model: BLIPDecoder, image: Tensor) -> Iterator[Finding]:
        options = SearchOptions(num_beams=1, min_length=0, max_length=20)
        _, generated = model.generate_n_best(image, options, prompt="")
        ids = [token for token in generated.ids[0, 0].tolist() if token != model.special.pad]
        yield Finding("ids of a greedy caption", " ".join(map(str, ids)), self.ids)


@dataclass(frozen=True, kw_only=True)
class AnswerVector(Vector[BLIPVQA]):
    """The answer that the model writes to a question."""

    kind = BLIPVQA
    question: str
    answer: str

    def ask(self, model: BLIPVQA, image: Tensor) -> Iterator[Finding]:
        (answer,) = model.generate_answers(image, self.question)
        yield Finding(f'answer "{self.question}"', answer, self.answer)


@dataclass(frozen=True, kw_only=True)
class RankVector(Vector[BLIPVQA]):
    """The answer that the model ranks first among some."""

    kind = BLIPVQA
    question: str
    answers: tuple[str, ...]
    first: str

    def ask(self, model: BLIPVQA, image: Tensor) -> Iterator[Finding]:
        order, _ = model.rank_answers(image, self.question, self.answers)
        among = ", ".join(self.answers)
        yield Finding(f'first of {among} "{self.question}"', self.answers[int(order[0, 0])], self.first)
