"""Made-up shards and the order of an epoch over them; without torch, whose memory would hide that of an order."""

import numpy as np

from data.lanes import Lanes
from data.order import Order, by_shard, in_one_lane

_SAMPLES = 9_000, 11_001  # of a shard: from, and below


def made_up_sizes(shards: int) -> np.ndarray:
    """Samples of each shard: about 10,000, as img2dataset writes them, less those that it could not fetch."""
    return np.random.default_rng(0).integers(*_SAMPLES, shards)


def order_of(sizes: np.ndarray, lanes: int) -> Order:
    """The order of an epoch over shards of `sizes` samples; with 0 lanes, all processes read from the same shards."""
    if lanes:
        return Lanes(lanes, sizes, np.arange(len(sizes)), window=16, seed=0).order(0)
    return in_one_lane(int(sizes.sum()), lambda: by_shard(sizes, (0, 0), 16))
