"""Answers merged into a tree of tokens (a trie): the beginning that several share is computed once, without padding.

VQA's candidates all start with `[DEC]`, and since their first token chooses them, they come in families ("black",
"black and white", "black cat"). A decoder's state depends on what stands before a token alone, so such answers share
the states of their common beginning. One sequence holds the tree; each of its tokens sees its own ancestors only.
"""

from dataclasses import dataclass, fields

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
        scored: `[B, c, L - 1]`, True where a token of an answer is followed by another.
        rows: `[P]`, for each True of `scored` the node whose state predicts what follows, counted over all `real` ones.
        targets: `[P]`, what follows.
    """

    ids: Tensor
    positions: Tensor
    visible: Tensor
    is_node: Tensor
    scored: Tensor
    predictors: Tensor
    targets: Tensor

    def to(self, device: torch.device) -> "AnswerTree":
        return AnswerTree(*(getattr(self, field.name).to(device, non_blocking=True) for field in fields(self)))


def merge_answers(ids: Tensor, lengths: Tensor) -> AnswerTree:
    """The tree of each question's answers. Best made on the CPU: it is little work in many small steps.

    Args:
        ids: `[B, c, L]`, padded on the right; each question's answers in an order that has those beginning alike side
            by side, as when sorted.
        lengths: `[B, c]`, the number of tokens of each.
    """
    inputs, targets = ids[:, :, :-1], ids[:, :, 1:]  # the last token predicts nothing
    depths = torch.arange(inputs.shape[2])
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
    seen = torch.eye(width, dtype=torch.bool).repeat(len(ids), 1, 1)
    seen[question[:, None], node[:, None], way] = True
    real = torch.arange(width) < counts[:, None]
    rows = nodes + (counts.cumsum(dim=0) - counts)[:, None, None]  # after the nodes of the questions before
    return AnswerTree(tree_ids, positions, seen, real, scored, rows[scored], targets[scored])
