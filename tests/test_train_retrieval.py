"""Retrieval end to end: fine-tuning with negatives of all processes, re-ranked evaluation, one process and two."""

import json
from functools import partial

import pytest
import torch

import train_retrieval
from engine import load_config

CONFIG = "configs/demo/retrieval.yaml"


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
    dataset = train_retrieval.RetrievalTrain(
        config.annotations("train"), config.image_root, train_retrieval.TrainTransform(64, 0.5)
    )
    batch = dataset.collate([dataset[0, i] for i in range(0, 40, 5)])
    step = partial(train_retrieval.train_step, config)
    first, last = overfit(train_retrieval.build_model(config), batch, step, steps=150)
    assert last["loss_ita"] < 0.7 * first["loss_ita"]
    assert last["loss_itm"] < 0.7 * first["loss_itm"]
