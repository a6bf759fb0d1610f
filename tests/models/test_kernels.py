"""The kernels chosen for few queries and few rows: who gets them, and that they compute the same."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.counters import count_flops
from models.config import TextConfig
from models.generation import SearchOptions, generate
from models.kernels import for_few_rows, is_slow_when_fused
from models.med import TextDecoder

CPU = torch.device("cpu")
WIDE = TextConfig(
    hidden_size=768, num_hidden_layers=1, num_attention_heads=12, intermediate_size=1024, max_position_embeddings=16
)

needs_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="a torch without oneDNN")


def test_only_few_queries_in_bfloat16_without_gradients_are_kept_from_the_fused_kernel():
    few = torch.zeros(1, 1, 4, 8, dtype=torch.bfloat16)
    many = torch.zeros(1, 1, 100, 8, dtype=torch.bfloat16)
    assert not is_slow_when_fused(few)
    with torch.no_grad():
        assert is_slow_when_fused(few)
        assert not is_slow_when_fused(many)
        assert not is_slow_when_fused(few.float())
        assert not is_slow_when_fused(few.to("meta"))


@pytest.fixture
def by_onednn(monkeypatch):
    """The shapes of the tensors that are handed to oneDNN."""
    shapes, convert = [], Tensor.to_mkldnn

    def counted(tensor):
        shapes.append(tuple(tensor.shape))
        return convert(tensor)

    monkeypatch.setattr(Tensor, "to_mkldnn", counted)
    return shapes


@needs_onednn
@pytest.mark.parametrize("shape", [(1, 768), (256, 768), (2, 3, 768), (0, 768)])
def test_few_rows_are_multiplied_by_onednn_to_the_same_numbers(by_onednn, shape):
    x, weight, bias = torch.randn(shape), torch.randn(1024, 768), torch.randn(1024)
    with torch.no_grad(), for_few_rows(CPU, 768):
        found = F.linear(x, weight, bias)
    assert by_onednn == [shape]
    expected = x.double() @ weight.double().T + bias.double()
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=2e-4)


def test_everything_else_is_left_to_torch(by_onednn):
    few, weight = torch.randn(3, 768), torch.randn(1024, 768)
    with for_few_rows(CPU, 768), torch.no_grad():
        for x, other in [
            (torch.randn(257, 768), weight),
            (few, weight[:100]),
            (few.double(), weight.double()),
            (few.bfloat16(), weight.bfloat16()),
            (few.as_subclass(type("Own", (Tensor,), {})), weight),
            (few.to("meta"), weight.to("meta")),
        ]:
            assert F.linear(x, other).shape == (len(x), len(other))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert F.linear(few, weight).dtype is torch.bfloat16
        with torch.enable_grad():
            trained = torch.nn.Linear(768, 1024)
            trained(few).sum().backward()
            torch.testing.assert_close(trained.weight.grad, few.sum(dim=0).expand(1024, 768))
    for device, width in [(CPU, 256), (torch.device("cuda"), 768)]:
        with torch.no_grad(), for_few_rows(device, width):
            F.linear(few, weight)
    assert not by_onednn


def test_code_can_be_compiled_there():
    x, weight = torch.randn(3, 768), torch.randn(1024, 768)
    with torch.no_grad(), for_few_rows(CPU, 768):
        found = torch.compile(F.linear, backend="eager", fullgraph=True)(x, weight)
    torch.testing.assert_close(found, x @ weight.T, rtol=0, atol=2e-4)


@needs_onednn
@pytest.mark.parametrize("options", [{"num_beams": 3}, {"num_beams": 1}])
def test_a_wide_decoder_generates_the_same_with_torchs_kernels(by_onednn, monkeypatch, options):
    torch.manual_seed(0)
    decoder = TextDecoder(WIDE, 1000, 8).eval()
    memory, prompt = decoder.project(torch.randn(2, 4, 8)), torch.tensor([[1, 5]] * 2)
    search = SearchOptions(**options, max_length=8, min_length=0)

    def found():
        return generate(decoder, memory, prompt, search, end_token=3, pad_token=0)

    ours, operations = found(), count_flops(found)
    handed_over = len(by_onednn)
    assert handed_over
    monkeypatch.setattr("models.kernels._FEW_ROWS", 0)
    torchs = found()
    assert count_flops(found) == operations
    assert len(by_onednn) == handed_over
    assert ours.ids.tolist() == torchs.ids.tolist()
    torch.testing.assert_close(ours.log_probs, torchs.log_probs, rtol=1e-5, atol=1e-5)
