"""What is exported of a model: modules that read and return plain tensors, as a graph does.

Captioning is a beam search, the one of `models/generation.py` without its repetition penalty, in three modules:
`SearchStart` decodes the prompt and chooses the first tokens, `SearchStep` decodes the token chosen last and chooses
the next, and `SearchEnd` ranks what was found. `export/loop.py` makes one graph of them, with a loop around the step. A
graph has no buffer to write into: texts and caches grow by a token each step. One beam is greedy search: of the best
continuations the first goes on, or ends the text.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.attention import KeyValue, Memory, SelfAttentionCache
from models.base import VisionLanguageModel
from models.blip import BLIPDecoder
from models.image_text import ImageTextModel


class ImageEncoder(nn.Module):
    """Images -> the states of their patches, which the other graphs read."""

    def __init__(self, model: VisionLanguageModel) -> None:
        super().__init__()
        self.visual_encoder = model.visual_encoder

    def forward(self, image: Tensor) -> Tensor:
        """image [B, 3, S, S], normalized -> states [B, T, D]."""
        return self.visual_encoder(image)


class ImageAndVectorEncoder(nn.Module):
    """Images -> the states of their patches, and the unit vectors to compare with those of texts."""

    def __init__(self, model: ImageTextModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """image [B, 3, S, S], normalized -> states [B, T, D], unit vectors [B, embed_dim]."""
        states = self.model.visual_encoder(image)
        return states, self.model.project_image(states)


class TextEncoder(nn.Module):
    """Texts -> unit vectors to compare with those of images."""

    def __init__(self, model: ImageTextModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """ids [B, L], starting with `[CLS]`, and their mask, nonzero at tokens -> unit vectors [B, embed_dim]."""
        states = self.model.text_encoder(ids, mask, first_only=True)
        return F.normalize(self.model.text_proj(states[:, 0]), dim=-1)


class Matcher(nn.Module):
    """Pairs of an image and a text -> logits of whether they match."""

    def __init__(self, model: ImageTextModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, states: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """states [B, T, D] of images, ids [B, L], starting with `[ENC]`, mask -> logits [B, 2]; 1 is "they match"."""
        return self.model.match_logits(self.model.text_encoder.project(states), ids, mask)


class SearchState(NamedTuple):
    """A beam search of N images with K beams, L tokens long.

    Attributes:
        ids: `[N, K, L]`, the unfinished texts.
        scores: `[N, K]`, their log-probabilities, -inf for those that may not go on.
        best_ids: `[N, K, L]`, the best finished texts, padded.
        best_scores: `[N, K]`, their log-probabilities divided by their numbers of tokens.
        done: `[N]`, true where no unfinished text could become better than those found.
        rows: `[N * K]`, the rows of the cache that the unfinished texts go on from.
    """

    ids: Tensor
    scores: Tensor
    best_ids: Tensor
    best_scores: Tensor
    done: Tensor
    rows: Tensor


class SearchStart(nn.Module):
    """Decodes the prompt of every image, and chooses the first tokens after it."""

    def __init__(self, model: BLIPDecoder) -> None:
        super().__init__()
        self.decoder = model.text_decoder
        self.choice = _Choice(model)
        self.prompt: Tensor
        self.register_buffer("prompt", torch.tensor([model.prompt_ids]))

    def forward(
        self, states: Tensor, beams: Tensor, min_length: Tensor
    ) -> tuple[SearchState, list[KeyValue], list[KeyValue]]:
        """Start a search.

        Args:
            states: `[N, T, D]`, of images.
            beams: `[K]`, the numbers 0, 1, 2, ...
            min_length: scalar; the end token is forbidden while a text has fewer tokens.

        Returns:
            the search; the cross-attention's keys and values, for each layer `[N, heads, T, d]`; and those of the
            tokens so far, for each layer `[N * K, heads, L, d]`.
        """
        images, number = states.shape[0], beams.shape[0]
        memory, cache = self.decoder.project(states), _GrowingCache([])
        prompt = self.prompt.expand(images, -1)
        hidden = self.decoder.bert(prompt, memory=memory, causal=True, cache=cache)
        log_probs = self.decoder.logits(hidden[:, -1]).log_softmax(dim=1)
        ids = prompt[:, None].expand(-1, number, -1)
        # All beams start equal: only the first may be continued.
        scores = torch.zeros(images, 1).masked_fill(beams != 0, float("-inf"))
        best_scores = torch.full_like(scores, float("-inf"))
        row = torch.arange(images)
        search = SearchState(ids, scores, ids, best_scores, torch.zeros_like(row, dtype=torch.bool), row)
        each = row[:, None].expand(-1, number).flatten()
        caches = [(key[each], value[each]) for key, value in cache.layers_now]
        return self.choice(search, log_probs[each], min_length), [layer[0] for layer in memory.layers], caches


class SearchStep(nn.Module):
    """Decodes the tokens chosen last, and chooses the next."""

    def __init__(self, model: BLIPDecoder) -> None:
        super().__init__()
        self.decoder = model.text_decoder
        self.choice = _Choice(model)

    def forward(
        self, search: SearchState, caches: list[KeyValue], memory: list[KeyValue], min_length: Tensor
    ) -> tuple[SearchState, list[KeyValue]]:
        """Go on with a search by a token; the arguments are what `SearchStart` returns."""
        cache = _GrowingCache([(key[search.rows], value[search.rows]) for key, value in caches])
        token = search.ids[:, :, -1].reshape(-1, 1)
        hidden = self.decoder.bert(token, memory=Memory([[layer] for layer in memory]), causal=True, cache=cache)
        log_probs = self.decoder.logits(hidden[:, -1]).log_softmax(dim=1)
        return self.choice(search, log_probs, min_length), cache.layers_now


class SearchEnd(nn.Module):
    """Ranks the finished texts of a search, and those that have become as long as they may."""

    def forward(
        self, ids: Tensor, scores: Tensor, best_ids: Tensor, best_scores: Tensor, done: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The search, as in `SearchState` -> texts [N, K, L], best first, and their scores [N, K]."""
        unfinished = (scores / ids.shape[2]).masked_fill(done[:, None], float("-inf"))
        return _best(best_ids, best_scores, ids, unfinished)


