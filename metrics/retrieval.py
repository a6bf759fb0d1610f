"""Recall in both directions of retrieval, from the few candidates that were scored or from whole score matrices.

Ranks are 0-based. A query may have several right answers (an image has five captions): its best-ranked one counts.
Candidates that were not scored stand at `UNSCORED`, behind all that were. Ties are broken by the later index first, as
the published figures were counted (a reversed ascending sort), and sparse and dense forms agree to the last tie.
"""

from collections.abc import Mapping, Sequence

import numpy as np

UNSCORED = -100.0
RECALLS = (1, 5, 10)
_BLOCK = 2**22  # scores compared at a time: temporary memory stays at some tens of MB


def ranks(ids: np.ndarray, scores: np.ndarray, answers: Sequence[Sequence[int] | int], candidates: int) -> np.ndarray:
    """The rank of each query's best right answer: ids [N, k], scores [N, k] -> ranks [N].

    Args:
        ids: which candidates were scored for each query, without repetition in a row, in any order.
        scores: their scores.
        answers: the right candidates of each query, at least one.
        candidates: how many there are in all; those not in `ids` score `UNSCORED`.
    """
    ids, scores = np.asarray(ids), np.asarray(scores)
    if ids.shape != scores.shape or ids.ndim != 2 or len(ids) != len(answers):
        raise ValueError(f"ids {ids.shape} and scores {scores.shape} must be [N, k] for {len(answers)} queries")
    if np.isnan(scores).any():
        query = int(np.isnan(scores).any(axis=1).argmax())
        raise ValueError(f"query {query} has a score that is not a number: a rank cannot be told")
    right = [np.atleast_1d(np.asarray(several, dtype=np.int64)) for several in answers]
    counts = np.array([len(several) for several in right])
    if not counts.all():
        raise ValueError(f"query {int(counts.argmin())} has no right answer: leave such queries out")
    queries, wanted = np.repeat(np.arange(len(right)), counts), np.concatenate(right)
    if wanted.min() < 0 or wanted.max() >= candidates:
        raise ValueError(f"right answers must lie in 0..{candidates - 1}, found {wanted.min()}..{wanted.max()}")
    step = max(1, _BLOCK // max(1, ids.shape[1]))
    blocks = [slice(start, start + step) for start in range(0, len(wanted), step)]
    ranked = np.concatenate([_rank_pairs(ids[queries[b]], scores[queries[b]], wanted[b], candidates) for b in blocks])
    return np.minimum.reduceat(ranked, np.cumsum(counts) - counts)


def _rank_pairs(ids: np.ndarray, scores: np.ndarray, wanted: np.ndarray, candidates: int) -> np.ndarray:
    """How many candidates stand before each wanted one: ids [P, k], scores [P, k], wanted [P] -> [P]."""
    wanted = wanted[:, None]
    found = ids == wanted
    score = np.where(found.any(axis=1), np.where(found, scores, 0).sum(axis=1), UNSCORED)[:, None]
    later = ids > wanted
    before = ((scores > score) | ((scores == score) & later)).sum(axis=1)
    unscored = candidates - ids.shape[1]
    unscored_later = (candidates - 1 - wanted[:, 0]) - later.sum(axis=1)
    score = score[:, 0]
    return before + np.where(score < UNSCORED, unscored, np.where(score == UNSCORED, unscored_later, 0))


def recall(ranked: np.ndarray) -> dict[str, float]:
    """Ranks [N] -> recall `r1`, `r5`, `r10` in percent, their mean `r_mean`, and `median`, the median rank from 1."""
    ranked = np.asarray(ranked)
    at = {f"r{k}": 100.0 * int((ranked < k).sum()) / len(ranked) for k in RECALLS}
    return at | {"r_mean": sum(at.values()) / len(at), "median": float(np.median(ranked + 1))}


def retrieval_scores(to_text: np.ndarray, to_image: np.ndarray, visual: str = "img") -> dict[str, float]:
    """Recall and median rank in both directions, under the names of the 2022 logs.

    Args:
        to_text: ranks of the texts that images (or clips) retrieve, "TR" in papers: `txt_r1`, ..., `txt_median`.
        to_image: ranks of the images (or clips) that texts retrieve, "IR": `img_r1`, ..., `img_median`.
        visual: 'img', or 'vid' for clips: `vid_r1`, and the median under `vid_mdR` too.
    """
    scores = {f"txt_{name}": value for name, value in recall(to_text).items()}
    scores |= {f"{visual}_{name}": value for name, value in recall(to_image).items()}
    scores["r_mean"] = (scores["txt_r_mean"] + scores[f"{visual}_r_mean"]) / 2
    if visual == "vid":
        scores["vid_mdR"] = scores["vid_median"]
    return scores


def labeled(scores: Mapping[str, float]) -> dict[str, float]:
    """The same scores under names that say the direction: `TR R@1`, `IR R@5`, ..., `mean recall`.

    For clips, `video-to-text R@1` and `text-to-video R@1`.
    """
    directions = {"txt": "TR", "img": "IR", "vid": "text-to-video"}
    values = {"r_mean": "mean", "median": "median rank"} | {f"r{k}": f"R@{k}" for k in RECALLS}
    names = {f"{side}_{key}": f"{label} {value}" for side, label in directions.items() for key, value in values.items()}
    if "vid_r1" in scores:
        names = {key: name.replace("TR ", "video-to-text ") for key, name in names.items()}
    names["r_mean"] = "mean recall"
    return {names[key]: value for key, value in scores.items() if key in names}
