"""SIGTERM in the midst of an evaluation or of predicting: the run ends at once, and what follows equals a whole one."""

import json
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from engine import PREEMPTED
from tests.faults.runs import SEED, Started, assert_same_end, finish, os, script

_draw = random.Random(f"{SEED} signals")
TRAININGS = {
    "train_caption.py": ["--config", "configs/demo/caption.yaml", "max_length=12", "batch_size=8"],
    "train_retrieval.py": [
        "--config",
        "configs/demo/retrieval.yaml",
        "k_test=4",
        "queue_size=48",
        "batch_size_train=8",
    ],
    "train_vqa.py": ["--config", "configs/demo/vqa.yaml", "batch_size_train=16"],
    "train_nlvr.py": ["--config", "configs/demo/nlvr.yaml", "batch_size_train=8"],
}
EVALUATIONS = {
    "eval_nocaps.py": ["--config", "configs/demo/nocaps.yaml", "max_length=12"],
    "eval_retrieval_video.py": ["--config", "configs/demo/video.yaml", "k_test=3"],
    "train_vqa.py": [*TRAININGS["train_vqa.py"], "--evaluate"],
}


def stopped_at(
    start: Callable[[Path], Started], begun: Callable[[Path], object], over: Callable[[Path], bool], folder: Path
) -> tuple[Path, int, str]:
    """A run that got SIGTERM at a random moment between what `begun` and `over` see; its folder, status and words."""
    moment = 2 ** _draw.uniform(-8, 0)  # seconds, short ones as often as long ones
    for attempt in range(12):
        there = folder / f"stopped{attempt}"
        run = start(there)
        run.wait_for(lambda there=there: begun(there))
        time.sleep(moment / 2**attempt)
        signaled = time.monotonic()
        run.process.send_signal(signal.SIGTERM)
        status, printed = run.end(60)
        if not over(there):
            assert time.monotonic() - signaled < 45
            return there, status, printed
    return pytest.fail("over before any signal came")


def assert_same_results(whole: Path, other: Path) -> None:
    """Scores, predictions and samples by error are equal."""
    places = [path.relative_to(whole) for path in (whole / "evaluate.txt", *whole.glob("result/*.json"))]
    assert len(places) > 1
    for place in places:
        assert json.loads((other / place).read_text()) == json.loads((whole / place).read_text())


@pytest.mark.faults("SIGTERM in the midst of a training's evaluation, resumed", "status 75 at once; bitwise equal")
@pytest.mark.parametrize(
    ("name", "processes"), [*((name, 1) for name in TRAININGS), ("train_caption.py", 1), ("train_nlvr.py", 2)]
)
def test_in_the_evaluation_of_a_training(demo_folder, with_dropout, tmp_path, name, processes):
    settings = [*TRAININGS[name], *with_dropout, "pretrained=", "max_epoch=1", "tensorboard=false", "--output_dir"]
    finish(script(name, *settings, tmp_path / "whole", processes=processes), demo_folder)

    def start(folder: Path) -> Started:
        return Started(script(name, *settings, folder, processes=processes), demo_folder)

    folder, status, printed = stopped_at(
        start,
        lambda folder: (folder / "checkpoint_last.pth").exists(),
        lambda folder: (folder / "log.txt").exists(),
        tmp_path,
    )
    assert status == (PREEMPTED if processes == 1 else 1), printed  # torchrun's own is 1
    assert f'{name}", line' not in printed
    finish(script(name, *settings, folder, "--resume", processes=processes), demo_folder)
    assert_same_end(tmp_path / "whole", folder)
    assert_same_results(tmp_path / "whole", folder)


@pytest.mark.faults("SIGTERM in the midst of an evaluation, done again", "ends at once; the results are equal")
@pytest.mark.parametrize("name", EVALUATIONS)
def test_in_a_script_that_evaluates(demo_folder, quick, tmp_path, name):
    settings = [*EVALUATIONS[name], *quick, "pretrained=", "--output_dir"]
    finish(script(name, *settings, tmp_path / "whole"), demo_folder)
    folder, status, printed = stopped_at(
        lambda folder: Started(script(name, *settings, folder), demo_folder),
        lambda folder: (folder / "config.yaml").exists(),
        lambda folder: (folder / "evaluate.txt").exists(),
        tmp_path,
    )
    assert status == -signal.SIGTERM, printed
    assert "Traceback" not in printed
    finish(script(name, *settings, folder), demo_folder)
    assert_same_results(tmp_path / "whole", folder)
    assert not [path for path in folder.rglob(".*") if path.name != ".lock"]


@pytest.fixture(scope="module")
def captioner(tmp_path_factory) -> tuple[Path, Path]:
    """A checkpoint of random weights, and a folder of pictures."""
    from models.blip import blip_decoder

    folder = tmp_path_factory.mktemp("captioner")
    text = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    vit = {"embed_dim": 32, "depth": 2, "num_heads": 2, "patch_size": 16}
    sizes = {"image_size": 32, "vit": vit, "med_config": {**text, "max_position_embeddings": 64}}
    torch.manual_seed(0)
    model = blip_decoder(**sizes)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    torch.save({"model": model.state_dict(), "config": sizes}, folder / "caption.pth")
    (folder / "pictures").mkdir()
    for number, pixels in enumerate(np.random.default_rng(0).integers(0, 255, (80, 32, 32, 3), np.uint8)):
        Image.fromarray(pixels).save(folder / "pictures" / f"{number:03d}.png")
    return folder / "caption.pth", folder / "pictures"


def bytes_in(path):
    """The size of a file, which may not be there, or go at any moment: predict.py tries whether it can write one."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


@pytest.mark.faults("predict.py ended (SIGTERM, SIGINT, `kill -9`) between pictures, `--resume`", "the same lines")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL] * 2)
def test_in_the_midst_of_predicting(captioner, tmp_path, number):
    checkpoint, pictures = captioner
    command = [*script("predict.py", "caption", "--checkpoint", checkpoint, "--batch_size", 1, pictures), "--out"]
    finish([*command, str(tmp_path / "whole.jsonl")], tmp_path)
    out = tmp_path / "out.jsonl"
    run = Started([*command, str(out)], tmp_path)
    run.wait_for(lambda: bytes_in(out) > 100)
    time.sleep(_draw.uniform(0, 0.3))
    os.kill(run.process.pid, number)
    status, printed = run.end(30)
    assert status == (130 if number == signal.SIGINT else -number), printed
    assert "Traceback" not in printed
    assert 0 < len(out.read_text().splitlines()) < 80
    finish([*command, str(out), "--resume"], tmp_path)
    assert out.read_text() == (tmp_path / "whole.jsonl").read_text()
