"""Attention: whichever kernel runs, it is the textbook's formula."""

import pytest
import torch

from models.attention import Memory, attend


def textbook(query, key, value, allowed):
    """Attention of one head in float64: query [Q, d], key and value [T, d], allowed [Q, T]."""
    scores = (query.double() @ key.double().T / query.shape[1] ** 0.5).masked_fill(~allowed, float("-inf"))
    return scores.softmax(dim=1) @ value.double()


@pytest.mark.parametrize("length", [1, 3, 80], ids=lambda length: f"{length} queries")
@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 2e-6), (torch.bfloat16, 2e-2)])
def test_attention_is_that_of_the_textbook_for_few_and_for_many_queries(length, dtype, error):
    draw = torch.Generator().manual_seed(0)
    query = torch.randn(4, length, 2, 8, generator=draw).to(dtype)  # two texts of each image
    key, value = (torch.randn(2, 2, 90, 8, generator=draw).to(dtype) for _ in range(2))
    mask = torch.rand(2, 90, generator=draw) < 0.7
    with torch.no_grad():
        context, _ = attend(query, key, value, mask)
    for text in range(4):
        for head in range(2):
            image = text // 2
            allowed = mask[image].expand(length, -1)
            expected = textbook(query[text, :, head], key[image, head], value[image, head], allowed)
            found = context[text].unflatten(-1, (2, 8))[:, head].double()
            torch.testing.assert_close(found, expected, rtol=0, atol=error)


def test_few_queries_in_bfloat16_see_no_later_position():
    draw = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, 5, 1, 8, generator=draw).bfloat16() for _ in range(3))
    key, value = key.transpose(1, 2), value.transpose(1, 2)
    with torch.no_grad():
        context, _ = attend(query, key, value, causal=True)
    expected = textbook(query[0, :, 0], key[0, 0], value[0, 0], torch.ones(5, 5, dtype=torch.bool).tril())
    torch.testing.assert_close(context[0].double(), expected, rtol=0, atol=2e-2)


def test_a_memory_in_one_piece_is_the_same_memory():
    key, value = torch.randn(2, 3, 5, 4).transpose(1, 2), torch.randn(2, 3, 5, 4).transpose(1, 2)
    mask = torch.ones(2, 3, dtype=torch.bool)
    memory = Memory([[(key, value)]], mask).contiguous()
    ((copies,),) = memory.layers
    assert memory.mask is mask
    for copy, original in zip(copies, (key, value), strict=True):
        assert copy.is_contiguous()
        assert copy.equal(original)
