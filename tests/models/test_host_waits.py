"""How often the host waits for a GPU: in generating texts at the end tests only, in ranking answers once a batch."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from models import generation
from models.blip_itm import BLIPMatcher
from models.blip_vqa import BLIPVQA
from models.config import TextConfig
from models.generation import SearchOptions, generate
from models.med import TextDecoder
from models.rerank.search import TextsByLength
from models.rerank.work_shares import SINGLE_PROCESS, no_progress
from tests.fake_gpu import CUDA, FakeGPU
from tests.small_model import TEXT, VIT

WIDTH, START, END, PAD, MOST = 8, 1, 3, 0, 11
ONE_LAYER = {**TEXT, "num_hidden_layers": 1}


def write(gpu, images=5, prompt=2, **options):
    """The waits of writing texts on a fake GPU, beside those of making the decoder and its memory."""
    with gpu, torch.no_grad():
        decoder = TextDecoder(TextConfig(**ONE_LAYER), 40, WIDTH).to(CUDA).eval()
        memory = decoder.project(torch.empty(images, 4, WIDTH, device=CUDA))
        gpu.waits.clear()
        search = SearchOptions(**{"max_length": MOST, "min_length": 4, **options})
        start = torch.full((images, prompt), START, device=CUDA)
        return generate(decoder, memory, start, search, end_token=END, pad_token=PAD)


def unended(asked):
    """The answers to: have all texts ended, are all logits numbers? At last the first asks for the longest text."""
    assert asked.shape == (2,)
    return torch.tensor([0, 1])


SEARCHES = [
    {"num_beams": 1},
    {"num_beams": 3},
    {"num_beams": 3, "num_return_sequences": 2, "repetition_penalty": 1.3},
    {"sample": True, "num_return_sequences": 2},
]


@pytest.mark.parametrize("options", SEARCHES)
def test_only_the_end_tests_and_the_end_itself_wait(options):
    gpu = FakeGPU(unended)
    write(gpu, **options)
    assert len(gpu.waits) == 2 + 1  # of 9 tokens after the prompt: after 4 and 8 of them


def test_without_end_tests_nothing_waits_but_the_end(monkeypatch):
    monkeypatch.setattr(generation, "TOKENS_BETWEEN_END_TESTS", MOST)
    gpu = FakeGPU(unended)
    write(gpu)
    assert len(gpu.waits) == 1


def test_samples_chosen_by_given_numbers_wait_no_more():
    gpu = FakeGPU(unended)
    with gpu:
        uniforms = torch.empty(5, MOST, device=CUDA)
    write(gpu, sample=True, uniforms=uniforms)
    assert len(gpu.waits) == 3


@pytest.mark.parametrize("options", SEARCHES[:2])
def test_the_first_end_test_that_is_passed_ends_the_search(options):
    gpu = FakeGPU()  # all have ended, it says
    write(gpu, **options)
    assert len(gpu.waits) == 1 + 1


@pytest.mark.parametrize("options", SEARCHES[2:])
def test_logits_that_are_no_numbers_are_an_error_at_the_first_end_test(options):
    gpu = FakeGPU(lambda asked: torch.tensor([0, 0]))
    with pytest.raises(generation.UserError, match="values that are not finite"):
        write(gpu, **options)
    assert len(gpu.waits) == 1


@pytest.mark.parametrize("candidates_at_once", [128, 2])
def test_ranking_a_batch_of_questions_waits_once(monkeypatch, candidates_at_once):
    monkeypatch.setattr("models.blip_vqa.CANDIDATES_AT_ONCE", candidates_at_once)
    model = BLIPVQA(ONE_LAYER, image_size=32, vit=VIT).eval()
    answers = ["black", "white", "black and white", "yes", "black cat", "two"]
    gpu = FakeGPU()
    with gpu, torch.no_grad():
        model.to(CUDA)
        image = torch.empty(3, 3, 32, 32, device=CUDA)
        gpu.waits.clear()
        chosen, scores = model.rank_answers(image, ["what is it?", "is it?", "how many are there?"], answers, 5)
    assert chosen.device == scores.device == CUDA
    assert chosen.shape == scores.shape == (3, 5)
    assert len(gpu.waits) == 1


def test_scoring_an_image_with_its_texts_waits_not_once_and_starts_few_attentions(monkeypatch):
    model = BLIPMatcher(TEXT, image_size=32, vit=VIT, embed_dim=8).eval()
    texts = ["a cat " * n for n in range(1, 12)]
    attentions, attention = [], F.scaled_dot_product_attention
    gpu = FakeGPU()
    with gpu, torch.no_grad():
        model.to(CUDA)
        by_length = TextsByLength(model, texts, SINGLE_PROCESS, no_progress)
        states, vector = torch.empty(1, 5, VIT["embed_dim"], device=CUDA), torch.empty(8, device=CUDA)
        gpu.waits.clear()
        monkeypatch.setattr(
            F, "scaled_dot_product_attention", lambda *a, **k: attentions.append(1) or attention(*a, **k)
        )
        scores = by_length.scores(states, vector, np.arange(11))
    assert scores.shape == (11,)
    assert scores.device == CUDA
    assert gpu.waits == []
    assert len(attentions) == TEXT["num_hidden_layers"] * 2  # to the text itself and to the image


def test_the_fake_gpu_counts_what_a_host_waits_for():
    gpu = FakeGPU()
    with gpu:
        there = torch.zeros(3, device=CUDA)
        waits_for = {
            "a value": there[0].item,
            "a copy to the host": there.cpu,
            "a copy from ordinary memory": lambda: torch.arange(2).to(CUDA, non_blocking=True),
            "a new tensor": lambda: torch.tensor([1, 2], device=CUDA),
            "a copy into a tensor": lambda: there.copy_(torch.arange(3)),
        }
        for what, operation in waits_for.items():
            gpu.waits.clear()
            operation()
            assert len(gpu.waits) == 1, what
        gpu.waits.clear()
        there[1].fill_(2.0)
        (there + torch.arange(3).pin_memory().to(CUDA, non_blocking=True)).sum()
        assert gpu.waits == []
        with pytest.raises(Exception, match="nonzero"):
            there[there > 0]
