"""Question answering end to end: training, ranked and written answers, one process and two."""

import json
from types import SimpleNamespace

import pytest
import torch

import train_vqa
from metrics.ground_truth import GroundTruthError
from settings import load_config
from transform.image import TrainTransform

CONFIG = "configs/demo/vqa.yaml"
KINDS = ("color", "comparison", "count", "existence", "relation", "shape")


@pytest.fixture
def arguments(quick, pretrained, in_demo_folder):
    return ["--config", CONFIG, *quick, f"pretrained={pretrained}", "batch_size_train=16", "max_epoch=1"]


@pytest.mark.parametrize("inference", ["rank", "generate"])
def test_fine_tuning_and_answering_on_one_process_and_two(arguments, tmp_path, torchrun_script, inference):
    train_vqa.main([*arguments, "--output_dir", str(tmp_path), f"inference={inference}"])
    assert 0 <= json.loads((tmp_path / "log.txt").read_text())["val_acc"] <= 100
    again = [*arguments, "--evaluate", "--checkpoint", str(tmp_path / "checkpoint_00.pth"), f"inference={inference}"]
    train_vqa.main([*again, "--output_dir", str(tmp_path / "one")])
    torchrun_script(2, "train_vqa.py", *again, "--output_dir", tmp_path / "two")
    one, two = (json.loads((tmp_path / folder / "result" / "test.json").read_text()) for folder in ("one", "two"))
    asked = json.loads((tmp_path.cwd() / "output/demo/world/vqa_test.json").read_text())
    assert [answer["question_id"] for answer in one] == [question["question_id"] for question in asked]
    assert one == two
    scores = json.loads((tmp_path / "two" / "evaluate.txt").read_text())
    assert scores == json.loads((tmp_path / "one" / "evaluate.txt").read_text())
    by_question_type = {f"test_acc_question_{kind}" for kind in KINDS}
    assert {"test_acc", "test_acc_yes/no", "test_acc_number", "test_acc_other"} | by_question_type == set(scores)


def test_two_processes_train_as_one_on_the_same_global_batch(arguments, tmp_path, torchrun_script):
    train_vqa.main([*arguments, "--output_dir", str(tmp_path / "one")])
    torchrun_script(2, "train_vqa.py", *arguments, "--output_dir", tmp_path / "two", "batch_size_train=8")
    one, two = (json.loads((tmp_path / folder / "log.txt").read_text()) for folder in ("one", "two"))
    assert two["train_loss"] == pytest.approx(one["train_loss"], abs=1e-5)


def test_a_split_that_only_the_server_can_score_is_answered_for_it(arguments, tmp_path, in_demo_folder):
    world = in_demo_folder / "output/demo/world"
    questions = json.loads((world / "vqa_test.json").read_text())
    unanswered = [{key: value for key, value in one.items() if key != "answer"} for one in questions]
    (tmp_path / "vqa_test.json").write_text(json.dumps(unanswered))
    model = train_vqa.build_model(load_config(train_vqa.Config, CONFIG, arguments[2:]))
    torch.save({"model": model.state_dict()}, tmp_path / "model_vqa.pth")
    published = [f"ann_root={tmp_path}", "train_file=", "val_file=", "test_file=", "test_gt_file="]
    checkpoint = ["--checkpoint", str(tmp_path / "model_vqa.pth"), "--output_dir", str(tmp_path)]
    train_vqa.main([*arguments, "--evaluate", *checkpoint, *published])
    answers = json.loads((tmp_path / "result" / "test.json").read_text())
    assert [set(one) for one in answers] == [{"question_id", "answer"}] * len(questions)
    found = json.loads((tmp_path / "evaluate.txt").read_text())
    assert {name: one["published"] for name, one in found.items()} == {"VQA test-dev": 78.24, "VQA test-std": 78.17}
    assert "the server takes result/test.json" in found["VQA test-dev"]["not computed"]


@pytest.mark.parametrize(
    "wrong", [["--evaluate", "test_gt_file=no-such.json"], ["val_gt_file=no-such.json"], ["answer_list=no-such.json"]]
)
def test_a_wrong_file_ends_the_run_before_it_begins(arguments, tmp_path, monkeypatch, wrong):
    monkeypatch.setattr(train_vqa.BLIPVQA, "forward", lambda *_, **__: pytest.fail("a question was read"))
    with pytest.raises(SystemExit, match=r"no-such\.json"):
        train_vqa.main([*arguments, "--output_dir", str(tmp_path), *wrong])


def test_the_loss_of_one_batch_can_be_driven_down(in_demo_folder, quick, overfit):
    config = load_config(train_vqa.Config, CONFIG, [*quick, "pretrained=''"])
    dataset = train_vqa.VQATrain(config.annotations("train"), TrainTransform(64, 0.5), image_root=config.image_root)
    batch = dataset.collate([dataset[0, i] for i in range(8)])
    assert isinstance(batch["weights"], torch.Tensor)
    first, last = overfit(train_vqa.build_model(config), batch, train_vqa.train_step, steps=100)
    assert last["loss"] < 0.5 * first["loss"]


def test_what_stands_in_for_the_test_split_keeps_its_name(arguments, tmp_path):
    stands_in = ["--evaluate", "test_file=", "test_gt_file="]
    train_vqa.main([*arguments, *stands_in, "--output_dir", str(tmp_path)])
    assert (tmp_path / "result" / "val.json").exists()
    assert not (tmp_path / "result" / "test.json").exists(), "which a user would send to the server"
    assert "val_acc" in json.loads((tmp_path / "evaluate.txt").read_text())


def test_a_validation_file_brings_its_ground_truth(in_demo_folder, quick, tmp_path):
    asked = json.loads((in_demo_folder / "output/demo/world/vqa_val.json").read_text())[0]["question_id"]
    truth = tmp_path / "truth.json"
    config = load_config(train_vqa.Config, CONFIG, [*quick, "pretrained=''", f"val_gt_file={truth}"])
    run = SimpleNamespace(config=config, share={}, evaluate_only=False, is_first=True)
    truth.write_text(json.dumps([{"question_id": asked, "answer": ["red"]}]))
    assert train_vqa.read_split(run, "val").annotated == {asked: {"answers": ["red"]}}
    truth.write_text(json.dumps([{"question_id": "another", "answer": ["red"]}]))
    with pytest.raises(GroundTruthError, match="questions has a question_id among the 1 annotated"):
        train_vqa.read_split(run, "val")
