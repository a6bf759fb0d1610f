"""Which texts are kept: by a threshold on a score, without duplicates, the best few of each image."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from bootstrapping.blocks import Block, blocks, in_order
from bootstrapping.scores import SYNTHETIC, WEB, Scores

Score = Literal["match", "cosine"]


@dataclass(frozen=True)
class Rule:
    """What a text must have to be kept.

    Attributes:
        score: the column that is compared.
        least: the lowest score that is kept, of either source.
        captions_per_image: the most texts of an image; None: all.
    """

    score: Score
    least: Mapping[str, float]
    captions_per_image: int | None = None


@dataclass(frozen=True)
class Chosen:
    """What became of a block's texts: bool [rows] each.

    Attributes:
        passed: the score is high enough.
        unique: passed, and no other such text of the image is the same (the web's goes before a synthetic one).
        kept: unique, and among the best of the image.
    """

    passed: np.ndarray
    unique: np.ndarray
    kept: np.ndarray


def choose(block: Block, rule: Rule) -> Chosen:
    """Which texts of a block are kept."""
    score = block.numbers(rule.score)
    least = np.where(block.synthetic, np.float32(rule.least[SYNTHETIC]), np.float32(rule.least[WEB]))
    passed = score >= least  # not of NaN
    rows = np.flatnonzero(passed)

    keys = block.text_keys[rows]
    order = np.lexsort((block.places[rows], keys))
    keys = keys[order]
    first = np.ones(len(rows), bool)
    first[1:] = keys[1:] != keys[:-1]
    unique = _mask(len(block), rows[order[first]])
    if rule.captions_per_image is None:
        return Chosen(passed, unique, unique)

    rows = np.flatnonzero(unique)
    order = np.lexsort((block.places[rows], -score[rows], block.image_numbers[rows]))
    images = block.image_numbers[rows[order]]
    rank = np.arange(len(rows)) - np.searchsorted(images, images)
    return Chosen(passed, unique, _mask(len(block), rows[order[rank < rule.captions_per_image]]))


def _mask(size: int, rows: np.ndarray) -> np.ndarray:
    mask = np.zeros(size, bool)
    mask[rows] = True
    return mask


def least_of_share(scores: Scores, score: Score, share: float, by_source: bool) -> dict[str, float]:
    """The lowest score among the best `share` of all texts, or of each source's; equal scores are all kept.

    It is found exactly in two passes, each of which counts 16 bits of the scores: no list of all scores is held.
    """
    upper = _count_halves(scores, score, None)
    groups = [[WEB], [SYNTHETIC]] if by_source else [[WEB, SYNTHETIC]]
    wanted: dict[str, tuple[int, int]] = {}  # the upper half of the lowest score, and how many are wanted of its texts
    for sources in groups:
        counts = np.sum([upper[source] for source in sources], axis=0)
        half, rest = _from_the_top(counts, max(1, round(share * int(counts.sum()))))
        wanted |= dict.fromkeys(sources, (half, rest))
    lower = _count_halves(scores, score, {source: half for source, (half, _) in wanted.items()})
    least: dict[str, float] = {}
    for sources in groups:
        half, rest = wanted[sources[0]]
        low, _ = _from_the_top(np.sum([lower[source] for source in sources], axis=0), rest)
        least |= dict.fromkeys(sources, _score_of(half << 16 | low))
    return least


def _count_halves(scores: Scores, score: Score, upper: Mapping[str, int] | None) -> dict[str, np.ndarray]:
    """How often each value of the scores' upper 16 bits occurs; of the lower ones, where the upper are those given."""

    def count(block: Block) -> dict[str, np.ndarray]:
        values = block.numbers(score)
        found: dict[str, np.ndarray] = {}
        for source, of_source in ((WEB, ~block.synthetic), (SYNTHETIC, block.synthetic)):
            bits = _ordered_bits(values[of_source & ~np.isnan(values)])
            halves = bits >> 16 if upper is None else bits[bits >> 16 == upper[source]] & 0xFFFF
            found[source] = np.bincount(halves, minlength=1 << 16)
        return found

    total = {source: np.zeros(1 << 16, np.int64) for source in (WEB, SYNTHETIC)}
    for counted in in_order(count, blocks(scores.files, (score, "source"))):
        for source, counts in counted.items():
            total[source] += counts
    return total


def _from_the_top(counts: np.ndarray, number: int) -> tuple[int, int]:
    """The value that the `number`-th largest has, and its place among those of this value, counted from 1."""
    larger = np.cumsum(counts[::-1])
    at = min(int(np.searchsorted(larger, number)), len(counts) - 1)
    return len(counts) - 1 - at, number - int(larger[at] - counts[::-1][at])


def _ordered_bits(values: np.ndarray) -> np.ndarray:
    """The bits of 32-bit floats, changed so that larger numbers have larger bits."""
    bits = values.view(np.uint32)
    return np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))


def _score_of(bits: int) -> float:
    """The number whose `_ordered_bits` these are."""
    original = bits & 0x7FFFFFFF if bits >> 31 else ~bits & 0xFFFFFFFF
    return float(np.array(original, np.uint32).view(np.float32))
