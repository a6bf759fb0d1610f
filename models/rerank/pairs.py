"""The first stage of retrieval: each query's most similar candidates, and the (image, text) pairs to score."""

import numpy as np
import torch
from torch import Tensor

from models.image_text import similarities
from models.rerank.work_shares import Processes

SIMILARITIES_AT_ONCE = 2**24  # in memory at a time


def most_similar(queries: Tensor, candidates: Tensor, k: int, processes: Processes) -> np.ndarray:
    """Find the k most similar candidates of each query: queries [N, D], candidates [M, D] -> ids [N, min(k, M)].

    Each process searches for its share of the queries, a block of queries at a time.
    """
    blocks = queries.split(max(1, SIMILARITIES_AT_ONCE // len(candidates)))
    share = processes.share([len(block) for block in blocks])
    k = min(k, len(candidates))
    nearest = [similarities(block, candidates).topk(k).indices.cpu() for block in blocks[share.start : share.stop]]
    return torch.cat(processes.gather(nearest)).numpy()


class Pairs:
    """The (image, text) pairs to score for both directions, without duplicates, sorted by image and then by text.

    Args:
        to_text: the candidate texts of each image [N, k].
        to_image: the candidate images of each text [M, k].
    """

    def __init__(self, to_text: np.ndarray, to_image: np.ndarray) -> None:
        images, texts = len(to_text), len(to_image)
        pair_numbers = np.arange(images)[:, None] * texts + to_text, to_image * texts + np.arange(texts)[:, None]
        pairs, places = np.unique(np.concatenate([numbers.ravel() for numbers in pair_numbers]), return_inverse=True)
        self._images, self._texts = np.divmod(pairs, texts)
        self._bounds = np.searchsorted(self._images, np.arange(images + 1))
        self._places = [
            part.reshape(ids.shape) for part, ids in zip(np.split(places, [to_text.size]), pair_numbers, strict=True)
        ]

    def __len__(self) -> int:
        return len(self._texts)

    def texts_of(self, image: int) -> np.ndarray:
        """The texts to score with an image, in ascending order."""
        return self._texts[self._bounds[image] : self._bounds[image + 1]]

    def tokens_per_image(self, lengths: np.ndarray) -> np.ndarray:
        """How many tokens are scored with each image [N], given the texts' lengths [M]: a measure of its time."""
        return np.bincount(self._images, weights=lengths[self._texts], minlength=len(self._bounds) - 1)

    def split_by_direction(self, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scores of all pairs -> those of each image's candidates [N, k] and of each text's candidates [M, k]."""
        to_text, to_image = self._places
        return scores[to_text], scores[to_image]
