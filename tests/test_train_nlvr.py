"""NLVR2 end to end: from a pre-trained checkpoint, whose cross-attentions are doubled, one process and two."""

import json
import os
import signal

import pytest
import torch

import train_nlvr
from settings import load_config
from transform.image import TrainTransform

CONFIG = "configs/demo/nlvr.yaml"


@pytest.fixture
def arguments(quick, pretrained, in_demo_folder):
    return ["--config", CONFIG, *quick, f"pretrained={pretrained}", "batch_size_train=8", "max_epoch=1"]


def test_fine_tuning_from_pre_training_doubles_the_cross_attentions(arguments, pretrained):
    config = load_config(train_nlvr.Config, CONFIG, arguments[2:])
    state, weights = train_nlvr.build_model(config).state_dict(), torch.load(pretrained, weights_only=True)["model"]
    single = weights["text_encoder.encoder.layer.1.crossattention.self.key.weight"]
    for branch in ("self0", "self1"):
        assert torch.equal(state[f"text_encoder.encoder.layer.1.crossattention.{branch}.key.weight"], single)


def test_fine_tuning_and_judging_on_one_process_and_two(arguments, tmp_path, torchrun_script):
    train_nlvr.main([*arguments, "--output_dir", str(tmp_path)])
    trained = json.loads((tmp_path / "evaluate.txt").read_text())
    assert {"val_acc", "val_consistency", "test_acc", "test_consistency"} == set(trained)
    again = [*arguments, "--evaluate", "--checkpoint", str(tmp_path / "checkpoint_best.pth")]
    train_nlvr.main([*again, "--output_dir", str(tmp_path / "one")])
    torchrun_script(2, "train_nlvr.py", *again, "--output_dir", tmp_path / "two")
    for folder in ("one", "two"):
        assert json.loads((tmp_path / folder / "evaluate.txt").read_text()) == trained
    predictions = json.loads((tmp_path / "two" / "result" / "test.json").read_text())
    assert [prediction["index"] for prediction in predictions] == list(range(len(predictions)))
    right = sum(prediction["prediction"] == prediction["label"] for prediction in predictions)
    assert trained["test_acc"] == pytest.approx(100 * right / len(predictions))


@pytest.fixture
def one_block(arguments, quick):
    """Each process draws its own stochastic depth, of which the first block has none; the checkpoint has two."""
    vit, *_ = quick
    assert "depth: 2" in vit
    return [*arguments, vit.replace("depth: 2", "depth: 1"), "pretrained="]


def test_two_processes_train_as_one_on_the_same_global_batch(one_block, tmp_path, torchrun_script):
    train_nlvr.main([*one_block, "--output_dir", str(tmp_path / "one")])
    torchrun_script(2, "train_nlvr.py", *one_block, "--output_dir", tmp_path / "two", "batch_size_train=4")
    one, two = (json.loads((tmp_path / folder / "log.txt").read_text()) for folder in ("one", "two"))
    assert two == pytest.approx(one, abs=1e-5)
    one, two = (torch.load(tmp_path / folder / "checkpoint_last.pth", weights_only=True) for folder in ("one", "two"))
    assert one["step"] == two["step"] > 5
    torch.testing.assert_close(two["model"], one["model"])


def test_two_processes_go_on_with_the_global_batches_of_one(one_block, tmp_path, torchrun_script, monkeypatch):
    train_nlvr.main([*one_block, "--output_dir", str(tmp_path / "whole")])
    train_step = train_nlvr.train_step

    def stopped(model, batch, progress):
        if progress.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return train_step(model, batch, progress)

    monkeypatch.setattr(train_nlvr, "train_step", stopped)
    with pytest.raises(SystemExit):
        train_nlvr.main([*one_block, "--output_dir", str(tmp_path / "resumed")])
    torchrun_script(2, "train_nlvr.py", *one_block, "--output_dir", tmp_path / "resumed", "--resume")
    whole, resumed = (json.loads((tmp_path / folder / "log.txt").read_text()) for folder in ("whole", "resumed"))
    assert resumed == pytest.approx(whole, abs=1e-5)
    whole, resumed = (
        torch.load(tmp_path / folder / "checkpoint_last.pth", weights_only=True) for folder in ("whole", "resumed")
    )
    assert whole["step"] == resumed["step"] > 5
    assert (whole["config"]["batch_size_train"], resumed["config"]["batch_size_train"]) == (8, 4)
    torch.testing.assert_close(resumed["model"], whole["model"])


def test_the_loss_of_one_batch_can_be_driven_down(in_demo_folder, quick, overfit):
    config = load_config(train_nlvr.Config, CONFIG, [*quick, "pretrained=''"])
    dataset = train_nlvr.NLVRTrain(config.annotations("train"), config.image_root, TrainTransform(64, 0.5))
    batch = dataset.collate([dataset[0, i] for i in range(8)])
    first, last = overfit(train_nlvr.build_model(config), batch, train_nlvr.train_step, steps=150)
    assert last["loss"] < 0.5 * first["loss"]


def test_a_released_checkpoint_is_compared_with_what_was_published(arguments, tmp_path, capsys):
    model = train_nlvr.build_model(load_config(train_nlvr.Config, CONFIG, arguments[2:]))
    torch.save({"model": model.state_dict()}, tmp_path / "model_base_nlvr.pth")
    checkpoint = ["--checkpoint", str(tmp_path / "model_base_nlvr.pth")]
    train_nlvr.main([*arguments, "--evaluate", *checkpoint, "--output_dir", str(tmp_path)])
    found = json.loads((tmp_path / "evaluate.txt").read_text())
    compared = {name: found.pop(name) for name in list(found) if not isinstance(found[name], float)}
    assert {"val_acc", "val_consistency", "test_acc", "test_consistency"} == set(found)
    got = found["test_acc"]
    difference = pytest.approx(got - 83.08, abs=1e-4)
    assert compared == {"NLVR2 test-P accuracy": {"got": got, "published": 83.08, "difference": difference}}
    assert "published  difference" in capsys.readouterr().out


def test_ones_own_checkpoint_is_not_judged_by_what_it_learned(arguments, tmp_path, in_demo_folder, capsys):
    train_nlvr.main([*arguments, "--output_dir", str(tmp_path)])
    learned = next((in_demo_folder / "output/demo/world").glob("nlvr_train.json"))
    again = [*arguments, "--evaluate", "--checkpoint", str(tmp_path / "checkpoint_best.pth"), f"test_file={learned}"]
    capsys.readouterr()
    train_nlvr.main([*again, "--output_dir", str(tmp_path / "again")])
    assert f"the checkpoint was trained on {learned}: its score there says nothing" in capsys.readouterr().out
