"""VQA: a training step at 480 pixels, and the ranking of answers."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

import train_vqa
from benchmarks.comparison import Comparison
from benchmarks.context import Context
from benchmarks.made_up import CANDIDATES, candidates, pixels, questions
from benchmarks.textbook.losses import vqa_losses
from benchmarks.textbook.search import rank_answers
from benchmarks.training import TrainingSide, compare_steps, set_up
from models.blip_vqa import BLIPVQA

ANSWERS_EACH = (1, 4, 2, 6, 3)  # different ones among the ten people's, by turns
_TINY_VIT = {"embed_dim": 64, "depth": 1, "num_heads": 1, "patch_size": 16}  # takes no part in ranking


def step(context: Context) -> Iterator[Comparison]:
    """A batch of questions, each with all its answers."""
    both = side(context)
    model = both.model
    assert isinstance(model, BLIPVQA)
    textbook = both.textbook(lambda batch: vqa_losses(model, batch))
    what = f"VQA training step of {both.samples} questions, {context.describe('base', 480)}"
    yield compare_steps("vqa_step", what, "questions", both, {"ours": both.ours(), "textbook": textbook})


def side(context: Context, **values: Any) -> TrainingSide:
    """train_vqa.py's model, step and a batch; `values` are further keys of its config."""
    number = context.pick(gpu=16, cpu=2, tiny=3)
    config = train_vqa.Config(precision=context.precision, **(context.sizes("base", 480) | values))
    counts = [ANSWERS_EACH[row % len(ANSWERS_EACH)] for row in range(number)]
    batch = {
        "image": pixels(number, config.image_size),
        "question": questions(number),
        "answers": candidates()[: sum(counts)],
        "n": torch.tensor(counts),
        "weights": torch.cat([torch.full((count,), 1 / count) for count in counts]),
    }
    return set_up(context, config, train_vqa.build_model, train_vqa.train_step, batch, number)


def rank(context: Context) -> Iterator[Comparison]:
    """The best of 3,128 answers to each question, from the questions' states on, of 7 to 11 tokens."""
    number, k = context.pick(gpu=32, cpu=4, tiny=2), context.pick(gpu=128, cpu=128, tiny=8)
    text = {"med_config": context.sizes("base", 480)["med_config"]} if context.tiny else {}
    torch.manual_seed(0)
    with context.device:
        model = BLIPVQA(image_size=16, vit=_TINY_VIT, **text).eval()
    answers = model.tokenizer(candidates(), padding="longest", return_tensors="pt")
    ids, lengths = answers.input_ids.to(context.device), answers.attention_mask.sum(dim=1).to(context.device)
    ids = torch.cat([torch.full_like(ids[:, :1], model.special.dec), ids[:, 1:]], dim=1)
    states = torch.randn(number, 11, model.text_config.hidden_size, device=context.device)
    tokens = torch.arange(number, device=context.device)[:, None] % 5 + 7
    mask = torch.arange(11, device=context.device) < tokens

    @torch.no_grad()
    def ours() -> tuple[Tensor, Tensor]:
        with context.autocast():
            return model.rank(model.text_decoder.project(states, mask), answers, k)

    @torch.no_grad()
    def textbook() -> tuple[Tensor, Tensor]:
        with context.autocast():
            return rank_answers(model.text_decoder, states, mask, ids, lengths, k)

    def differences() -> dict[str, dict[str, float]]:
        (chosen, scores), (expected_chosen, expected) = ours(), textbook()
        expected, order = expected.sort(dim=1, descending=True)
        best = expected_chosen.gather(1, order)[:, 0]
        return {
            "textbook": {
                "scores": (scores - expected).abs().max().item(),
                "share of questions with another best answer": (chosen[:, 0] != best).float().mean().item(),
            }
        }

    size = "tiny" if context.tiny else "BERT-base"
    yield Comparison(
        name="vqa_rank",
        what=f"VQA ranking, {number} questions x {k} of {CANDIDATES:,} answers, {size} decoder alone",
        unit="questions",
        samples={"ours": number, "textbook": number},
        ways={"ours": ours, "textbook": textbook},
        differences=differences,
    )
