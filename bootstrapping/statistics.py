"""What a choice did: texts by source, how their scores are distributed, and how right it was where truth is known."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bootstrapping.blocks import Block
from bootstrapping.scores import SYNTHETIC, WEB
from bootstrapping.selection import Chosen
from bootstrapping.truth import Truth

BINS = 50
RANGES = {"match": (0.0, 1.0), "cosine": (-1.0, 1.0)}
"""Of each score's histogram."""
CALIBRATION_BINS = 10


@dataclass
class SourceCounts:
    """The texts of one source, and the histogram of each of their scores: int64 [BINS]."""

    texts: int = 0
    passed: int = 0
    unique: int = 0
    kept: int = 0
    histograms: dict[str, np.ndarray] = field(
        default_factory=lambda: {score: np.zeros(BINS, np.int64) for score in RANGES}
    )

    def add(self, other: "SourceCounts") -> None:
        self.texts += other.texts
        self.passed += other.passed
        self.unique += other.unique
        self.kept += other.kept
        for score, counts in other.histograms.items():
            self.histograms[score] += counts

    def record(self) -> dict[str, Any]:
        """The counts as JSON."""
        return {
            "texts": self.texts,
            "high_enough": self.passed,
            "duplicates": self.passed - self.unique,
            "beyond_captions_per_image": self.unique - self.kept,
            "kept": self.kept,
            "share_kept": round(self.kept / self.texts, 6) if self.texts else None,
        }


@dataclass
class TruthCounts:
    """Web texts whose truth is known, counted [right or wrong, kept by the score or not], and by their match.

    Attributes:
        outcomes: int64 [2, 2]: does the text belong to its image; is its score high enough.
        calibration: float64 [CALIBRATION_BINS, 3]: texts, those that belong to their image, sum of match; by match.
    """

    outcomes: np.ndarray = field(default_factory=lambda: np.zeros((2, 2), np.int64))
    calibration: np.ndarray = field(default_factory=lambda: np.zeros((CALIBRATION_BINS, 3)))

    def add(self, other: "TruthCounts") -> None:
        self.outcomes += other.outcomes
        self.calibration += other.calibration

    def record(self) -> dict[str, Any]:
        """Precision, recall and F1 of finding the texts that do not belong to their image, as JSON."""
        found, wrong, dropped = self.outcomes[0, 0], self.outcomes[0].sum(), self.outcomes[:, 0].sum()
        return {
            "texts": int(self.outcomes.sum()),
            "wrong": int(wrong),
            "wrong_found": int(found),
            "right_dropped": int(self.outcomes[1, 0]),
            "precision": _ratio(found, dropped),
            "recall": _ratio(found, wrong),
            "f1": _ratio(2 * found, wrong + dropped),
            "calibration": [
                {"texts": int(texts), "mean_match": _ratio(match, texts), "share_right": _ratio(right, texts)}
                for texts, right, match in self.calibration
            ],
        }


def _ratio(part: float, whole: float) -> float | None:
    return round(float(part) / float(whole), 6) if whole else None


@dataclass
class Statistics:
    """What is counted over all blocks."""

    images: int = 0
    images_kept: int = 0
    sources: dict[str, SourceCounts] = field(default_factory=lambda: {WEB: SourceCounts(), SYNTHETIC: SourceCounts()})
    truth: TruthCounts = field(default_factory=TruthCounts)

    def add(self, other: "Statistics") -> None:
        self.images += other.images
        self.images_kept += other.images_kept
        for source, counts in other.sources.items():
            self.sources[source].add(counts)
        self.truth.add(other.truth)


def statistics(block: Block, chosen: Chosen, images_kept: int, truth: Truth | None) -> Statistics:
    """The counts of one block."""
    counted = Statistics(len(block.firsts), images_kept)
    for source, of_source in ((WEB, ~block.synthetic), (SYNTHETIC, block.synthetic)):
        counts = counted.sources[source]
        counts.texts = int(of_source.sum())
        counts.passed = int((of_source & chosen.passed).sum())
        counts.unique = int((of_source & chosen.unique).sum())
        counts.kept = int((of_source & chosen.kept).sum())
        for score in RANGES:
            counts.histograms[score] = _histogram(block.numbers(score)[of_source], *RANGES[score])
    if truth is not None:
        counted.truth = _against_truth(block, chosen, truth)
    return counted


def _against_truth(block: Block, chosen: Chosen, truth: Truth) -> TruthCounts:
    known, right = truth.of(block)
    known = known & ~block.synthetic
    outcomes = np.bincount(2 * right[known] + chosen.passed[known], minlength=4).reshape(2, 2)
    match = block.numbers("match")[known].astype(np.float64)
    number = _bin(match, 0.0, 1.0, CALIBRATION_BINS)
    columns = [np.bincount(number, weights, CALIBRATION_BINS) for weights in (None, right[known], match)]
    return TruthCounts(outcomes, np.stack(columns, axis=1).astype(np.float64))


def _histogram(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.bincount(_bin(values[~np.isnan(values)], low, high, BINS), minlength=BINS)


def _bin(values: np.ndarray, low: float, high: float, bins: int) -> np.ndarray:
    """The bin of each value; those beyond the ends are in the outermost."""
    return ((values - low) * (bins / (high - low))).clip(0, bins - 1).astype(np.int64)
