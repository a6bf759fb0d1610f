"""Memory does not grow with the steps of a training, nor with the images that are evaluated."""

import json
import re

import pytest

from data.shapes import build_world
from tests.faults.runs import run, script

MEBIBYTE = 1024  # KiB
SETTINGS = ["--config", "configs/demo/caption.yaml", "pretrained=", "max_length=8", "num_beams=1", "print_freq=50"]


def growth(held: list[int]) -> int:
    """KiB between the medians of the first three and the last three measurements."""
    return sorted(held[-3:])[1] - sorted(held[:3])[1]


@pytest.mark.faults("1,000 training steps with checkpoints", "memory flat within 1 MiB")
def test_a_thousand_steps(demo_folder, quick, tmp_path):
    steps_of_an_epoch = len(json.loads((demo_folder / "output/demo/world/caption_train.json").read_text())) // 2
    epochs = 1500 // steps_of_an_epoch + 1
    options = ["batch_size=2", f"max_epoch={epochs}", "save_every=50", "val_file=", "test_file="]
    command = script("tests/faults/growth.py", *SETTINGS, *quick, *options, "--output_dir", tmp_path)
    status, printed = run(command, demo_folder, seconds=600, MEASURE="train")
    assert status == 0, printed
    held = [int(number) for number in re.findall(r"held (\d+)", printed)][3:]  # the first steps allocate what they need
    assert len(held) >= 11
    assert growth(held) < MEBIBYTE, held


@pytest.mark.faults("3,000 evaluated images", "memory flat within 1 MiB")
def test_three_thousand_images(quick, tmp_path):
    build_world(tmp_path / "output/demo/world", images=600, seed=0)
    evaluated = sum(
        len(json.loads((tmp_path / f"output/demo/world/caption_{split}.json").read_text())) for split in ("val", "test")
    )
    times = 3000 // evaluated + 4
    command = script("tests/faults/growth.py", *SETTINGS, *quick, "batch_size=16", "--output_dir", tmp_path / "run")
    status, printed = run(command, tmp_path, seconds=600, MEASURE="evaluate", TIMES=str(times))
    assert status == 0, printed
    held = [int(number) for number in re.findall(r"held (\d+)", printed)][3:]
    assert len(held) * evaluated >= 3000
    assert growth(held) < MEBIBYTE, held
