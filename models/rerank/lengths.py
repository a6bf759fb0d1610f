"""Lengths of texts, rounded up to a few."""

import numpy as np


def round_up(lengths: np.ndarray, most: int) -> np.ndarray:
    """Round whole numbers [M] up to at most `most` different ones of them, chosen so that their sum is the least."""
    values, counts = np.unique(lengths, return_counts=True)
    if len(values) <= most:
        return lengths
    totals = np.concatenate([[0], counts.cumsum()])
    # price[i, j]: the sum, where the values from number i on are rounded up to the one before number j.
    price = (totals[None, :] - totals[:, None]) * np.concatenate([[0], values])[None, :].astype(float)
    price[np.tril_indices(len(totals))] = np.inf
    best, steps = price[0], []
    for _ in range(most - 1):
        sums = best[:, None] + price
        steps.append(sums.argmin(axis=0))
        best = sums.min(axis=0)
    kept, end = [], len(values)
    for step in reversed(steps):
        kept.append(values[end - 1])
        end = step[end]
    kept.append(values[end - 1])
    chosen = np.sort(kept)
    return chosen[np.searchsorted(chosen, lengths)]
