"""Rounding lengths up to a few: with the least padding that any choice of them gives."""

import itertools

import numpy as np
import pytest

from models.rerank.lengths import round_up


@pytest.mark.parametrize("most", [1, 2, 3, 4])
def test_no_other_choice_of_lengths_pads_less(most):
    random = np.random.default_rng(most)
    for _ in range(20):
        lengths = random.integers(3, 12, size=random.integers(1, 40))
        rounded = round_up(lengths, most)
        assert (rounded >= lengths).all()
        values = sorted(set(lengths.tolist()))
        assert len(set(rounded.tolist())) == min(most, len(values))
        choices = (choice for choice in itertools.combinations(values, min(most, len(values))) if values[-1] in choice)
        least = min(sum(min(kept for kept in choice if kept >= n) for n in lengths.tolist()) for choice in choices)
        assert rounded.sum() == least


def test_few_enough_lengths_stay():
    lengths = np.array([7, 3, 3, 5])
    assert round_up(lengths, 3).tolist() == [7, 3, 3, 5]
    assert round_up(lengths, 2).tolist() == [7, 3, 3, 7]
