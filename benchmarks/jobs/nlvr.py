"""A training step of NLVR2 at 384 pixels."""

from collections.abc import Iterator
from typing import Any

import torch

import train_nlvr
from benchmarks.comparison import Comparison
from benchmarks.context import Context
from benchmarks.made_up import pixels, statements
from benchmarks.textbook.losses import nlvr_losses
from benchmarks.training import TrainingSide, compare_steps, set_up
from models.blip_nlvr import BLIPNLVR


def step(context: Context) -> Iterator[Comparison]:
    """A batch of statements, each with two images."""
    both = side(context)
    model = both.model
    assert isinstance(model, BLIPNLVR)
    textbook = both.textbook(lambda batch: nlvr_losses(model, batch))
    what = f"NLVR2 training step of {both.samples} pairs of images, {context.describe('base', 384)}"
    yield compare_steps("nlvr_step", what, "statements", both, {"ours": both.ours(), "textbook": textbook})


def side(context: Context, **values: Any) -> TrainingSide:
    """train_nlvr.py's model, step and a batch; `values` are further keys of its config."""
    number = context.pick(gpu=16, cpu=2, tiny=3)
    config = train_nlvr.Config(precision=context.precision, **(context.sizes("base", 384) | values))
    batch = {
        "image": pixels(2 * number, config.image_size),
        "sentence": statements(number),
        "label": torch.arange(number) % 2,
    }
    return set_up(context, config, train_nlvr.build_model, train_nlvr.train_step, batch, number)
