"""Retrieval in two stages: the most similar candidates of every image and text, re-ranked by the matching head.

Both directions want scores of (image, text) pairs, many of them the same. They are united and scored image by image,
each process its own images', so that an image is projected once and no pair is scored twice.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.blip_itm import MATCH, MAX_TEXT_LENGTH, ImageTextModel, similarities
from models.tokenizer import tokenize

Gather = Callable[[list[Any]], list[Any]]


@dataclass(frozen=True)
class Candidates:
    """The candidates of N queries that were scored: ids [N, k] and scores [N, k]."""

    ids: np.ndarray
    scores: np.ndarray


@torch.no_grad()
def rerank(
    model: ImageTextModel,
    states: Sequence[Tensor],
    features: Tensor,
    first: int,
    texts: Sequence[str],
    k: int,
    *,
    gather: Gather = lambda items: items,
    batch_size: int = 256,
) -> tuple[Candidates, Candidates]:
    """Score the k most similar texts of every image, and the k most similar images of every text.

    Args:
        model: gives the matching logits; a score is the logit of "they match" plus the cosine similarity.
        states: this process's images, each its encoder states `[T, D]`, on any device. Clips: the states of all
            frames, one after another.
        features: their unit vectors `[n, embed_dim]`.
        first: number of the first of them among the images of all processes.
        texts: all texts.
        gather: concatenates the lists of all processes, in the order of their images.
        batch_size: how many texts are encoded, or look at an image, at once.

    Returns:
        the texts scored for each image and the images scored for each text, over all processes.
    """
    features = features.float().cpu()
    all_features = torch.cat(gather([features]))
    text_features = torch.cat(
        [model.encode_text(texts[i : i + batch_size]).cpu() for i in range(0, len(texts), batch_size)]
    )
    to_text = _most_similar(all_features, text_features, k, batch_size)
    to_image = _most_similar(text_features, all_features, k, batch_size)
    wanted = _texts_by_image(to_text, to_image)

    tokens = _Tokens(model, texts)
    pairs, scores = [], []
    for row, image_states in enumerate(states):
        image = first + row
        memory = model.text_encoder.project(image_states[None].to(model.device))
        for some in tokens.of_one_length(wanted[image], batch_size):
            logits = model.match_logits(memory, tokens.ids_of(some), mask=None)[:, MATCH].cpu()
            cosines = similarities(text_features[some], features[row : row + 1])[:, 0]
            scores.append((logits + cosines).numpy())
            pairs.append(image * len(texts) + some)
    pairs, scores = _concatenated(gather(pairs), np.int64), _concatenated(gather(scores), np.float32)
    order = pairs.argsort()
    pairs, scores = pairs[order], scores[order]

    images, rows = np.arange(len(to_text))[:, None], np.arange(len(texts))[:, None]
    return (
        Candidates(to_text, scores[np.searchsorted(pairs, images * len(texts) + to_text)]),
        Candidates(to_image, scores[np.searchsorted(pairs, to_image * len(texts) + rows)]),
    )


def _most_similar(queries: Tensor, candidates: Tensor, k: int, block: int) -> np.ndarray:
    """The k nearest candidates of each query [N, k]; of the similarities, `block` rows at a time exist."""
    k = min(k, len(candidates))
    return torch.cat([similarities(part, candidates).topk(k, dim=1).indices for part in queries.split(block)]).numpy()


def _texts_by_image(to_text: np.ndarray, to_image: np.ndarray) -> list[np.ndarray]:
    """For each image, the texts that either direction wants scored with it."""
    images = np.concatenate([np.repeat(np.arange(len(to_text)), to_text.shape[1]), to_image.ravel()])
    texts = np.concatenate([to_text.ravel(), np.repeat(np.arange(len(to_image)), to_image.shape[1])])
    pairs = np.unique(np.stack([images, texts]), axis=1)  # [2, pairs], sorted by image
    return np.split(pairs[1], np.searchsorted(pairs[0], np.arange(1, len(to_text))))


def _concatenated(parts: list[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate([np.empty(0, dtype), *parts])


class _Tokens:
    """All texts as tokens that start with `[ENC]`; an image has many, so that those of one length fill a batch."""

    def __init__(self, model: ImageTextModel, texts: Sequence[str]) -> None:
        enc = model.tokenizer.enc_token_id
        self.ids, mask = tokenize(model.tokenizer, texts, model.device, first_token=enc, max_length=MAX_TEXT_LENGTH)
        self.lengths = mask.sum(dim=1).cpu().numpy()

    def of_one_length(self, texts: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
        """Split texts into batches without padding: nothing is computed for it, and attention needs no mask."""
        lengths = self.lengths[texts]
        for length in np.unique(lengths):
            alike = texts[lengths == length]
            for start in range(0, len(alike), batch_size):
                yield alike[start : start + batch_size]

    def ids_of(self, texts: np.ndarray) -> Tensor:
        """Token ids of texts of one length L: [len(texts), L]."""
        return self.ids[torch.from_numpy(texts).to(self.ids.device), : int(self.lengths[texts[0]])]
