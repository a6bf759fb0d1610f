"""What is built on undocumented parts of torch does what its name says."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from models.blip_pretrain import BLIPPretrain
from models.library_internals import ModelFlops
from tests.small_model import TEXT, VIT


def product(query, key):
    """Operations of a product of queries [B, heads, L, d] with keys [B, heads, T, d], or of one of that size."""
    batch, heads, length, width = query
    return 2 * batch * heads * length * key[2] * width


def counter_of_torch():
    """Torch's own counter, which knows no attention of a CPU: two products forward, five backward."""
    attention = {
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, *_, **__: 2 * product(q, k),
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda _, q, k, *__, **___: (
            5 * product(q, k)
        ),
    }
    return FlopCounterMode(display=False, custom_mapping=attention)


def step(counter, **options):
    torch.manual_seed(0)
    model = BLIPPretrain(TEXT, 32, VIT, **options, embed_dim=16, queue_size=16).train()
    with counter:
        sum(model(torch.zeros(2, 3, 32, 32), ["a dog", "two cats"], 0.4)).backward()
    return counter


def test_operations_are_those_that_torch_counts():
    assert step(ModelFlops()).total == step(counter_of_torch()).get_total_flops() > 0


@pytest.mark.parametrize("layers", [1, 2])
def test_what_checkpointing_computes_again_is_not_counted(layers):
    checkpointed = {"vit_grad_ckpt": True, "vit_ckpt_layer": layers}
    assert step(ModelFlops(), **checkpointed).total == step(ModelFlops()).total
    assert step(counter_of_torch(), **checkpointed).get_total_flops() > step(ModelFlops()).total
