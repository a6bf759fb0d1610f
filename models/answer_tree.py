"""Candidate answers merged into a prefix tree (a trie) of tokens, so that a shared prefix is computed only once.

VQA's candidates are chosen by their first token, so many share a prefix: "black", "black and white", "black cat". A
causal decoder's state depends only on a token and those before it, so answers share the states of a common prefix. The
tree is one sequence for the decoder, without padding between answers; each token attends to itself and its ancestors.
"""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from models.transfer import send


@dataclass(frozen=True)
class AnswerTree:
    """The prefix tree of each of B questions: of c answers with at most L tokens, padded to N nodes.

    Attributes:
        ids: `[B, N]`, the token of each node; parents come before their children.
        positions: `[B, N]`, the node's depth: its position in the answer.
        visible: `[B, N, N]`, the attention mask: True from a node to itself and to its ancestors.
        nodes: `[M]`, where the nodes lie in the flattened `[B * N]`; elsewhere is padding.
        scored: `[B, c, L - 1]`, True at each token of an answer that is followed by another.
        predictors: `[P]`, for each True of `scored` the node whose state predicts the next token: an index into all
            nodes of the batch without padding, `states[nodes]`.
        targets: `[P]`, that next token.
    """

    ids: Tensor
    positions: Tensor
    visible: Tensor
    nodes: Tensor
    scored: Tensor
    predictors: Tensor
    targets: Tensor

    def to(self, device: torch.device) -> "AnswerTree":
        return AnswerTree(*(send(getattr(self, field.name), device) for field in fields(self)))


def merge_answers(ids: Tensor, lengths: Tensor) -> AnswerTree:
    """Build the tree of each question's answers. Call it on the CPU: it takes many small operations.

    Args:
        ids: `[B, c, L]`, padded on the right; each question's answers sorted, so that a shared prefix is adjacent.
        lengths: `[B, c]`, the number of tokens of each answer.
    """
    inputs, targets = ids[:, :, :-1], ids[:, :, 1:]  # the last token predicts nothing
    depths = torch.arange(inputs.shape[2])
    scored = depths < lengths[:, :, None] - 1
    is_new = scored.clone()
    repeats = (inputs[:, 1:] == inputs[:, :-1]) & scored[:, :-1]
    is_new[:, 1:] &= ~repeats.cumprod(dim=2).bool()

    new_node = is_new.flatten(1).cumsum(dim=1).view_as(is_new) - 1
    nodes = new_node.where(is_new, 0).cummax(dim=1).values  # a repeated node is the newest one at its depth
    counts = is_new.sum(dim=(1, 2))
    width = int(counts.max())

    question, answer, depth = is_new.nonzero(as_tuple=True)
    node = nodes[question, answer, depth]
    tree_ids = ids.new_zeros(len(ids), width)
    tree_ids[question, node] = inputs[question, answer, depth]
    positions = torch.zeros_like(tree_ids)
    positions[question, node] = depth
    path = nodes[question, answer].where(depths <= depth[:, None], node[:, None])  # [all nodes, L - 1]
    visible = torch.eye(width, dtype=torch.bool).repeat(len(ids), 1, 1)
    visible[question[:, None], node[:, None], path] = True
    places = (torch.arange(width) < counts[:, None]).flatten().nonzero()[:, 0]
    predictors = nodes + (counts.cumsum(dim=0) - counts)[:, None, None]  # counted on from the earlier questions' nodes
    return AnswerTree(tree_ids, positions, visible, places, scored, predictors[scored], targets[scored])
