"""Memory does not grow with the steps of a training, nor with the images that are evaluated."""

import json
import re
from pathlib import Path

import pytest

from data.shapes import build_world
from tests.faults.runs import run, script

MEBIBYTE = 1024  # KiB
SETTINGS = ["--config", "configs/demo/caption.yaml", "pretrained=", "max_length=8", "num_beams=1"]


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """A working directory with 840 captions to train on, and 120 images to evaluate."""
    folder = tmp_path_factory.mktemp("world")
    build_world(folder / "output/demo/world", images=600, seed=0)
    return folder


def measured(printed: str) -> list[int]:
    return [int(number) for number in re.findall(r"held (\d+)", printed)]


def growth(held: list[int]) -> int:
    """KiB between the medians of the first three and the last three measurements."""
    return sorted(held[-3:])[1] - sorted(held[:3])[1]


@pytest.mark.faults("1,000 training steps with checkpoints and evaluations", "memory flat within 1 MiB")
def test_a_thousand_steps(world, quick, tmp_path):
    options = ["batch_size=2", "max_epoch=4", "save_every=50"]
    command = script("tests/faults/growth.py", *SETTINGS, *quick, *options, "--output_dir", tmp_path)
    status, printed = run(command, world, seconds=600, MEASURE="train")
    assert status == 0, printed
    held = measured(printed)[5:]  # every 100 steps; the first epoch and its evaluation allocate what they need
    assert len(held) > 11
    assert growth(held) < MEBIBYTE, held


@pytest.mark.faults("3,000 evaluated images", "memory flat within 1 MiB")
def test_three_thousand_images(world, quick, tmp_path):
    evaluated = sum(
        len(json.loads((world / f"output/demo/world/caption_{split}.json").read_text())) for split in ("val", "test")
    )
    times = 3000 // evaluated + 6
    command = script("tests/faults/growth.py", *SETTINGS, *quick, "batch_size=16", "--output_dir", tmp_path / "run")
    status, printed = run(command, world, seconds=600, MEASURE="evaluate", TIMES=str(times))
    assert status == 0, printed
    held = measured(printed)[5:]  # once all images are evaluated
    assert len(held) * evaluated > 3000
    assert growth(held) < MEBIBYTE, held
