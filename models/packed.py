"""Many texts before one image, packed: their tokens stand in one row, and no position of it is padding.

Projections, feed-forward and cross-attention treat every token alike and take the row as it is, in a few large products
that fill a GPU. Only self-attention must know where a text begins: texts of one length stand side by side, and each
such run is a batch of its own there.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from models.attention import Memory, attend
from models.med import TextModel
from models.med_layer import SelfAttention


def first_states(model: TextModel, runs: Sequence[Tensor], memory: Memory) -> Tensor:
    """The last state of each text's first token, [texts, D], as `TextModel.forward` has it with `first_only`.

    Args:
        model: in eval mode, with one cross-attention.
        runs: token ids `[n, L]`, n texts of L tokens each.
        memory: the one image that all texts look at.
    """
    shapes = [ids.shape for ids in runs]
    positions = [torch.arange(ids.shape[1], device=ids.device).expand_as(ids) for ids in runs]
    hidden = model.embeddings(*(torch.cat([x.flatten() for x in row])[None] for row in (runs, positions)))  # [1, P, D]
    for layer, key_values in zip(model.layers, memory.layers, strict=True):
        hidden = _attend_within(layer.attention, hidden, shapes, first_only=layer is model.layers[-1])
        hidden, _ = layer.crossattention(hidden, key_values, memory.mask)
        hidden = layer.output(layer.intermediate(hidden), hidden)
    return hidden[0]


def _attend_within(
    attention: SelfAttention, hidden: Tensor, shapes: Sequence[tuple[int, int]], first_only: bool
) -> Tensor:
    """Self-attention within each text: the row [1, P, D] -> [1, P, D], or its first tokens [1, texts, D]."""
    sizes = [texts * length for texts, length in shapes]
    keys, values = (x[0].transpose(0, 1).split(sizes) for x in attention.self.project(hidden))  # [n * L, heads, d] each
    if first_only:
        runs = zip(hidden[0].split(sizes), shapes, strict=True)
        hidden = torch.cat([run.view(*shape, -1)[:, 0] for run, shape in runs])[None]
        sizes = [texts for texts, _ in shapes]
    queries = attention.self.query(hidden).view(-1, *keys[0].shape[1:]).split(sizes)
    contexts = []
    for query, key, value, (texts, _) in zip(queries, keys, values, shapes, strict=True):
        query, key, value = (x.view(texts, -1, *x.shape[1:]) for x in (query, key, value))  # [n, L, heads, d]
        context, _ = attend(query, key.transpose(1, 2), value.transpose(1, 2))
        contexts.append(context.flatten(0, 1))
    return attention.output(torch.cat(contexts)[None], hidden)
