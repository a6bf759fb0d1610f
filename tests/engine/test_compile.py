"""What torch.compile is given, and that it is compiled once for all blocks of a kind."""

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from engine.step import compile_blocks
from models.blip_pretrain import BLIPPretrain


def test_blocks_are_compiled_and_what_is_around_them_is_not(monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compiled.append(type(self).__name__))
    model = torch.nn.ModuleDict({"blocks": torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))})
    model["head"] = torch.nn.Linear(2, 1)
    compile_blocks(model)
    assert compiled == ["Linear", "Linear"]


@pytest.mark.parametrize("layers", [2, 4])
def test_layers_share_their_compilations_and_texts_of_new_lengths_need_no_more(layers, monkeypatch):
    counter = CompileCounter()  # compiles nothing, and counts what is to be compiled
    compile_with = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compile_with(self, backend=counter))
    torch._dynamo.reset()
    sizes = {"hidden_size": 16, "num_hidden_layers": layers, "num_attention_heads": 2, "intermediate_size": 32}
    vit = {"embed_dim": 16, "depth": layers, "num_heads": 2, "patch_size": 16}
    model = BLIPPretrain(image_size=32, vit=vit, med_config=sizes, embed_dim=16, queue_size=16)
    compile_blocks(model)
    compiled = []
    for words in (1, 3, 5, 2, 6):
        sum(model(torch.zeros(4, 3, 32, 32), ["dog " * words, "cat", "dog " * words, "a"], 0.4)).backward()
        compiled.append(counter.frame_count)
    assert compiled[1:] == [15] * 4  # the second length tells that lengths vary
    torch._dynamo.reset()
