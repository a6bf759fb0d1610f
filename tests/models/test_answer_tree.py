"""Answers that begin alike share nodes; each node sees its ancestors."""

import torch

from models.answer_tree import merge_answers

DEC, BLACK, AND, WHITE, CAT, SEP = 9, 1, 2, 3, 4, 8


def test_answers_share_the_nodes_of_their_common_beginning():
    ids = torch.tensor(
        [
            [[DEC, BLACK, AND, WHITE, SEP], [DEC, BLACK, CAT, SEP, 0], [DEC, BLACK, SEP, 0, 0]],
            [[DEC, CAT, SEP, 0, 0], [DEC, CAT, SEP, 0, 0], [DEC, WHITE, SEP, 0, 0]],
        ]
    )
    tree = merge_answers(ids, torch.tensor([[5, 4, 3], [3, 3, 3]]))
    assert tree.ids.tolist() == [[DEC, BLACK, AND, WHITE, CAT], [DEC, CAT, WHITE, 0, 0]]
    assert tree.positions.tolist() == [[0, 1, 2, 3, 2], [0, 1, 1, 0, 0]]
    assert tree.nodes.tolist() == [0, 1, 2, 3, 4] + [5, 6, 7]  # of 2 x 5; the second question's last two are padding
    assert tree.predictors.tolist() == [0, 1, 2, 3, 0, 1, 4, 0, 1] + [5, 6, 5, 6, 5, 7]
    assert tree.targets.tolist() == [BLACK, AND, WHITE, SEP, BLACK, CAT, SEP, BLACK, SEP] + [CAT, SEP] * 2 + [
        WHITE,
        SEP,
    ]
    assert tree.scored.sum(dim=2).tolist() == [[4, 3, 2], [2, 2, 2]]
    black_and_white, black_cat = tree.visible[0, 3], tree.visible[0, 4]
    assert black_and_white.tolist() == [True, True, True, True, False]
    assert black_cat.tolist() == [True, True, False, False, True]
    assert tree.visible[1].int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 0, 1, 0, 0],
        [0, 0, 0, 1, 0],  # no nodes: they see themselves, since nothing at all gives no number
        [0, 0, 0, 0, 1],
    ]


def test_an_end_within_an_answer_is_a_token_like_any_other():
    ids = torch.tensor([[[DEC, BLACK, SEP, 0, 0], [DEC, BLACK, SEP, CAT, SEP]]])
    tree = merge_answers(ids, torch.tensor([[3, 5]]))
    assert tree.ids.tolist() == [[DEC, BLACK, SEP, CAT]]
    assert tree.predictors.tolist() == [0, 1, 0, 1, 2, 3]
    assert tree.targets.tolist() == [BLACK, SEP, BLACK, SEP, CAT, SEP]
