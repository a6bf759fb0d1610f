"""Learning rates over a training."""

import math


def cosine_lr(epoch: float, max_epoch: float, init_lr: float, min_lr: float) -> float:
    """The rate that falls from `init_lr` at epoch 0 to `min_lr` at `max_epoch` along half a cosine."""
    return min_lr + (init_lr - min_lr) * 0.5 * (1 + math.cos(math.pi * epoch / max_epoch))


def warmup_lr(step: int, max_step: int, warmup_lr: float, init_lr: float) -> float:
    """The rate that rises linearly from `warmup_lr` at step 0 to `init_lr` at `max_step`, and stays there."""
    if step >= max_step:
        return init_lr
    return warmup_lr + (init_lr - warmup_lr) * step / max_step


def step_lr(epoch: int, init_lr: float, min_lr: float, decay_rate: float) -> float:
    """`init_lr * decay_rate ** epoch`, never under `min_lr`."""
    return max(min_lr, init_lr * decay_rate**epoch)
