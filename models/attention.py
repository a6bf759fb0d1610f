"""Attention over one's own text and over an image that was projected once.

An image (or a question, for the VQA decoder) is projected to keys and values a single time: that is its `Memory`. Any
number of texts, beams and decoding steps then look at it. Where the texts of an image stand side by side they are
folded into one long query, so nothing is repeated; elsewhere they name the image by index.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

KeyValue = tuple[Tensor, Tensor]  # each [N, heads, T, d]


@dataclass
class Memory:
    """Keys and values of N images in every layer.

    Attributes:
        layers: for each layer one pair a cross-attention (NLVR2 has two), each `[N, heads, T, d]`.
        mask: `[N, T]`, True where a position may be attended; None when all may.
    """

    layers: list[list[KeyValue]]
    mask: Tensor | None = None

    def __len__(self) -> int:
        return self.layers[0][0][0].shape[0]


@dataclass
class AttentionMaps:
    """Attention probabilities of every layer, recorded on request. They take part in the gradient.

    Attributes:
        self_attention: for each layer `[B, heads, L, L]`.
        cross_attention: for each layer one `[B, heads, L, T]` a cross-attention.
    """

    self_attention: list[Tensor] = field(default_factory=list)
    cross_attention: list[list[Tensor]] = field(default_factory=list)


class SelfAttentionCache:
    """Keys and values of the tokens decoded so far, in one buffer allocated at the first of them.

    Args:
        layers: how many layers write to it.
        max_length: the most tokens a row can hold, prompt included.
    """

    def __init__(self, layers: int, max_length: int) -> None:
        self.layers = layers
        self.max_length = max_length
        self.length = 0
        self._buffer = torch.empty(0)  # [layers, 2 (key, value), R, heads, max_length, d] from the first token on

    def append(self, layer: int, key: Tensor, value: Tensor) -> KeyValue:
        """Write key, value [R, heads, L, d] of new tokens -> those of all tokens so far [R, heads, length + L, d]."""
        if not self._buffer.numel():
            rows, heads, _, width = key.shape
            self._buffer = key.new_empty(self.layers, 2, rows, heads, self.max_length, width)
        end = self.length + key.shape[2]
        written = self._buffer[layer, :, :, :, :end]
        written[0, :, :, self.length :] = key
        written[1, :, :, self.length :] = value
        return written[0], written[1]

    def advance(self, tokens: int) -> None:
        """Count the tokens that every layer has now written."""
        self.length += tokens

    def repeat(self, times: int) -> None:
        """Give every row `times` neighbours with the same content: one image's prompt becomes that of its beams."""
        self._buffer = self._buffer.repeat_interleave(times, dim=2)

    def reorder(self, rows: Tensor) -> None:
        """Row i takes the content of row rows[i], for the tokens written so far."""
        written = self._buffer[:, :, :, :, : self.length]
        written.copy_(written.index_select(2, rows))


