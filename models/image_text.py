"""Image and text encoders with projections to a common space, and a matching head (paper, section 3.2)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.attention import Memory
from models.base import VisionLanguageModel
from models.config import ModelConfig, check_size
from models.med import TextModel
from models.tokenizer import as_texts, tokenize

MAX_TEXT_LENGTH = 35  # tokens, as in retrieval training
MATCH = 1  # index of "they match" in the matching head's logits


@dataclass(frozen=True)
class Scores:
    """How well images and texts match: the matching head's probability, and the cosine of their unit vectors."""

    match: Tensor
    cosine: Tensor


def similarities(queries: Tensor, candidates: Tensor) -> Tensor:
    """Cosines [B, M] of unit vectors [B, D] and [M, D], computed in float32 also under autocast."""
    with torch.autocast(queries.device.type, enabled=False):
        return queries @ candidates.T


class ImageTextModel(VisionLanguageModel):
    """An image encoder, a text encoder, their projections to a common space, and the matching head.

    Args:
        config: the sizes of the encoders.
        embed_dim: width of the common space.
    """

    def __init__(self, config: ModelConfig, embed_dim: int) -> None:
        check_size("embed_dim", embed_dim)
        super().__init__(config)
        width = self.text_config.hidden_size
        self.text_encoder = TextModel(self.text_config, len(self.tokenizer), self.vision_width)
        self.vision_proj = nn.Linear(self.vision_width, embed_dim)
        self.text_proj = nn.Linear(width, embed_dim)
        self.itm_head = nn.Linear(width, 2)

    def project_image(self, image_embeds: Tensor) -> Tensor:
        """Image states [B, T, D] -> unit vectors [B, embed_dim], float32."""
        return F.normalize(self.vision_proj(image_embeds[:, 0]).float(), dim=-1)

    def encode_image(self, image: Tensor) -> Tensor:
        """image [B, 3, H, W], normalized -> unit vectors [B, embed_dim], comparable with those of texts."""
        return self.project_image(self.visual_encoder(image, first_only=True))

    def encode_text(self, text: str | Sequence[str]) -> Tensor:
        """B texts -> unit vectors [B, embed_dim], comparable with those of images."""
        ids, mask = tokenize(self.tokenizer, text, self.device, max_length=MAX_TEXT_LENGTH)
        states = self.text_encoder(ids, mask, first_only=True)
        return F.normalize(self.text_proj(states[:, 0]).float(), dim=-1)

    def match_logits(self, memory: Memory, ids: Tensor, mask: Tensor | None, index: Tensor | None = None) -> Tensor:
        """Texts ids [B, L], starting with `[ENC]`, and their images -> logits [B, 2]; index 1 means "they match".

        `memory` and `index` are those of `TextModel.forward`.
        """
        states = self.text_encoder(ids, mask, memory, index, first_only=True)
        return self.itm_head(states[:, 0]).float()

    @torch.no_grad()
    def score(
        self, image: Tensor, text: str | Sequence[str], *, pairwise: bool = False, batch_size: int = 256
    ) -> Scores:
        """Matching probability and cosine of every image with every text, or of image i with text i.

        Args:
            image: `[B, 3, H, W]`, normalized.
            text: M texts; B of them with `pairwise`. Those over 35 tokens are cut.
            pairwise: score only the pairs (i, i).
            batch_size: how many texts are encoded, or scored with an image, at once.

        Returns:
            `match` and `cosine`, each `[B, M]`, or `[B]` with `pairwise`.

        Raises:
            ValueError: `pairwise` with another number of texts than of images.
        """
        text = as_texts(text)
        if pairwise and len(text) != len(image):
            raise ValueError(
                f"pairwise scores need as many texts as images, and there are {len(text)} and {len(image)}"
            )
        enc = self.special.enc
        image_embeds = self.visual_encoder(image)
        vectors = [self.encode_text(text[i : i + batch_size]) for i in range(0, max(len(text), 1), batch_size)]
        cosine = similarities(self.project_image(image_embeds), torch.cat(vectors))
        if pairwise:
            ids, mask = tokenize(self.tokenizer, text, self.device, first_token=enc, max_length=MAX_TEXT_LENGTH)
            logits = self.match_logits(self.text_encoder.project(image_embeds), ids, mask)
            return Scores(logits.softmax(dim=1)[:, MATCH], cosine.diagonal())

        by_length = sorted(range(len(text)), key=lambda i: len(text[i]))
        batches = [by_length[i : i + batch_size] for i in range(0, len(text), batch_size)]
        tokens = [
            tokenize(self.tokenizer, [text[i] for i in batch], self.device, first_token=enc, max_length=MAX_TEXT_LENGTH)
            for batch in batches
        ]
        match = torch.empty_like(cosine)
        for row in range(len(image)):
            memory = self.text_encoder.project(image_embeds[row : row + 1])
            for batch, (ids, mask) in zip(batches, tokens, strict=True):
                match[row, batch] = self.match_logits(memory, ids, mask).softmax(dim=1)[:, MATCH]
        return Scores(match, cosine)

    @torch.no_grad()
    def score_texts(self, image_embeds: Tensor, texts: Sequence[Sequence[str]], batch_size: int = 1024) -> Scores:
        """Matching probability and cosine of every image with its own texts, of which each may have any number.

        Keys and values of an image are computed once, and all its texts attend to them together.

        Args:
            image_embeds: the states of B images `[B, T, D]`.
            texts: the texts of each image; those over 35 tokens are cut.
            batch_size: how many texts are scored at once.

        Returns:
            `match` and `cosine`, each `[K]`: the scores of all texts, one image after the other.
        """
        counts = torch.tensor([len(one) for one in texts], device=self.device)
        flat = [text for one in texts for text in one]
        match = image_embeds.new_zeros(len(flat), dtype=torch.float32)
        if not flat:
            return Scores(match, match.clone())
        owner = torch.arange(len(texts), device=self.device).repeat_interleave(counts)  # the image of each text
        vectors = torch.cat([self.encode_text(flat[i : i + batch_size]) for i in range(0, len(flat), batch_size)])
        cosine = (vectors * self.project_image(image_embeds)[owner]).sum(dim=1)
        first = self.special.enc
        ids, mask = tokenize(self.tokenizer, flat, self.device, first_token=first, max_length=MAX_TEXT_LENGTH)
        first_text = counts.cumsum(0) - counts  # of each image
        for count in sorted({len(one) for one in texts} - {0}):  # images with equally many texts need no copies
            for images in (counts == count).nonzero()[:, 0].split(max(1, batch_size // count)):
                memory = self.text_encoder.project(image_embeds[images])
                numbers = first_text[images, None] + torch.arange(count, device=self.device)  # [images, count]
                for rows in (part.flatten() for part in numbers.split(batch_size, dim=1)):
                    logits = self.match_logits(memory, ids[rows], mask[rows])
                    match[rows] = logits.softmax(dim=1)[:, MATCH]
        return Scores(match, cosine)
