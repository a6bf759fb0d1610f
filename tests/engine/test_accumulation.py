"""Batches whose gradients one step accumulates move momentum copies and queues as one large batch does."""

from functools import partial

import pytest
import torch

import pretrain
import train_retrieval
from engine import Progress, Run, TrainConfig
from engine.step import Optimization
from models.blip_pretrain import BLIPPretrain
from models.blip_retrieval import BLIPRetrieval
from settings import load_config
from tests.small_model import TEXT, VIT

SIZES = {"image_size": 32, "vit": VIT, "med_config": TEXT, "embed_dim": 16, "queue_size": 16, "momentum": 0.9}
CAPTIONS = ["a red dog", "a blue cat", "two big cars", "one tall tree", "three old men", "the wet street"]
TASKS = {
    "pretrain": (BLIPPretrain, partial(pretrain.train_step, load_config(pretrain.Config, "configs/pretrain.yaml", []))),
    "retrieval": (BLIPRetrieval, partial(train_retrieval.train_step, 0.4)),
}


def batches_of(size):
    """Six samples in batches of `size`, as loaders return them."""
    image = torch.randint(256, (6, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    samples = {"image": image, "caption": CAPTIONS, "image_id": torch.arange(6)}
    return [{name: value[i : i + size] for name, value in samples.items()} for i in range(0, 6, size)]


def optimization(task, tmp_path, only=None):
    """The script's own step on a small model; with `only` its one loss of that name."""
    build, train_step = TASKS[task]

    def step(*arguments):
        output = train_step(*arguments)
        return {"loss": output[only]} if only else output

    torch.manual_seed(0)
    model = build(**SIZES).train()
    run = Run(TrainConfig(init_lr=1e-3), tmp_path, torch.device("cpu"), 0, 0, 1, False, None)
    return Optimization(run, model, step)


def snapshot(model):
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def copies(state):
    return {name: value for name, value in state.items() if "_m." in name}


@pytest.mark.parametrize("task", TASKS)
def test_copies_move_once_a_step_by_the_weights_before_it(task, tmp_path):
    training = optimization(task, tmp_path)
    for number in range(3):
        before = snapshot(training.model)
        training.step(batches_of(2), Progress(0, number, 3, number), 1e-3)
        after = copies(snapshot(training.model))
        assert len(after) > 50
        for name, value in after.items():
            expected = torch.lerp(before[name], before[name.replace("_m.", ".", 1)], 1 - 0.9)
            assert torch.equal(value, expected), name
    assert any(not torch.equal(before[name], value) for name, value in after.items())


@pytest.mark.parametrize("task", TASKS)
def test_copies_and_queues_are_those_of_one_large_batch(task, tmp_path):
    states = []
    for size in (6, 2):
        training = optimization(task, tmp_path)
        with torch.no_grad():  # else the copies equal what they follow, and an update changes nothing
            for parameter in training.parameters:
                parameter.mul_(1.01)
        training.step(batches_of(size), Progress(0, 0, 1, 0), 1e-3)
        states.append(snapshot(training.model))
    large, small = states
    assert all(torch.equal(value, copies(small)[name]) for name, value in copies(large).items())
    queues = [name for name in large if "queue" in name]
    assert len(queues) == (3 if task == "pretrain" else 4)
    for name in queues:
        torch.testing.assert_close(small[name], large[name], rtol=0, atol=1e-6)


def test_a_loss_without_negatives_has_the_gradient_of_one_large_batch(tmp_path):
    """Captions have equally many tokens here, by which each batch divides its language-model loss."""
    found = []
    for size in (6, 2):
        training = optimization("pretrain", tmp_path, only="loss_lm")
        output = training.step(batches_of(size), Progress(0, 0, 1, 0), 1e-3)
        gradients = {name: p.grad for name, p in training.model.named_parameters() if p.grad is not None}
        found.append((output["loss"], output["grad_norm"], gradients))
    (loss, norm, large), (loss_of_small, norm_of_small, small) = found
    torch.testing.assert_close(loss_of_small, loss, rtol=1e-5, atol=0)
    torch.testing.assert_close(norm_of_small, norm, rtol=1e-5, atol=0)
    for name, gradient in large.items():
        torch.testing.assert_close(small[name], gradient, rtol=1e-4, atol=1e-6)
