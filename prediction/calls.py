"""Captions, answers and matches of pictures, each in one line of Python.

    from prediction import Answerer, Captioner, Folder, Matcher

    caption = Captioner()                   # the released captioner; Captioner("my/checkpoint_best.pth") is another
    caption("photo.jpg")                    # a text
    caption(["left.jpg", picture])          # a list of two texts; a picture is a file or a Pillow picture
    caption(Folder("holiday"))              # a dictionary, path -> text
    Answerer()("photo.jpg", "what is on the table?")
    Matcher()("photo.jpg", ["a cat on a sofa", "a dog"])

A single picture gets a single result, a list of pictures a list in the same order, a folder a dictionary by path.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import overload

import torch
from torch import Tensor

from models.blip import BLIPDecoder
from models.blip_itm import BLIPMatcher
from models.blip_vqa import BLIPVQA
from models.explain import answer_maps, caption_maps, match_maps
from models.generation import SearchOptions
from models.word_maps import AnswerMaps, WordMaps
from prediction.picture_call import Folder, Picture, PictureCall
from prediction.results import (
    RankedAnswer,
    ScoredCaption,
    TextMatch,
    best_captions,
    ranked_answers,
    text_matches,
    written_answers,
)
from settings import check

CAPTIONER = "model_base_caption_capfilt_large"
ANSWERER = "model_base_vqa_capfilt_large"
MATCHER = "model_base_retrieval_coco"

Texts = list[str] | tuple[str, ...]
"""Several texts: a single one is a sequence of texts too."""


def _check_text(name: str, given: object) -> None:
    check(isinstance(given, str), name, repr(given), "a text")


def _check_texts(name: str, given: object) -> None:
    """Refuse what is no list of texts, or an empty one."""
    are_texts = isinstance(given, list | tuple) and given and all(isinstance(text, str) for text in given)
    check(bool(are_texts), name, repr(given), "a list of texts, at least one")


class Captioner(PictureCall[BLIPDecoder]):
    """Captions pictures.

    Args:
        checkpoint: released name, path, URL or hub name; or a model that is loaded already, which costs nothing.
        prompt: words that every caption starts with; the model's own when None. They are not in the result.
        num_beams: beams of the search; 1 is greedy.
        sample: nucleus sampling instead of a search.
        top_p, top_k: tokens to sample from: by their total probability, and how many at most (0: all).
        seed: of the samples; one call goes on where the last one stopped.
        max_length, min_length: tokens of a caption, the prompt included.
        repetition_penalty: none in a search when None, and 1.1 in sampling.
        device: 'auto' (a GPU where there is one), 'cpu', 'cuda' or 'mps'.
        precision: 'fp32', 'bf16' or 'fp16'.
        batch_size: pictures at once.
        vocab_file: the vocabulary of an older checkpoint, which carries none.

    Raises:
        UserError: what cannot be, such as an unknown checkpoint or device, or impossible options.
    """

    def __init__(
        self,
        checkpoint: str | Path | BLIPDecoder = CAPTIONER,
        *,
        prompt: str | None = None,
        num_beams: int = 3,
        sample: bool = False,
        top_p: float = 0.9,
        top_k: int = 50,
        seed: int = 0,
        max_length: int = 20,
        min_length: int = 5,
        repetition_penalty: float | None = None,
        device: str = "auto",
        precision: str = "fp32",
        batch_size: int = 32,
        vocab_file: str | Path | None = None,
    ) -> None:
        options = SearchOptions(
            sample=sample,
            num_beams=num_beams,
            max_length=max_length,
            min_length=min_length,
            top_p=top_p,
            top_k=top_k,
            repetition_penalty=repetition_penalty,
        )
        check(0 <= seed < 2**63, "seed", seed, "0 or more, and less than 2**63")
        if prompt is not None:
            _check_text("prompt", prompt)
        super().__init__(BLIPDecoder, checkpoint, device, precision, batch_size, vocab_file)
        generator = torch.Generator(self.device).manual_seed(seed) if sample else None
        self._options, self._prompt = replace(options, generator=generator), prompt

    @overload
    def __call__(self, pictures: Picture) -> str: ...
    @overload
    def __call__(self, pictures: Sequence[Picture]) -> list[str]: ...
    @overload
    def __call__(self, pictures: Folder) -> dict[Path, str]: ...
    def __call__(self, pictures: Picture | Sequence[Picture] | Folder) -> str | list[str] | dict[Path, str]:
        """The caption of each picture."""
        return self._call(pictures, lambda image: [best[0].caption for best in self._best(image, 1)])

    @overload
    def n_best(self, pictures: Picture, count: int) -> list[ScoredCaption]: ...
    @overload
    def n_best(self, pictures: Sequence[Picture], count: int) -> list[list[ScoredCaption]]: ...
    @overload
    def n_best(self, pictures: Folder, count: int) -> dict[Path, list[ScoredCaption]]: ...
    def n_best(
        self, pictures: Picture | Sequence[Picture] | Folder, count: int
    ) -> list[ScoredCaption] | list[list[ScoredCaption]] | dict[Path, list[ScoredCaption]]:
        """The `count` best captions of each picture (or so many samples), best first, with their log-probabilities.

        A search has at least `count` beams.
        """
        return self._call(pictures, lambda image: self._best(image, count))

    def maps(self, picture: Picture, caption: str) -> WordMaps:
        """Where the model looks as it writes each word of a caption; see `models.explain.caption_maps`."""
        return self._call(picture, lambda image: [caption_maps(self.model, image, caption)])

    def _best(self, image: Tensor, count: int) -> list[list[ScoredCaption]]:
        return best_captions(self.model, image, self._options.with_results(count), self._prompt)


class Answerer(PictureCall[BLIPVQA]):
    """Answers questions about pictures.

    Args:
        checkpoint, device, precision, batch_size, vocab_file: as for `Captioner`.

    Raises:
        UserError: what cannot be, such as an unknown checkpoint or device.
    """

    def __init__(
        self,
        checkpoint: str | Path | BLIPVQA = ANSWERER,
        *,
        device: str = "auto",
        precision: str = "fp32",
        batch_size: int = 32,
        vocab_file: str | Path | None = None,
    ) -> None:
        super().__init__(BLIPVQA, checkpoint, device, precision, batch_size, vocab_file)

    @overload
    def __call__(self, pictures: Picture, question: str) -> str: ...
    @overload
    def __call__(self, pictures: Sequence[Picture], question: str) -> list[str]: ...
    @overload
    def __call__(self, pictures: Folder, question: str) -> dict[Path, str]: ...
    def __call__(
        self, pictures: Picture | Sequence[Picture] | Folder, question: str
    ) -> str | list[str] | dict[Path, str]:
        """The answer to the question about each picture, in the model's own words."""
        _check_text("question", question)
        return self._call(pictures, lambda image: written_answers(self.model, image, question))

    @overload
    def rank(self, pictures: Picture, question: str, answers: Texts, k: int = 128) -> list[RankedAnswer]: ...
    @overload
    def rank(
        self, pictures: Sequence[Picture], question: str, answers: Texts, k: int = 128
    ) -> list[list[RankedAnswer]]: ...
    @overload
    def rank(self, pictures: Folder, question: str, answers: Texts, k: int = 128) -> dict[Path, list[RankedAnswer]]: ...
    def rank(
        self, pictures: Picture | Sequence[Picture] | Folder, question: str, answers: Texts, k: int = 128
    ) -> list[RankedAnswer] | list[list[RankedAnswer]] | dict[Path, list[RankedAnswer]]:
        """The given answers to the question about each picture, best first, with their probabilities.

        Args:
            k: how many are compared to the end, and returned: those with the most probable beginning.
        """
        _check_text("question", question)
        _check_texts("answers", answers)
        check(k >= 1, "k", k, "at least 1")
        return self._call(pictures, lambda image: ranked_answers(self.model, image, question, answers, k))

    def maps(self, picture: Picture, question: str, answer: str) -> AnswerMaps:
        """Where the model looks for each word of an answer, and of its question; see `models.explain.answer_maps`."""
        return self._call(picture, lambda image: [answer_maps(self.model, image, question, answer)])