@dataclass
class AttentionInputs:
    """What the attentions of one layer work with in a forward pass; see `TextModel.forward`.

    It does not say which layer: compiled code that looks at a number would be compiled for each layer anew.

    Attributes:
        memory, memory_mask: the layer's part of a `Memory`, and its mask.
        append: puts keys and values of new tokens behind the layer's earlier ones, and returns all.
        groups: where the texts stand packed in one row, its groups of equally long texts: `(texts, tokens of each)`.
    """

    mask: Tensor | None = None
    memory: list[KeyValue] | None = None
    memory_mask: Tensor | None = None
    index: Tensor | None = None
    causal: bool = False
    append: Callable[[Tensor, Tensor], KeyValue] | None = None
    groups: Sequence[tuple[int, int]] | None = None
    maps: AttentionMaps | None = None

    def record_self_attention(self, weights: Tensor | None) -> None:
        """Add a layer's probabilities to the maps, if they are asked for."""
        if self.maps is not None and weights is not None:
            self.maps.self_attention.append(weights)

    def record_cross_attention(self, *weights: Tensor | None) -> None:
        """Add a layer's probabilities, one tensor an image, to the maps, if they are asked for."""
        if self.maps is not None:
            self.maps.cross_attention.append([each for each in weights if each is not None])


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    *,
    index: Tensor | None = None,
    causal: bool = False,
    dropout: float = 0.0,
    need_weights: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Scaled dot-product attention of B rows over N memories.

    Args:
        query: `[B, L, heads, d]`.
        key, value: `[N, heads, T, d]`.
        mask: `[N, T]`, True where a position may be attended; or `[N, L, T]`, for each query position its own.
        index: `[B]`, the memory of each row. Without it B must be a multiple of N, and the rows of one memory stand
            side by side: they attend together, as one query of (B / N) * L positions.
        causal: position i sees positions 0..i only. Right padding is then never seen and needs no mask.
        dropout: probability of dropping an attention weight.
        need_weights: take the slower path that also returns the probabilities.

    Returns:
        context `[B, L, heads * d]`, and probabilities `[B, heads, L, T]` or None.
    """
    if index is not None:
        key, value = key[index], value[index]
        mask = None if mask is None else mask[index]
    batch, length, heads, width = query.shape
    folded = query.reshape(key.shape[0], -1, heads, width) if batch else query  # no rows cannot be shared out
    folded = folded.transpose(1, 2)  # [N, heads, (B / N) * L, d]
    if mask is not None:
        mask = mask[:, None] if mask.dim() == 3 else mask[:, None, None]
    if not need_weights:
        context = F.scaled_dot_product_attention(
            folded, key, value, attn_mask=mask, dropout_p=dropout, is_causal=causal
        )
        return context.transpose(1, 2).reshape(batch, length, heads * width), None

    scores = folded @ key.transpose(-1, -2) / width**0.5
    if causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    weights = scores.float().softmax(dim=-1).to(value.dtype)
    weights = weights.unflatten(2, (-1, length)).transpose(1, 2).flatten(0, 1)  # [B, heads, L, T]
    # What is returned must be what the context is made of, so that gradients reach it.
    folded = weights.unflatten(0, (len(key), -1)).transpose(1, 2).flatten(2, 3)  # [N, heads, (B / N) * L, T]
    context = F.dropout(folded, dropout) @ value
    return context.transpose(1, 2).reshape(batch, length, heads * width), weights


def attend_packed(query: Tensor, key: Tensor, value: Tensor, groups: Sequence[tuple[int, int]]) -> Tensor:
    """Self-attention within each of many texts that stand in one row: texts of one length are a batch of their own.

    Args:
        query: `[1, P, heads, d]`, or `[1, texts, heads, d]` of the first token of each text alone.
        key, value: `[1, heads, P, d]`.
        groups: texts and tokens of each, run by run; P is the sum of their products.

    Returns:
        context, `[1, P, heads * d]` or `[1, texts, heads * d]`.
    """
    sizes = [texts * length for texts, length in groups]
    counts = sizes if query.shape[1] == sum(sizes) else [texts for texts, _ in groups]
    queries = query[0].split(counts)
    keys, values = (x[0].transpose(0, 1).split(sizes) for x in (key, value))  # [n * L, heads, d] each
    contexts = []
    for q, k, v, (texts, _) in zip(queries, keys, values, groups, strict=True):
        q, k, v = (x.view(texts, -1, *x.shape[1:]) for x in (q, k, v))  # [n, L, heads, d]
        context, _ = attend(q, k.transpose(1, 2), v.transpose(1, 2))
        contexts.append(context.flatten(0, 1))
    return torch.cat(contexts)[None]


def first_tokens(hidden: Tensor, groups: Sequence[tuple[int, int]]) -> Tensor:
    """The first token of each packed text: hidden [1, P, D] -> [1, texts, D]."""
    parts = hidden[0].split([texts * length for texts, length in groups])
    firsts = [part.view(texts, length, -1)[:, 0] for part, (texts, length) in zip(parts, groups, strict=True)]
    return torch.cat(firsts)[None]
