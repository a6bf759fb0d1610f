"""Retrieval end to end: fine-tuning with negatives of all processes, re-ranked evaluation, one process and two."""

import json
from functools import partial

import numpy as np
import pytest
import torch

import train_retrieval
from evaluation import search
from files import REPOSITORY
from settings import load_config
from transform.image import TrainTransform

CONFIG = "configs/demo/retrieval.yaml"

# The script, that saves what each process found.
SAVING = f"""
import sys

import numpy as np

sys.path.insert(0, {str(REPOSITORY)!r})
import train_retrieval
from evaluation import search

search_split = search.search_split


def saving(run, model, dataset, *others):
    found = search_split(run, model, dataset, *others)
    for name, one in zip(("to_text", "to_image"), found):
        np.savez(run.output_dir / f"{{name}}_{{len(dataset.text)}}_{{run.rank}}.npz", ids=one.ids, scores=one.scores)
    return found


search.search_split = saving
train_retrieval.main()
"""


@pytest.fixture
def arguments(quick, pretrained, in_demo_folder):
    return ["--config", CONFIG, *quick, f"pretrained={pretrained}", "batch_size_train=8", "max_epoch=1", "k_test=4"]


def test_fine_tuning_and_evaluating_on_one_process_and_two(arguments, tmp_path, torchrun_script):
    train_retrieval.main([*arguments, "--output_dir", str(tmp_path), "queue_size=50"])
    trained = json.loads((tmp_path / "evaluate.txt").read_text())
    assert trained["val_r_mean"] == pytest.approx((trained["val_txt_r_mean"] + trained["val_img_r_mean"]) / 2)
    assert {"train_loss_ita", "train_loss_itm", "train_itm_accuracy_mismatch"} <= set(
        json.loads((tmp_path / "log.txt").read_text())
    )
    again = [*arguments, "--evaluate", "--checkpoint", str(tmp_path / "checkpoint_best.pth"), "queue_size=50"]
    train_retrieval.main([*again, "--output_dir", str(tmp_path / "one")])
    torchrun_script(2, "train_retrieval.py", *again, "--output_dir", tmp_path / "two")
    for folder in ("one", "two"):
        assert json.loads((tmp_path / folder / "evaluate.txt").read_text()) == trained


def test_two_processes_find_what_one_finds_to_the_last_digit(arguments, tmp_path, torchrun_script):
    script = tmp_path / "saving.py"
    script.write_text(SAVING)
    evaluate = [*arguments, "--evaluate", "queue_size=50", "k_test=2", "batch_size_test=4"]
    torchrun_script(1, script, *evaluate, "--output_dir", tmp_path / "one")
    torchrun_script(2, script, *evaluate, "--output_dir", tmp_path / "two", "states_gib=0")
    for name in ("evaluate.txt", "result/test_samples.json"):
        assert (tmp_path / "one" / name).read_text() == (tmp_path / "two" / name).read_text()
    files = sorted((tmp_path / "one").glob("*_0.npz"))
    assert len(files) == 4  # two directions of two splits
    for file in files:
        wanted = np.load(file)
        for rank in range(2):
            found = np.load(tmp_path / "two" / file.name.replace("_0.npz", f"_{rank}.npz"))
            np.testing.assert_array_equal(found["ids"], wanted["ids"])
            np.testing.assert_array_equal(found["scores"], wanted["scores"])


def test_bfloat16_evaluation_moves_scores_little(arguments, tmp_path, monkeypatch):
    found, search_split = {"fp32": [], "bf16": []}, search.search_split

    def recording(run, *given):
        both = search_split(run, *given)
        found[run.config.eval_precision] += both
        return both

    monkeypatch.setattr(search, "search_split", recording)
    for precision in found:
        options = ["k_test=1000", f"eval_precision={precision}", "--output_dir", str(tmp_path / precision)]
        train_retrieval.main([*arguments, "--evaluate", *options])
    for exact, rounded in zip(found["fp32"], found["bf16"], strict=True):
        exact, rounded = (np.take_along_axis(one.scores, one.ids.argsort(axis=1), axis=1) for one in (exact, rounded))
        assert rounded.dtype == np.float32
        np.testing.assert_allclose(rounded, exact, atol=0.02, rtol=0)


@pytest.mark.parametrize("all_rank", ["true", "false"])
def test_two_processes_train(arguments, tmp_path, torchrun_script, all_rank):
    torchrun_script(
        2, "train_retrieval.py", *arguments, "--output_dir", tmp_path, f"negative_all_rank={all_rank}", "k_test=2"
    )
    queue = torch.load(tmp_path / "checkpoint_last.pth", weights_only=True)["model"]["idx_queue"]
    steps = torch.load(tmp_path / "checkpoint_last.pth", weights_only=True)["step"]
    assert int((queue >= 0).sum()) == min(16 * steps, 1024)


def test_every_loss_of_one_batch_can_be_driven_down(in_demo_folder, quick, overfit):
    config = load_config(train_retrieval.Config, CONFIG, [*quick, "pretrained=''", "queue_size=64"])
    dataset = train_retrieval.RetrievalTrain(config.annotations("train"), config.image_root, TrainTransform(64, 0.5))
    batch = dataset.collate([dataset[0, i] for i in range(0, 40, 5)])
    step = partial(train_retrieval.train_step, config.alpha)
    torch.manual_seed(0)  # else the model's first weights depend on the tests that ran before
    first, last = overfit(train_retrieval.build_model(config), batch, step, steps=150)
    assert last["loss_ita"] < 0.7 * first["loss_ita"]
    assert last["loss_itm"] < 0.7 * first["loss_itm"]