class _Choice(nn.Module):
    """Chooses the next tokens of a beam search."""

    def __init__(self, model: BLIPDecoder) -> None:
        super().__init__()
        self.end, self.pad = model.special.sep, model.special.pad

    def forward(self, search: SearchState, log_probs: Tensor, min_length: Tensor) -> SearchState:
        """The search, with the token that follows each text by its log-probabilities [N * K, vocabulary]."""
        images, beams, length = search.ids.shape
        vocabulary = log_probs.shape[1]
        is_end = torch.arange(vocabulary) == self.end
        total = log_probs.masked_fill(is_end & (min_length > length), float("-inf")).view(images, beams, vocabulary)
        total = (total + search.scores[:, :, None]).flatten(1)
        # At most K of 2 * K candidates end with the end token, so at least K can go on.
        candidates, choice = total.topk(2 * beams, dim=1)
        parent, token = choice // vocabulary, choice % vocabulary
        ends = token == self.end
        rank = torch.arange(2 * beams)

        eligible = ends & (rank < beams) & ~search.done[:, None]
        ended = torch.cat([_rows(search.ids, parent), torch.full_like(token, self.end)[:, :, None]], dim=2)
        padded = F.pad(search.best_ids, (0, 1), value=self.pad)
        ended_scores = (candidates / length).masked_fill(~eligible, float("-inf"))
        best_ids, best_scores = _best(padded, search.best_scores, ended, ended_scores)
        done = search.done | (best_scores[:, -1] >= candidates[:, 0] / length)

        going_on = (rank + ends * 2 * beams).topk(beams, dim=1, largest=False).indices
        scores, parent, token = candidates.gather(1, going_on), parent.gather(1, going_on), token.gather(1, going_on)
        ids = torch.cat([_rows(search.ids, parent), token[:, :, None]], dim=2)
        scores = scores.masked_fill(token == self.end, float("-inf"))
        rows = (torch.arange(images)[:, None] * beams + parent).flatten()
        return SearchState(ids, scores, best_ids, best_scores, done, rows)


class _GrowingCache(SelfAttentionCache):
    """A `SelfAttentionCache` in new tensors after each token, since a graph cannot write into old ones."""

    def __init__(self, layers: list[KeyValue]) -> None:
        super().__init__(len(layers), max_length=0)
        self.length = layers[0][0].shape[2] if layers else 0
        self._before = layers
        self.layers_now: list[KeyValue] = []

    def append(self, layer: int, key: Tensor, value: Tensor) -> KeyValue:
        if self._before:
            before = self._before[layer]
            key, value = torch.cat([before[0], key], dim=2), torch.cat([before[1], value], dim=2)
        self.layers_now.append((key, value))
        return key, value


def _rows(x: Tensor, index: Tensor) -> Tensor:
    """Select texts of each image: x [N, K, L], index [N, M] -> x[n, index[n]] for every n [N, M, L]."""
    return x.gather(1, index[:, :, None].expand(-1, -1, x.shape[2]))


def _best(kept_ids: Tensor, kept: Tensor, new_ids: Tensor, new: Tensor) -> tuple[Tensor, Tensor]:
    """The best K texts of each image among the kept [N, K, L] and new ones [N, M, L], best first, by their scores."""
    scores, index = torch.cat([kept, new], dim=1).topk(kept.shape[1], dim=1)
    return _rows(torch.cat([kept_ids, new_ids], dim=1), index), scores
