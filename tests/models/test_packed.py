"""A row of packed texts gives what the text model gives for each text by itself."""

import pytest
import torch

from models.med import TextModel
from models.med_layer import TextConfig
from models.packed import first_states


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("masked", [False, True])
def test_packed_texts_equal_single_ones(close, layers, masked):
    torch.manual_seed(0)
    config = TextConfig(hidden_size=32, num_hidden_layers=layers, num_attention_heads=4, intermediate_size=64)
    model = TextModel(config, vocabulary=100, source_width=24).eval()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    runs = [torch.randint(1, 100, shape) for shape in ((3, 4), (1, 5), (2, 9))]
    mask = torch.arange(7)[None] < 5 if masked else None
    with torch.no_grad():
        memory = model.project(torch.randn(1, 7, 24), mask=mask)
        packed = first_states(model, runs, memory)
        single = [model(ids[None], memory=memory, first_only=True)[:, 0] for run in runs for ids in run]
    close(packed, torch.cat(single))
