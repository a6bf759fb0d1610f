"""The comparison of CapFilt's arms: all are trained on equally many pairs, and the table says what was measured."""

import json
import os
import subprocess
import sys
from collections import Counter

import pytest

from demo import bootstrap
from demo.bootstrap_scores import plot, table
from demo.recipe import FULL
from files import REPOSITORY
from settings import UserError


@pytest.mark.parametrize("pairs", [7, 40, 100])
def test_every_arm_sees_equally_many_pairs_and_each_pair_equally_often(tmp_path, pairs):
    given = [{"image": f"{number}.jpg", "caption": "a circle"} for number in range(pairs)]
    bootstrap._write_epochs(tmp_path, given, 20, 5, seed=0)
    epochs = [json.loads((tmp_path / f"{epoch}.json").read_text()) for epoch in range(5)]
    assert [len(epoch) for epoch in epochs] == [20] * 5
    seen = Counter(pair["image"] for epoch in epochs for pair in epoch)
    assert len(seen) == min(pairs, 100)
    assert max(seen.values()) - min(seen.values()) <= 1


def test_an_arm_without_a_pair_ends_instead_of_drawing_for_ever(tmp_path):
    with pytest.raises(UserError, match="no pair to train on"):
        bootstrap._write_epochs(tmp_path, [], 20, 5, seed=0)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--seed", "-1"], "argument --seed: -1 must be a whole number"),
        (["--seed", str(2**62)], "must be below 2**62"),
        (["--table", "nowhere"], "nowhere/results.json: No such file"),
        (["--folder", "."], "holds files of others, which would be deleted"),
    ],
)
def test_impossible_flags_and_folders_are_refused_and_nothing_is_deleted(tmp_path, monkeypatch, capsys, flags, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "world").mkdir()
    with pytest.raises(SystemExit) as ended:
        bootstrap.main(flags)
    assert said in f"{ended.value.code} {capsys.readouterr().err}"
    assert (tmp_path / "world").is_dir()


def test_an_arm_differs_from_another_in_its_pairs_alone(tmp_path):
    def command(arm):
        start = [f"pretrained={tmp_path / arm / 'pretrain' / 'checkpoint_last.pth'}"]
        return bootstrap._training(tmp_path, arm, "caption", FULL, 3, start)

    assert [part.replace("both", "none") for part in command("both")] == command("none")
    assert sum(part.startswith("pretrained=") for part in command("none")) == 1


def test_the_quick_comparison_runs_whole_and_its_table_says_what_its_files_say(tmp_path):
    folder = tmp_path / "comparison"
    done = subprocess.run(
        [sys.executable, "-m", "demo.bootstrap", "--quick", "--folder", folder],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": ""},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((folder / "results.json").read_text())
    assert done.stdout.rstrip().endswith(table([found]))
    kept = {arm: json.loads((folder / file).read_text()) for arm, (file, _) in bootstrap.ARMS.items()}
    web, swapped = kept["none"], json.loads((folder / "web" / "noise.json").read_text())
    assert len(kept["captioner"]) > len(kept["both"]) > len(kept["filter"]) > 0
    assert all(pair in web for pair in kept["filter"])
    assert found["filter"]["kept_web"] == pytest.approx(len(kept["filter"]) / len(web))
    wrong = {entry["image"] for entry in swapped}
    dropped = {pair["image"] for pair in web} - {pair["image"] for pair in kept["filter"]}
    truth = json.loads((folder / "truth.json").read_text())
    assert sum(not right for right in truth.values()) == len(wrong)
    assert 0 < len(dropped & wrong) <= len(wrong)
    for arm in bootstrap.ARMS:
        evaluated = json.loads((folder / arm / "caption" / "evaluate.txt").read_text())
        assert found["arms"][arm]["caption_cider"] == evaluated["test_CIDEr"]


def results(seed, add):
    scores = {"caption_right": 50.0 + add, "caption_cider": 300.0 + add, "text_r1": 20.0 + add, "image_r1": 30.0 + add}
    found = {"kept_web": 0.6, "kept_synthetic": 0.7, "synthetic_right": 0.5, "kept_synthetic_right": 0.8}
    calibration = [{"texts": 2, "mean_match": 0.1, "share_right": 0.2}, {"texts": 0, "mean_match": None}]
    return {
        "seed": seed,
        "minutes": 40.0,
        "arms": {"none": scores, "both": {name: value + 5 for name, value in scores.items()}},
        "filter": {"precision": 0.9, "recall": 0.95, "f1": 0.924, **found, "calibration": calibration},
    }


def test_the_table_has_the_mean_and_every_run(tmp_path):
    lines = table([results(0, 0.0), results(1, 2.0)]).splitlines()
    assert lines[0] == "| arm | captions right | CIDEr | TR@1 | IR@1 |"
    assert lines[2] == "| none | 51.0 (50.0, 52.0) | 301.0 (300.0, 302.0) | 21.0 (20.0, 22.0) | 31.0 (30.0, 32.0) |"
    assert lines[3].startswith("| both | 56.0 (55.0, 57.0) |")
    assert "seed 1, 40 minutes: precision 0.900, recall 0.950, f1 0.924, kept web 0.600" in lines[-1]
    plot([results(0, 0.0)], tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 5_000
