"""Recall: the published way of counting (fixtures), a brute-force oracle, and sparse = dense to the last tie."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from metrics.retrieval import UNSCORED, labeled, ranks, recall, retrieval_scores

Golden = Callable[[str], Path]


def dense_ranks(scores: np.ndarray, answers: Sequence[Sequence[int] | int]) -> np.ndarray:
    """`ranks` where every candidate has a score: scores [N, M] -> [N]."""
    scores = np.asarray(scores)
    return ranks(np.broadcast_to(np.arange(scores.shape[1]), scores.shape), scores, answers, scores.shape[1])


def sorted_ranks(scores: np.ndarray, answers: list) -> np.ndarray:
    """The textbook way: sort each row, look each answer up."""
    best = []
    for row, several in zip(scores, answers, strict=True):
        order = list(np.argsort(row, kind="stable")[::-1])
        best.append(min(order.index(answer) for answer in np.atleast_1d(several)))
    return np.array(best)


@pytest.mark.parametrize("case", ["metric_case", "k4", "k6"])
def test_the_fixtures_recalls(golden: Golden, case: str) -> None:
    expected = json.loads(golden("retrieval/expected_eval.json").read_text())
    arrays = np.load(golden("retrieval/expected_eval.npz"))
    to_text, to_image = (
        (arrays["metric_case_i2t"], arrays["metric_case_t2i"])
        if case == "metric_case"
        else (arrays[f"score_i2t_{case}"], arrays[f"score_t2i_{case}"])
    )
    texts_of = [expected["img2txt"][str(image)] for image in range(len(to_text))]
    image_of = [expected["txt2img"][str(text)] for text in range(len(to_image))]
    scores = retrieval_scores(dense_ranks(to_text, texts_of), dense_ranks(to_image, image_of))
    wanted = expected["metric_case" if case == "metric_case" else f"metrics_{case}"]
    assert {name: scores[name] for name in wanted} == pytest.approx(wanted, abs=1e-9)


def test_the_fixtures_recalls_of_video(golden: Golden) -> None:
    wanted = json.loads(golden("retrieval/expected_video_eval.json").read_text())["metrics"]
    arrays = np.load(golden("retrieval/expected_video_eval.npz"))
    same = list(range(len(arrays["score_v2t"])))
    scores = retrieval_scores(dense_ranks(arrays["score_v2t"], same), dense_ranks(arrays["score_t2v"], same), "vid")
    assert {name: scores[name] for name in wanted} == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_sparse_equals_dense_equals_sorting_ties_included(seed: int) -> None:
    rng = np.random.default_rng(seed)
    queries, candidates, k = 40, 60, 7
    ids = np.stack([rng.permutation(candidates)[:k] for _ in range(queries)])
    scores = rng.integers(-102, -96, (queries, k)).astype(np.float64)  # ties, with and below UNSCORED too
    answers = [rng.permutation(candidates)[: rng.integers(1, 6)].tolist() for _ in range(queries)]
    dense = np.full((queries, candidates), UNSCORED)
    np.put_along_axis(dense, ids, scores, axis=1)
    wanted = sorted_ranks(dense, answers)
    np.testing.assert_array_equal(dense_ranks(dense, answers), wanted)
    np.testing.assert_array_equal(ranks(ids, scores, answers, candidates), wanted)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    scores, answers = rng.random((9, 20)), [[i, i + 3] for i in range(9)]
    whole = dense_ranks(scores, answers)
    monkeypatch.setattr("metrics.retrieval._BLOCK", 25)
    np.testing.assert_array_equal(dense_ranks(scores, answers), whole)


def test_recall_and_median_by_hand() -> None:
    assert recall(np.array([0, 0, 3, 7, 20])) == {
        "r1": 40.0, "r5": 60.0, "r10": 80.0, "r_mean": pytest.approx(60.0), "median": 4.0,
    }  # fmt: skip


def test_labels_say_the_direction() -> None:
    scores = retrieval_scores(np.array([0, 0]), np.array([0, 9]))
    assert labeled(scores)["TR R@1"] == 100.0
    assert labeled(scores)["IR R@1"] == 50.0
    assert labeled(scores)["mean recall"] == scores["r_mean"] == pytest.approx((100 + 200 / 3) / 2)
    clips = labeled(retrieval_scores(np.array([0, 0]), np.array([0, 9]), "vid"))
    assert (clips["video-to-text R@1"], clips["text-to-video R@1"], clips["text-to-video median rank"]) == (
        100,
        50,
        5.5,
    )
    assert not any(name.startswith("TR") for name in clips)


def test_scores_that_tell_no_rank_are_refused() -> None:
    with pytest.raises(ValueError, match="query 1 has a score that is not a number"):
        dense_ranks(np.array([[0.0, 1.0], [np.nan, 1.0]]), [0, 1])
    with pytest.raises(ValueError, match="query 1 has no right answer"):
        dense_ranks(np.zeros((2, 3)), [[0], []])
    with pytest.raises(ValueError, match=r"0\.\.2"):
        dense_ranks(np.zeros((1, 3)), [3])
    with pytest.raises(ValueError, match="3 queries"):
        dense_ranks(np.zeros((2, 3)), [0, 1, 2])
