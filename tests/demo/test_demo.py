"""The demo: its scores by hand, its commands, and the whole quick recipe with its report."""

import html
import json
import re
from pathlib import Path

import pytest

from data.shapes import Scene
from data.shapes.scene import Thing
from demo import models
from demo.__main__ import main
from demo.recipe import FOLDER, FULL, PHASES, QUICK, next_commands, phase_command, relocated
from demo.scores import common_answers, share_right
from files import REPOSITORY


def scene(*kinds: tuple[str, str]) -> Scene:
    return Scene(tuple(Thing(shape, color, "large", "solid", 0.3, 0.3) for color, shape in kinds))


def test_a_caption_is_right_when_it_names_all_there_is():
    scenes = {
        "a": scene(("red", "star")),
        "b": scene(("blue", "moon"), ("red", "star")),
        "c": scene(("red", "star"), ("red", "star"), ("red", "star")),  # three things are not judged
    }
    captions = {"a": "a red star", "b": "the moon is blue", "c": "a red star"}
    assert share_right(captions, scenes)[0] == 50
    assert share_right({"a": "a red star", "b": "a red star and a blue moon"}, scenes)[0] == 100


def test_the_best_guess_is_the_answer_that_does_best_for_a_type():
    def question(kind: str, *answers: str) -> dict:
        return {"question_type": kind, "answers": list(answers)}

    annotations = {
        0: question("color", *["red"] * 10),
        1: question("color", *["red"] * 10),
        2: question("color", *["blue"] * 10),
        3: question("exists", *["yes"] * 10),
    }
    by_type, overall = common_answers(annotations)
    assert by_type == pytest.approx({"color": 200 / 3, "exists": 100})
    assert overall == pytest.approx(75)


def test_commands_of_the_default_folder_are_those_of_the_documentation():
    command = phase_command(PHASES[0], FOLDER, FULL, seed=0)
    assert command[:5] == ["python", "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    assert command[5:] == [
        *("pretrain.py", "--config", "configs/demo/pretrain.yaml"),
        *("--output_dir", "output/demo/pretrain", "--seed", "0", "--device", "cpu"),
    ]


def test_another_folder_replaces_every_path_of_the_configs():
    overrides = relocated("configs/demo/caption.yaml", Path("/elsewhere"))
    assert "train_file=/elsewhere/world/caption_train.json" in overrides
    assert "pretrained=/elsewhere/pretrain/checkpoint_last.pth" in overrides
    for phase in PHASES:
        command = phase_command(phase, Path("/elsewhere"), QUICK, seed=0)
        assert not [argument for argument in command if str(FOLDER) in argument]


def test_a_report_of_nothing_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the demo leaves for the repository, and this test comes back
    with pytest.raises(SystemExit, match="run.json does not exist: nothing was run there"):
        main(["--report", "--folder", str(tmp_path)])


def test_the_readme_shows_what_the_demo_ends_with():
    blocks = re.findall(r"```sh\n(.*?)```", (REPOSITORY / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert "\n".join(next_commands(FOLDER)) + "\n" in blocks
    assert blocks.index("\n".join(next_commands(FOLDER)) + "\n") == 1  # after `make demo`


def test_the_last_lines_are_commands_that_the_report_shows(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.json").write_text('{"seed": 0, "quick": false, "machine": "none", "steps": []}')
    monkeypatch.setattr("demo.page.write_report", lambda *_: [])
    with caplog.at_level("INFO", "blip.demo"):
        main(["--report", "--folder", str(tmp_path)])
    lines = [line.strip() for line in caplog.messages[-1].splitlines()[1:]]
    assert lines == next_commands(tmp_path)
    assert len(lines) == 3


def test_models_of_no_demo_are_refused(tmp_path):
    with pytest.raises(SystemExit, match="holds no whole run of `make demo`"):
        models.main([str(tmp_path)])


def test_the_quick_recipe_runs_and_its_report_needs_no_other_file(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")  # without Java, whose start costs seconds an evaluation
    monkeypatch.chdir(tmp_path)  # the demo works in the repository; go back when it is over
    main(["--quick", "--folder", str(tmp_path / "demo")])
    folder = tmp_path / "demo"
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert set(re.findall(r'src="([^,;"]+)', page)) == {"data:image/jpeg", "data:image/png"}
    assert "href=" not in page
    assert [html.unescape(command) for command in re.findall("<pre>(.*)</pre>", page)] == next_commands(folder)
    for name in ("scores.png", "pretraining.png", "fine_tuning.png"):
        assert (folder / name).stat().st_size > 10_000
    for title in ("Captions", "Pictures found by a text", "Questions", "What pre-training is worth", "NLVR2"):
        assert title in page
    steps = json.loads((folder / "run.json").read_text())["steps"]
    assert len(steps) == 2 + len(PHASES)
    written = []
    for out in (tmp_path / "once", tmp_path / "again"):
        models.main([str(folder), "--out", str(out)])
        written.append({str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*.*")})
    assert written[0] == written[1]
    assert {"trained/demo_vqa.safetensors", "trained/README.md", "pictures/pictures.json"} < written[0].keys()
