"""Retrieval in two stages: the most similar candidates of every image and text, re-ranked by the matching head.

Both directions need scores of (image, text) pairs, many of them the same pairs. The union (`models.rerank.pairs`) is
scored image by image: the keys and values of an image are computed once for all its texts, and no pair is scored twice.
Time and memory are proportional to (images + texts) * k, not to images * texts.

Every stage is split among the processes. Each image and text is computed in the same way on any of them, so that scores
do not depend on the number of processes.
"""

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.image_text import MATCH, MAX_TEXT_LENGTH, ImageTextModel, similarities
from models.kernels import for_changing_shapes
from models.med import TextModel
from models.packing import Packing
from models.rerank.image_states import ImageStates
from models.rerank.pairs import Pairs, most_similar
from models.rerank.work_shares import SINGLE_PROCESS, Processes, ProgressBar, no_progress, split_evenly
from models.tokenizer import tokenize
from models.transfer import send

logger = logging.getLogger("blip.models")

TEXTS_AT_ONCE = 256  # texts encoded to unit vectors in one batch
TOKENS_AT_ONCE = 2**14  # tokens scored with an image in one pass: enough to fill a GPU, in some hundred MB


@dataclass(frozen=True)
class ScoredCandidates:
    """The k candidates of each of N queries, most similar first: ids [N, k] and the scores that re-rank them [N, k]."""

    ids: np.ndarray
    scores: np.ndarray


@torch.no_grad()
def rerank(
    model: ImageTextModel,
    images: ImageStates,
    texts: Sequence[str],
    k: int,
    *,
    processes: Processes = SINGLE_PROCESS,
    progress: ProgressBar = no_progress,
) -> tuple[ScoredCandidates, ScoredCandidates]:
    """Score the k most similar texts of every image, and the k most similar images of every text.

    A score is the matching head's logit of "they match" plus the cosine similarity, in float32 also under autocast.

    Args:
        model: in eval mode.
        images, texts: all images and texts, the same on every process.
        k: candidates of each query.
        processes: how the work is split; a single process by default.
        progress: shows how far each stage is.

    Returns:
        the candidates of each image (texts) and those of each text (images), on every process.

    Raises:
        ValueError: there are no images, or no texts.
    """
    if not (len(images) and len(texts)):
        raise ValueError(f"nothing to rank: {len(images)} images and {len(texts)} texts")
    vectors = images.encode_share(processes, progress).to(model.device)
    by_length = TextsByLength(model, texts, processes, progress)
    to_text = most_similar(vectors, by_length.vectors, k, processes)
    to_image = most_similar(by_length.vectors, vectors, k, processes)

    pairs = Pairs(to_text, to_image)
    work = pairs.tokens_per_image(by_length.lengths)
    mine = processes.share(work)
    largest = max(work[share].sum() for share in split_evenly(work, processes.count)) * processes.count / work.sum()
    logger.info("%d pairs to score; the largest share is %.3f of an even one", len(pairs), largest)
    scores = []
    for image, states in progress(zip(mine, images.states(mine), strict=True), "re-rank images", work[mine].tolist()):
        scores.append(by_length.scores(states, vectors[image], pairs.texts_of(image)))
    scores = np.concatenate(processes.gather([torch.cat(scores).cpu().numpy()] if scores else []))

    text_scores, image_scores = pairs.split_by_direction(scores)
    original_order = by_length.order.argsort()
    texts_found = ScoredCandidates(by_length.order[to_text], text_scores)
    images_found = ScoredCandidates(to_image[original_order], image_scores[original_order])
    return texts_found, images_found


class TextsByLength:
    """Texts to score with images, sorted by their length in tokens, so that those scored at once are alike.

    Attributes:
        order: the index of each text in the given list [M].
        lengths: the number of tokens of each text, ascending [M].
        vectors: the unit vector of each text [M, embed_dim]; each process encodes a share.
    """

    def __init__(
        self, model: ImageTextModel, texts: Sequence[str], processes: Processes, progress: ProgressBar
    ) -> None:
        enc = model.special.enc
        host = torch.device("cpu")
        ids, mask = tokenize(model.tokenizer, texts, host, first_token=enc, max_length=MAX_TEXT_LENGTH)
        lengths = mask.sum(dim=1)
        order = lengths.argsort(stable=True)
        self.order, self.lengths = order.numpy(), lengths[order].numpy()
        self._ids, self._mask = send(ids[order], model.device), send(mask[order].bool(), model.device)  # [M, longest]
        self._head, self._encoder = model.itm_head, _encoder_in_autocast_dtype(model.text_encoder, model.device)
        self._dtype = next(self._encoder.parameters()).dtype
        self.vectors = self._encode_share(model, [texts[int(i)] for i in self.order], processes, progress)

    def _encode_share(
        self, model: ImageTextModel, texts: Sequence[str], processes: Processes, progress: ProgressBar
    ) -> Tensor:
        batches = [texts[start : start + TEXTS_AT_ONCE] for start in range(0, len(texts), TEXTS_AT_ONCE)]
        share = processes.share([len(batch) for batch in batches])
        mine = batches[share.start : share.stop]
        vectors = [model.encode_text(batch) for batch in progress(mine, "encode texts", [len(b) for b in mine])]
        return torch.cat(processes.gather([some.cpu() for some in vectors])).to(model.device)

    def scores(self, states: Tensor, vector: Tensor, texts: np.ndarray) -> Tensor:
        """Score n texts with one image -> [n].

        Args:
            states, vector: the image's encoder states `[1, T, D]` and unit vector `[embed_dim]`.
            texts: the texts' indices `[n]` in this order by length, ascending.
        """
        lengths, device = self.lengths[texts], vector.device
        numbers = send(torch.from_numpy(texts), device)  # no wait here, so that a GPU does not idle between two images
        with torch.autocast(device.type, enabled=False), for_changing_shapes(device):
            memory = self._encoder.project(send(states, device).to(self._dtype))
            states_of_first = []
            for piece in filter(len, split_evenly(lengths, -(-int(lengths.sum()) // TOKENS_AT_ONCE))):
                rows, width = numbers[piece.start : piece.stop], int(lengths[piece][-1])
                ids, mask = self._ids[rows, :width], self._mask[rows, :width]
                packing = Packing.of(lengths[piece].tolist(), width, device)
                states_of_first.append(self._encoder(ids, mask, memory, packing=packing, first_only=True)[:, 0])
            logits = self._head(torch.cat(states_of_first).float())[:, MATCH]
        return logits + similarities(self.vectors[numbers], vector[None])[:, 0]


def _encoder_in_autocast_dtype(encoder: TextModel, device: torch.device) -> TextModel:
    """The encoder; under autocast, a copy with all weights in its dtype: no casts between layers, half the traffic."""
    if not torch.is_autocast_enabled(device.type):
        return encoder
    return copy.deepcopy(encoder).to(torch.get_autocast_dtype(device.type))
