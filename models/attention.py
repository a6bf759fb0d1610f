"""Self-attention and cross-attention, with the keys and values that they keep.

A `Memory` holds the cross-attention's keys and values of images (for the VQA decoder: of questions). They are computed
once, and then any number of texts, beams and decoding steps attend to them. The adjacent texts of one image are folded
into one long query, so that its keys and values need not be repeated; otherwise an index says which text belongs to
which image. `SelfAttentionCache` is the usual key/value cache of decoding.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from models.kernels import is_slow_when_fused
from models.packing import Packing

KeyValue = tuple[Tensor, Tensor]  # each [N, heads, T, d]


@dataclass
class Memory:
    """The cross-attention's keys and values of N images, in every layer.

    Attributes:
        layers: for each layer one (key, value) pair per cross-attention (NLVR2 has two), each `[N, heads, T, d]`.
        mask: `[N, T]`, True where a position may be attended; None when all may.
    """

    layers: list[list[KeyValue]]
    mask: Tensor | None = None

    def __len__(self) -> int:
        return self.layers[0][0][0].shape[0]

    def select(self, images: Tensor) -> "Memory":
        """The keys and values of some of the images, given by their numbers [M]."""
        layers = [[(key[images], value[images]) for key, value in layer] for layer in self.layers]
        return Memory(layers, None if self.mask is None else self.mask[images])

    def contiguous(self) -> "Memory":
        """The same memory, in which each head's keys and values are neighbors: copied once, read faster by a CPU."""
        layers = [[(key.contiguous(), value.contiguous()) for key, value in layer] for layer in self.layers]
        return Memory(layers, self.mask)


@dataclass
class LayerMemory:
    """One layer's part of a `Memory`.

    Attributes:
        key_values: one (key, value) pair for each cross-attention.
        mask: the memory's.
        index: the image of each text, as in `attend`.
    """

    key_values: list[KeyValue]
    mask: Tensor | None
    index: Tensor | None


@dataclass
class AttentionMaps:
    """Attention probabilities of every layer, recorded on request. Gradients flow through them.

    Attributes:
        self_attention: for each layer `[B, heads, L, L]`.
        cross_attention: for each layer one `[B, heads, L, T]` per cross-attention.
    """

    self_attention: list[Tensor] = field(default_factory=list)
    cross_attention: list[list[Tensor]] = field(default_factory=list)


class SelfAttentionCache:
    """Key/value cache of the tokens decoded so far, in one buffer that is allocated at the first token.

    Args:
        layers: how many layers there are.
        max_length: the most tokens a text can have, prompt included.
    """

    def __init__(self, layers: int, max_length: int) -> None:
        self.layers = layers
        self.max_length = max_length
        self.length = 0
        self._buffer = torch.empty(0)  # [layers, 2 (key, value), R, heads, max_length, d] from the first token on

    def append(self, layer: int, key: Tensor, value: Tensor) -> KeyValue:
        """Store key, value [R, heads, L, d] of L new tokens -> those of all tokens so far [R, heads, length + L, d]."""
        if not self._buffer.numel():
            rows, heads, _, width = key.shape
            self._buffer = key.new_empty(self.layers, 2, rows, heads, self.max_length, width)
        end = self.length + key.shape[2]
        written = self._buffer[layer, :, :, :, :end]
        written[0, :, :, self.length :] = key
        written[1, :, :, self.length :] = value
        return written[0], written[1]

    def advance(self, tokens: int) -> None:
        """Count new tokens, once every layer has appended their keys and values."""
        self.length += tokens

    def repeat(self, times: int) -> None:
        """Repeat every row `times` times, as `repeat_interleave`: the prompt of an image becomes that of its beams."""
        self._buffer = self._buffer.repeat_interleave(times, dim=2)

    def reorder(self, rows: Tensor) -> None:
        """Row i takes the content of row rows[i]: the beams that go on may stem from the same earlier one."""
        written = self._buffer[:, :, :, :, : self.length]
        written.copy_(written.index_select(2, rows))


@dataclass
class AttentionInputs:
    """The arguments of one layer's attentions in a forward pass; see `TextModel.forward`.

    It does not hold the layer's number: torch.compile would compile the layer again for each number.

    Attributes:
        mask: where the self-attention may attend, as in `attend`; None for everywhere.
        memories: the images; beside the first, there may be a memory of the last texts, with an image for each.
        causal: the self-attention is causal.
        append: adds the keys and values of new tokens to the layer's cache, and returns those of all tokens.
        packing: where the tokens stand, if all texts are packed into one row.
        maps: collects the attention probabilities, if given.
    """

    mask: Tensor | None = None
    memories: Sequence[LayerMemory] = ()
    causal: bool = False
    append: Callable[[Tensor, Tensor], KeyValue] | None = None
    packing: Packing | None = None
    maps: AttentionMaps | None = None

    def record_self_attention(self, weights: Tensor | None) -> None:
        """Add a layer's probabilities to `maps`, if given."""
        if self.maps is not None and weights is not None:
            self.maps.self_attention.append(weights)

    def record_cross_attention(self, *weights: Tensor | None) -> None:
        """Add a layer's probabilities, one tensor for each cross-attention, to `maps`, if given."""
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
    """Scaled dot-product attention of B texts over the keys and values of N images (or of their own: N = B).

    Args:
        query: `[B, L, heads, d]`.
        key, value: `[N, heads, T, d]`.
        mask: `[N, T]`, True where a position may be attended; or `[N, L, T]`, one for each query position.
        index: `[B]`, the image of each text. Without it B must be a multiple of N, and the texts of one image must be
            adjacent: they attend together, as one query of (B / N) * L positions.
        causal: position i attends to positions 0..i only. Then right padding is never attended and needs no mask.
        dropout: probability of dropping an attention weight.
        need_weights: also return the probabilities, on a slower path.

    Returns:
        context `[B, L, heads * d]`, and probabilities `[B, heads, L, T]` or None.
    """
    if index is not None:
        key, value = key[index], value[index]
        mask = None if mask is None else mask[index]
    batch, length, heads, width = query.shape
    folded = query.reshape(key.shape[0], -1, heads, width) if batch else query  # reshape(0, -1) fails
    folded = folded.transpose(1, 2)  # [N, heads, (B / N) * L, d]
    if mask is not None:
        mask = mask[:, None] if mask.dim() == 3 else mask[:, None, None]
    if not need_weights and not is_slow_when_fused(folded):
        context = F.scaled_dot_product_attention(
            folded, key, value, attn_mask=mask, dropout_p=dropout, is_causal=causal
        )
        return context.transpose(1, 2).reshape(batch, length, heads * width), None

    scores = folded @ key.transpose(-1, -2) / width**0.5
    if causal:
        past = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        mask = past if mask is None else mask & past
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    weights = scores.float().softmax(dim=-1).to(value.dtype)
    weights = weights.unflatten(2, (-1, length)).transpose(1, 2).flatten(0, 1)  # [B, heads, L, T]
    # The context is computed from the tensor that is returned, so that its gradient can be asked for.
    folded = weights.unflatten(0, (len(key), -1)).transpose(1, 2).flatten(2, 3)  # [N, heads, (B / N) * L, T]
    context = F.dropout(folded, dropout) @ value
    return context.transpose(1, 2).reshape(batch, length, heads * width), weights
