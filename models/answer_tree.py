"""Answers as a tree: what several of them begin with is computed once, and nothing is padding.

VQA's candidates all start with `[DEC]`, and since their first token chooses them, they come in families ("black",
"black and white", "black cat"). A decoder's state depends on what stands before a token alone, so such answers share
the states of their common beginning. One sequence holds the tree; each of its tokens sees its own ancestors only.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class AnswerTree:
    """For each of B questions the tree of its c answers, of at most L tokens; questions with fewer nodes are padded.

    Attributes:
        ids: `[B, N]`, the token of each node; its parent stands before it.
        positions: `[B, N]`, its place in the answer.
        seen: `[B, N, N]`, True where a node sees another: on its way from the first token, itself included.
        real: `[B, N]`, False where there is no node.
        nodes: `[B, c, L - 1]`, the node whose state predicts the next token of each answer.
        scored: `[B, c, L - 1]`, True where there is a next token.
    """

    ids: Tensor
    positions: Tensor
    seen: Tensor
    real: Tensor
    nodes: Tensor
    scored: Tensor


def grow(ids: Tensor, lengths: Tensor) -> AnswerTree:
    """Merge answers that begin alike.

    Args:
        ids: `[B, c, L]`, padded on the right; each question's answers in an order that has those beginning alike side
            by side, as sorting gives.
        lengths: `[B, c]`, the number of tokens of each.
    """
    device, inputs = ids.device, ids[:, :, :-1]  # the last token predicts nothing
    depths = torch.arange(inputs.shape[2], device=device)
    scored = depths < lengths[:, :, None] - 1
    new = scored.clone()
    same = (inputs[:, 1:] == inputs[:, :-1]) & scored[:, :-1]
    new[:, 1:] &= ~same.cumprod(dim=2).bool()

    number = new.flatten(1).cumsum(dim=1).view_as(new) - 1
    nodes = number.where(new, 0).cummax(dim=1).values  # an old node is the newest of its depth
    counts = new.sum(dim=(1, 2))
    width = int(counts.max())

    question, answer, depth = new.nonzero(as_tuple=True)
    node = nodes[question, answer, depth]
    tree_ids = ids.new_zeros(len(ids), width)
    tree_ids[question, node] = inputs[question, answer, depth]
    positions = torch.zeros_like(tree_ids)
    positions[question, node] = depth
    way = nodes[question, answer].where(depths <= depth[:, None], node[:, None])  # [all nodes, L - 1]
    seen = torch.eye(width, dtype=torch.bool, device=device).repeat(len(ids), 1, 1)
    seen[question[:, None], node[:, None], way] = True
    real = torch.arange(width, device=device) < counts[:, None]
    return AnswerTree(tree_ids, positions, seen, real, nodes, scored)
