"""The captioner and the filter (paper, section 3.3): synthetic texts for images, and scores of all their texts."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from bootstrapping.scores import SYNTHETIC, WEB, TextScore
from data.corpus.units import CorpusImage
from data.records.formats import has_words
from data.text import clean_caption
from models.blip import BLIPDecoder
from models.blip_itm import BLIPMatcher
from models.generation import SearchOptions
from transform.image import normalize


@dataclass(frozen=True)
class Synthetic:
    """A text of the captioner, its log-probability, and the prompt it continues."""

    text: str
    log_prob: float
    prompt: str


class CaptionFilter:
    """Captions images, and scores their texts, the web's and its own.

    A text is scored as pre-training will read it (`data.text.clean_caption`), and kept as it is.

    Args:
        captioner: writes the texts; None writes none.
        matcher: scores them.
        search: how texts are found, and how many for each image.
        prompt: in place of the captioner's own, for images that bring none; None is the captioner's own.
        seed: of the samples. An image's samples are drawn from this and its uid, whatever else is in its batch.
    """

    def __init__(
        self,
        captioner: BLIPDecoder | None,
        matcher: BLIPMatcher,
        search: SearchOptions,
        prompt: str | None = None,
        seed: int = 0,
    ) -> None:
        self.captioner, self.matcher, self.search, self.seed = captioner, matcher, search, seed
        self.prompt = captioner.prompt if prompt is None and captioner is not None else prompt or ""

    @property
    def image_sizes(self) -> tuple[int, ...]:
        """The sides of the pictures that `scores` wants: the captioner's, if there is one, and the filter's."""
        models = (self.matcher,) if self.captioner is None else (self.captioner, self.matcher)
        return tuple(dict.fromkeys(model.visual_encoder.image_size for model in models))

    def refusal(self, image: CorpusImage) -> str | None:
        """Why an image's prompt cannot be continued; None where it can."""
        if self.captioner is None or image.prompt is None:
            return None
        tokens = self.captioner.prompt_tokens(image.prompt)
        if tokens < self.search.max_length:
            return None
        return f"its prompt has {tokens} tokens, which leaves no room in max_length = {self.search.max_length}"

    @torch.no_grad()
    def scores(self, images: Sequence[CorpusImage], pixels: dict[int, Tensor]) -> list[TextScore]:
        """The texts of B images with their scores, image by image, the web's first.

        Args:
            pixels: by the side S: uint8 `[B, 3, S, S]`, on the models' device.
        """
        written = self._written(self.captioner, images, pixels) if self.captioner else [[] for _ in images]
        states = self.matcher.visual_encoder(
            normalize(pixels[self.matcher.visual_encoder.image_size], self.matcher.pixels)
        )
        all_texts = [[*image.texts, *(one.text for one in own)] for image, own in zip(images, written, strict=True)]
        found = self.matcher.score_texts(states, [[clean_caption(text) for text in texts] for texts in all_texts])
        scores = zip(found.match.tolist(), found.cosine.tolist(), strict=True)
        rows: list[TextScore] = []
        for image, own in zip(images, written, strict=True):
            rows += [
                TextScore(image.uid, image.image, WEB, n, text, *next(scores)) for n, text in enumerate(image.texts)
            ]
            rows += [
                TextScore(
                    *(image.uid, image.image, SYNTHETIC, n, one.text, *next(scores)),
                    *(one.log_prob, one.prompt, self.seed),
                )
                for n, one in enumerate(own)
            ]
        return rows

    def _written(
        self, captioner: BLIPDecoder, images: Sequence[CorpusImage], pixels: dict[int, Tensor]
    ) -> list[list[Synthetic]]:
        """The captioner's texts about each image, most probable first, but for those without a word.

        Images with one prompt are captioned at once.
        """
        pictures = normalize(pixels[captioner.visual_encoder.image_size], captioner.pixels)
        memory = captioner.text_decoder.project(captioner.visual_encoder(pictures))
        prompts = [self.prompt if image.prompt is None else image.prompt for image in images]
        written: list[list[Synthetic]] = [[] for _ in images]
        for prompt in dict.fromkeys(prompts):
            rows = [row for row, other in enumerate(prompts) if other == prompt]
            part = memory if len(rows) == len(images) else memory.select(torch.tensor(rows, device=captioner.device))
            captions, generated = captioner.generate_from(part, self._search([images[row] for row in rows]), prompt)
            for row, texts, log_probs in zip(rows, captions, generated.log_probs.tolist(), strict=True):
                written[row] = [
                    Synthetic(text, log_prob, prompt)
                    for text, log_prob in zip(texts, log_probs, strict=True)
                    if has_words(text)  # as of the web's texts: there is nothing in it to learn from
                ]
        return written

    def _search(self, images: Sequence[CorpusImage]) -> SearchOptions:
        """The search for these images, with the numbers that choose their samples."""
        if not self.search.sample:
            return self.search
        numbers = np.concatenate([self._uniforms(image.uid) for image in images])
        device = self.matcher.device
        return replace(self.search, uniforms=torch.from_numpy(numbers).to(device))

    def _uniforms(self, uid: str) -> np.ndarray:
        """The numbers that choose an image's samples: float32 [texts, max_length]."""
        key = hashlib.blake2b(f"{self.seed} {uid}".encode(), digest_size=16).digest()
        draw = np.random.Generator(np.random.Philox(key=int.from_bytes(key, "big")))
        return draw.random((self.search.num_return_sequences, self.search.max_length), np.float32)
