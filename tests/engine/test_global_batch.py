"""A run keeps the samples of its optimizer steps when the number of its processes changes."""

import json
import logging

import numpy as np
import pytest
import torch
from PIL import Image

from data.caption import CaptionTrain
from data.loaders import TrainLoader
from engine.global_batch import divide, keep_global_batch
from settings import ConfigError
from transform.image import TrainTransform


@pytest.mark.parametrize(
    ("samples", "processes", "most", "batch", "accumulated"),
    [
        (16, 4, 4, 4, 1),
        (16, 2, 4, 4, 2),  # fewer processes accumulate
        (16, 8, 4, 2, 1),  # more of them have smaller batches
        (16, 1, 4, 4, 4),
        (12, 1, 5, 4, 3),  # never more than the memory holds
        (2880, 8, 75, 72, 5),
        (2880, 32, 75, 45, 2),
        (2880, 40, 75, 72, 1),
    ],
)
def test_a_step_is_divided_among_the_processes(samples, processes, most, batch, accumulated):
    assert divide(samples, processes, most) == (batch, accumulated)


def test_a_division_has_as_few_batches_as_fit():
    for processes in range(1, 9):
        for most in range(1, 9):
            for share in range(1, 40):
                fitting = [batch for batch in range(1, most + 1) if share % batch == 0]
                assert divide(share * processes, processes, most) == (max(fitting), share // max(fitting))


@pytest.mark.parametrize(
    ("processes", "batch", "accumulated"),
    [(8, 12, 1), (4, 12, 2), (2, 12, 4), (1, 8, 12)],  # without lanes: 12, 12, 12, 12
)
def test_a_batch_takes_equal_parts_from_the_lanes_of_its_process(processes, batch, accumulated):
    """96 samples in 8 lanes: one process reads all of them, and 12 samples are no multiple of 8."""
    assert divide(96, processes, 12, lanes=8) == (batch, accumulated)
    assert divide(96, processes, 12) == (12, 96 // 12 // processes)


def test_what_cannot_be_divided_names_what_can():
    with pytest.raises(ConfigError) as refused:
        divide(1024, 24, 32)
    assert "1,024 samples of an optimizer step cannot be divided among 24 processes" in str(refused.value)
    assert (
        "take 16 or 32 processes, or another global batch by global_batch_size=1008 or global_batch_size=1032"
        in str(refused.value)
    )
    with pytest.raises(ConfigError, match="take 2 processes, or another global batch by global_batch_size=3$"):
        divide(2, 3, 1)


def test_the_run_that_is_resumed_decides_unless_the_key_does(toy, caplog):
    config = toy.Config(batch_size=4, accumulation_steps=1)
    fresh = keep_global_batch(config, 2, None)
    assert (fresh.batch_size, fresh.accumulation_steps, fresh.global_batch_size) == (4, 1, 8)
    with caplog.at_level(logging.INFO, "blip.engine"):
        kept = keep_global_batch(config, 1, 8)
    assert (kept.batch_size, kept.accumulation_steps, kept.global_batch_size) == (4, 2, 8)
    assert "takes 8 samples: 1 process(es) with batch_size = 4 and accumulation_steps = 2, in place of" in caplog.text
    config.global_batch_size = 12
    changed = keep_global_batch(config, 1, 8)
    assert (changed.batch_size, changed.accumulation_steps, changed.global_batch_size) == (4, 3, 12)
    assert "took 8 samples before and takes 12 from here on" in caplog.text


def test_a_division_into_tiny_batches_is_warned_of(toy, caplog):
    keep_global_batch(toy.Config(batch_size=32, global_batch_size=74), 2, None)
    assert "batch_size = 1 is far below the 32 that a process may take, since 37 samples" in caplog.text


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """70 pictures of noise, each with captions to choose from."""
    monkeypatch.setenv("BLIP_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for i in range(70):
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), np.uint8)).save(tmp_path / f"{i}.png")
    records = [{"image": f"{i}.png", "caption": [f"caption {i} {j}" for j in range(3)]} for i in range(70)]
    (tmp_path / "train.json").write_text(json.dumps(records))
    return CaptionTrain([tmp_path / "train.json"], tmp_path, TrainTransform(16, min_scale=0.5), seed=3)


def steps_of(dataset, config, processes, first):
    """The images and captions of each step of epoch 1 from step `first` on, put together over batches and ranks."""
    loaders = [TrainLoader(dataset, config.batch_size, rank=rank, world_size=processes) for rank in range(processes)]
    for loader in loaders:
        loader.set_epoch(1, start_batch=first * config.accumulation_steps)
    batches = [batch for together in zip(*loaders, strict=True) for batch in together]  # a batch of each rank, and on
    size = processes * config.accumulation_steps
    return [
        (
            torch.cat([batch["image"] for batch in batches[i : i + size]]),
            [caption for batch in batches[i : i + size] for caption in batch["caption"]],
        )
        for i in range(0, len(batches) // size * size, size)
    ]


@pytest.mark.parametrize("first", [0, 3])
def test_the_data_of_a_step_are_the_same_in_any_number_of_processes(toy, pictures, first):
    """16 samples a step: pictures, crops and flips, and captions, in the order in which the queues take them."""
    uninterrupted = steps_of(pictures, toy.Config(batch_size=16), 1, 0)
    assert len(uninterrupted) == 70 // 16
    for processes in (1, 2, 4, 8):
        config = keep_global_batch(toy.Config(batch_size=4), processes, 16)
        steps = steps_of(pictures, config, processes, first)
        assert len(steps) == 4 - first
        for (image, captions), (expected, expected_captions) in zip(steps, uninterrupted[first:], strict=True):
            assert torch.equal(image, expected)
            assert captions == expected_captions
