"""A pre-training step, all three losses, at 224 pixels."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

import pretrain
from benchmarks.comparison import Comparison
from benchmarks.context import Context
from benchmarks.made_up import pixels, web_captions
from benchmarks.textbook.losses import pretrain_losses
from benchmarks.training import TrainingSide, compare_steps, set_up
from models.blip_pretrain import BLIPPretrain
from models.momentum import MomentumModel


def base(context: Context) -> Iterator[Comparison]:
    """ViT-B."""
    yield _step(context, "pretrain_base", "base")


def large(context: Context) -> Iterator[Comparison]:
    """ViT-L."""
    yield _step(context, "pretrain_large", "large")


def compiled(context: Context) -> Iterator[Comparison]:
    """ViT-B with compiled blocks, against the same step without; each with a model of its own."""
    sides = {"ours": side(context, "base", compile=True), "not compiled": side(context, "base", compile=False)}
    steps = {name: side.ours() for name, side in sides.items()}
    yield compare_steps("pretrain_base_compiled", _what(context, "base"), "images", sides["ours"], steps, warm_up=2)


def _step(context: Context, name: str, vit: str) -> Comparison:
    both = side(context, vit)
    model = both.model
    assert isinstance(model, BLIPPretrain)
    lag_behind(model)
    textbook = both.textbook(lambda batch: pretrain_losses(model, batch, both.config.alpha))
    return compare_steps(name, _what(context, vit), "images", both, {"ours": both.ours(), "textbook": textbook})


def _batch_size(context: Context) -> int:
    return context.pick(gpu=75, cpu=8, tiny=4)


def _what(context: Context, vit: str) -> str:
    return f"pre-training step of {_batch_size(context)} pairs, {context.describe(vit, 224)}"


def side(context: Context, vit: str = "base", **values: Any) -> TrainingSide:
    """pretrain.py's model, step and a batch; `values` are further keys of its config."""
    number = _batch_size(context)
    config = pretrain.Config(
        train_file=["made up"],
        initialize=False,
        precision=context.precision,
        **(context.sizes(vit, 224) | queue_sizes(context) | values),
    )
    batch = {"image": pixels(number, config.image_size), "caption": web_captions(number)}
    return set_up(context, config, pretrain.build_model, partial(pretrain.train_step, config), batch, number)


def queue_sizes(context: Context) -> dict[str, Any]:
    """The keys `queue_size` and `embed_dim` of a tiny model; a script's own values otherwise."""
    return {"queue_size": 32, "embed_dim": 32} if context.tiny else {}


@torch.no_grad()
def lag_behind(model: MomentumModel) -> None:
    """Make the momentum copies other than what they follow, as in training, so that following changes them."""
    for name in model.MOMENTUM_PARTS:
        for parameter in getattr(model, f"{name}_m").parameters():
            parameter.mul_(0.9)
