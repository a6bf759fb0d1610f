"""The pairs that are scored: the nearest candidates of both sides, each pair once, in memory that grows with k."""

import tracemalloc

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from models.rerank import pairs as pairs_module
from models.rerank.pairs import Pairs, most_similar
from models.rerank.work_shares import SINGLE_PROCESS, split_evenly


def unit(*shape, seed=0):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


@pytest.mark.parametrize("k", [1, 5, 100])
def test_the_nearest_are_found_block_by_block(monkeypatch, k):
    monkeypatch.setattr(pairs_module, "SIMILARITIES_AT_ONCE", 90)  # rows by threes
    queries, candidates = unit(20, 8), unit(30, 8, seed=1)
    found = most_similar(queries, candidates, k, SINGLE_PROCESS)
    np.testing.assert_array_equal(found, (queries @ candidates.T).sort(descending=True).indices[:, :k].numpy())


def test_pairs_of_both_directions_are_united_and_looked_up():
    to_text, to_image = np.array([[3, 1], [0, 3]]), np.array([[1], [0], [0], [1]])
    pairs = Pairs(to_text, to_image)
    assert [pairs.texts_of(image).tolist() for image in range(2)] == [[1, 2, 3], [0, 3]]
    assert pairs.tokens_per_image(np.array([10, 20, 30, 40])).tolist() == [90, 50]
    by_image, by_text = pairs.split_by_direction(np.array([0.1, 0.2, 0.3, 1.0, 1.3]))
    assert by_image.tolist() == [[0.3, 0.1], [1.0, 1.3]]
    assert by_text.tolist() == [[1.0], [0.1], [0.2], [1.3]]


def test_memory_grows_with_candidates_not_with_all_pairs(monkeypatch):
    images, texts, k, largest = 4_000, 6_000, 5, []
    monkeypatch.setattr(pairs_module, "SIMILARITIES_AT_ONCE", 2**18)
    similarities = pairs_module.similarities

    def recorded(queries, candidates):
        largest.append(len(queries) * len(candidates))
        return similarities(queries, candidates)

    monkeypatch.setattr(pairs_module, "similarities", recorded)
    tracemalloc.start()
    to_text = most_similar(unit(images, 4), unit(texts, 4, seed=1), k, SINGLE_PROCESS)
    to_image = most_similar(unit(texts, 4, seed=1), unit(images, 4), k, SINGLE_PROCESS)
    pairs = Pairs(to_text, to_image)
    pairs.split_by_direction(np.zeros(len(pairs), np.float32))
    peak = tracemalloc.get_traced_memory()[1]  # numpy's; torch's are the blocks
    tracemalloc.stop()
    assert max(largest) <= 2**18
    assert sum(largest) == 2 * images * texts
    assert peak < 100 * (images + texts) * k  # bytes; all pairs in one byte each would be 24 MB, this is 5


def test_shares_are_even_by_work_where_texts_crowd_around_few_images():
    """All texts ask for images that stand side by side: shared by number, one process would have nearly all work."""
    images, texts, k, processes = 400, 4_000, 8, 8
    rng = np.random.default_rng(0)
    to_text = np.stack([rng.permutation(texts)[:k] for _ in range(images)])
    to_image = np.stack([rng.permutation(images // 10)[:k] for _ in range(texts)])
    work = Pairs(to_text, to_image).tokens_per_image(rng.integers(8, 20, texts))
    by_number = max(part.sum() for part in np.split(work, processes)) / work.mean() * processes / images
    by_work = max(work[share].sum() for share in split_evenly(work, processes)) / work.mean() * processes / images
    assert by_number > 7
    assert by_work < 1.1