class Matcher(PictureCall[BLIPMatcher]):
    """Says how well texts fit pictures.

    Args:
        checkpoint, device, precision, batch_size, vocab_file: as for `Captioner`.

    Raises:
        UserError: what cannot be, such as an unknown checkpoint or device.
    """

    def __init__(
        self,
        checkpoint: str | Path | BLIPMatcher = MATCHER,
        *,
        device: str = "auto",
        precision: str = "fp32",
        batch_size: int = 32,
        vocab_file: str | Path | None = None,
    ) -> None:
        super().__init__(BLIPMatcher, checkpoint, device, precision, batch_size, vocab_file)

    @overload
    def __call__(self, pictures: Picture, texts: str) -> TextMatch: ...
    @overload
    def __call__(self, pictures: Sequence[Picture], texts: str) -> list[TextMatch]: ...
    @overload
    def __call__(self, pictures: Folder, texts: str) -> dict[Path, TextMatch]: ...
    @overload
    def __call__(self, pictures: Picture, texts: Texts) -> list[TextMatch]: ...
    @overload
    def __call__(self, pictures: Sequence[Picture], texts: Texts) -> list[list[TextMatch]]: ...
    @overload
    def __call__(self, pictures: Folder, texts: Texts) -> dict[Path, list[TextMatch]]: ...
    def __call__(
        self, pictures: Picture | Sequence[Picture] | Folder, texts: str | Texts
    ) -> TextMatch | list[TextMatch] | list[list[TextMatch]] | dict[Path, TextMatch] | dict[Path, list[TextMatch]]:
        """Of each picture and each text, the matching head's probability and the cosine of their vectors.

        A single text gets a single match, a list of texts a list.
        """
        if isinstance(texts, str):
            return self._call(pictures, lambda image: [row[0] for row in text_matches(self.model, image, [texts])])
        _check_texts("texts", texts)
        return self._call(pictures, lambda image: text_matches(self.model, image, texts))

    def maps(self, picture: Picture, text: str, *, against: bool = False) -> WordMaps:
        """Where the matching head looks for each word of a text; see `models.explain.match_maps`."""
        return self._call(picture, lambda image: [match_maps(self.model, image, text, against=against)])
