"""The arithmetic of scaling, against a file that was written and figures worked out by hand."""

import pytest
import torch

from benchmarks.scaling import Assumptions, figures, model_bytes
from engine import checkpoint
from models.blip_pretrain import BLIPPretrain
from tests.small_model import TEXT, VIT


def test_the_bytes_of_a_checkpoint_are_those_of_its_file(tmp_path):
    model = BLIPPretrain(image_size=32, vit=VIT, med_config=TEXT, embed_dim=16, queue_size=4096, momentum=0.9)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    for parameter in optimizer.param_groups[0]["params"]:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    checkpoint.save(tmp_path / "one.pth", {"model": model.state_dict(), "optimizer": optimizer.state_dict()})
    tensors = {tensor.data_ptr(): tensor for tensor in model.state_dict().values()}
    for state in optimizer.state.values():
        tensors |= {state[moment].data_ptr(): state[moment] for moment in ("exp_avg", "exp_avg_sq")}
    found = model_bytes(model)
    assert found["checkpoint"] == sum(tensor.nbytes for tensor in tensors.values())
    assert found["checkpoint"] < (tmp_path / "one.pth").stat().st_size < 1.5 * found["checkpoint"]  # 900 small records
    assert found["gradients"] == sum(p.grad.nbytes for p in model.parameters() if p.grad is not None)
    assert found["kept"] == found["checkpoint"] + found["gradients"]


def test_figures_worked_out_by_hand():
    given = Assumptions(rate_base=100, rate_large=50, batch=50, picture_bytes=1000, shards=256, lanes=32, workers=2)
    size = {"gradients": 10**9, "kept": 5 * 10**9, "checkpoint": 4 * 10**9}
    found = figures(given, 0.5, {"base": size, "large": size}, 16)
    assert found["samples_per_second"] == 1600
    assert found["read_per_second"] == 1.6e6
    assert found["read_per_second_of_machine"] == 0.8e6
    assert (found["opened_at_random"], found["opened_with_lanes"]) == (512, 32)  # 16 of 256 shards a process
    assert found["checkpoint_seconds_base"] == 8
    assert found["all_reduce_share_base"] == pytest.approx(2 * 15 / 16 / 50 / 0.5)  # of a step of half a second
    assert found["all_reduce_share_large"] == pytest.approx(2 * 15 / 16 / 50 / 1.0)
    assert figures(given, 0.5, {"base": size}, 8)["all_reduce_share_base"] == pytest.approx(2 * 7 / 8 / 300 / 0.5)
