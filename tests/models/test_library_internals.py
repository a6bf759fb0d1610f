"""What is built on undocumented parts of torch does what its name says."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from models.blip_pretrain import BLIPPretrain
from models.library_internals import ModelFlops
from tests.small_model import TEXT, VIT


def step(counter, **options):
    torch.manual_seed(0)
    model = BLIPPretrain(TEXT, 32, VIT, **options, embed_dim=16, queue_size=16).train()
    with counter:
        sum(model(torch.zeros(2, 3, 32, 32), ["a dog", "two cats"], 0.4)).backward()
    return counter


def test_operations_are_those_that_torch_counts():
    assert step(ModelFlops()).total == step(FlopCounterMode(display=False)).get_total_flops() > 0


@pytest.mark.parametrize("layers", [1, 2])
def test_what_checkpointing_computes_again_is_not_counted(layers):
    checkpointed = {"vit_grad_ckpt": True, "vit_ckpt_layer": layers}
    assert step(ModelFlops(), **checkpointed).total == step(ModelFlops()).total
    with_recomputed = step(FlopCounterMode(display=False), **checkpointed).get_total_flops()
    assert with_recomputed > step(ModelFlops()).total
