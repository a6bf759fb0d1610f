"""The seam of all evaluations: gathered, written, scored by one process, prefixed, compared."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from torch import nn

from evaluation.findings import Case, Findings
from evaluation.run import evaluate_splits, report_split

SPLITS = {"val": [3, 4], "test": [5]}


def run_in(folder: Path, rank: int = 0, evaluate_only: bool = True, pretrained: str = "model_base_nlvr"):
    def write_json(name: str, value: object) -> None:
        if rank == 0:
            (folder / "result").mkdir(exist_ok=True)
            (folder / name).write_text(json.dumps(value))

    files = {"val": [Path("nlvr_dev.json")], "test": [Path("own.json")]}
    return SimpleNamespace(
        config=SimpleNamespace(pretrained=pretrained, annotations=files.__getitem__),
        output_dir=folder,
        is_first=rank == 0,
        evaluate_only=evaluate_only,
        write_json=write_json,
    )


def predict(run, model, split):
    return [{"index": number, "prediction": number * model.scale} for number in split]


def score(run, name, split, predictions):
    total = float(sum(one["prediction"] for one in predictions))
    return Findings({"acc": total}, {"accuracy": total}, [Case([], {"split": name}, error=1.0)])


@pytest.fixture
def model() -> nn.Module:
    model = nn.Module()
    model.scale = 10
    return model


def test_metrics_bear_their_splits_name_and_stand_beside_published_figures(tmp_path, model):
    metrics = evaluate_splits(run_in(tmp_path), "nlvr", SPLITS, predict, score, model)
    assert metrics == {
        "val_acc": 70.0,
        "NLVR2 dev accuracy": {"got": 70.0, "published": 82.48, "difference": -12.48},
        "test_acc": 50.0,
    }
    assert json.loads((tmp_path / "result" / "val.json").read_text()) == predict(None, model, SPLITS["val"])
    assert json.loads((tmp_path / "result" / "test_samples.json").read_text()) == [
        {"split": "test", "images": [], "error": 1.0}
    ]


def test_predictions_of_all_processes_are_scored_together(tmp_path, model, monkeypatch):
    monkeypatch.setattr("evaluation.run.gather_objects", lambda mine, what: mine + [{"index": 9, "prediction": 1}])
    assert evaluate_splits(run_in(tmp_path), "nlvr", {"test": [5]}, predict, score, model) == {"test_acc": 51.0}


def test_only_the_first_process_scores_and_writes(tmp_path, model):
    def never(*_):
        raise AssertionError("scored by another process than the first")

    assert evaluate_splits(run_in(tmp_path, rank=1), "nlvr", SPLITS, predict, never, model) == {}
    assert list(tmp_path.iterdir()) == []


def test_while_training_the_weights_are_no_checkpoint_and_nothing_is_compared(tmp_path, model, caplog):
    run = run_in(tmp_path, evaluate_only=False)
    assert evaluate_splits(run, "nlvr", SPLITS, predict, score, model) == {"val_acc": 70.0, "test_acc": 50.0}
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_a_checkpoint_of_another_task_is_warned_of(tmp_path, caplog):
    report_split(run_in(tmp_path, pretrained="model_vqa"), "nlvr", "val", Findings({}, {"accuracy": 1.0}), prefix="")
    assert "fine-tuned for vqa, not for nlvr" in caplog.text
