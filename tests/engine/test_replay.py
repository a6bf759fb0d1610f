"""A step whose loss or gradient is not finite is done again, alone, by the command that the run prints."""

import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest
import torch

import engine
from engine.replay import Watch
from files import REPOSITORY

SETTINGS = ["max_epoch=1", "tensorboard=false", "print_freq=12"]


def stopped_message(toy, *arguments) -> str:
    with pytest.raises(SystemExit) as stopped:
        toy.main([str(argument) for argument in arguments])
    assert isinstance(stopped.value.__cause__, engine.NotFinite)
    return str(stopped.value)


def printed_command(text: str) -> str:
    (command,) = re.findall(r"^  (cd .+ && .+ --replay .+)$", text, re.MULTILINE)
    return command


def replay_flags(text: str) -> list[str]:
    words = shlex.split(printed_command(text))
    return words[words.index("--config") :]


def reports(text: str) -> list[str]:
    """The step, and what each guilty process computed from which files."""
    return [*re.findall(r"step \d+", text)[:1], *re.findall(r"process \d+: .*(?:\n {6}.*)*", text)]


def place_of(toy, sample: int) -> int:
    return toy.shuffled(48, (42, 0)).tolist().index(sample)


@pytest.mark.parametrize(
    "options",
    [[], ["accumulation_steps=2"], ["precision=fp16"], ["precision=bf16"], ["clip_grad_norm=1.0", "num_workers=1"]],
)
def test_the_step_its_samples_and_its_losses_are_the_same_again(toy, tmp_path, options):
    text = stopped_message(toy, "--output_dir", tmp_path, *SETTINGS, "poison=7", *options)
    before = sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*") if path.name != ".lock")
    again = stopped_message(toy, *replay_flags(text))
    assert reports(again) == reports(text)
    assert "sample7.jpg" in reports(again)[1]
    row = place_of(toy, 7) % 4
    assert again.endswith(f"first not finite: 'x' of the batch, [4, 6], in rows {row} (sample7.jpg)")
    assert sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*") if path.name != ".lock") == before
    accumulated = 2 if "accumulation_steps=2" in options else 1
    assert [path.name for path in tmp_path.glob("nonfinite*")] == [
        f"nonfinite_step_{place_of(toy, 7) // 4 // accumulated}"
    ]


def test_the_command_can_be_pasted_into_a_shell_from_anywhere(toy, tmp_path):
    script, folder = tmp_path / "a script's folder" / "toy.py", tmp_path / "it's $HOME here"
    script.parent.mkdir()
    shutil.copy(toy.__file__, script)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    run = [sys.executable, "toy.py", "--output_dir", str(folder), *SETTINGS, "poison=7"]
    options = {"env": environment, "capture_output": True, "text": True, "timeout": 60, "check": False}
    first = subprocess.run(run, cwd=script.parent, **options)
    again = subprocess.run(["sh", "-c", printed_command(first.stderr)], cwd="/", **options)
    assert (first.returncode, again.returncode) == (1, 1)
    assert reports(again.stderr) == reports(first.stderr)
    assert "Traceback" not in again.stderr


def test_one_process_replays_what_two_were_given(toy, torchrun, tmp_path):
    result = torchrun(2, "--output_dir", tmp_path, *SETTINGS, "poison=7", "accumulation_steps=2")
    own = result.stderr.partition("ChildFailedError")[0]
    again = stopped_message(toy, *replay_flags(own))
    assert reports(again) == reports(own)
    assert f"process {place_of(toy, 7) // 4 % 2}: loss=" in again
    assert "first not finite: 'x' of the batch" in again


def test_weights_random_numbers_and_losses_of_a_later_step_are_bitwise_those_it_had(toy, tmp_path, monkeypatch):
    """Of losses that dropout and training have shaped, the finite one is equal to its last digit."""
    seen = []
    train_step = toy.train_step

    def partly_broken(config, last, model, batch, progress):
        values = train_step(config, last, model, batch, progress)
        if progress.step == 9:
            seen.append(values["loss"].item())
            values["loss"] = values["loss"] * torch.inf
        return values

    monkeypatch.setattr(toy, "train_step", partly_broken)
    text = stopped_message(toy, "--output_dir", tmp_path, *SETTINGS)
    again = stopped_message(toy, *replay_flags(text))
    assert len(seen) == 2
    assert seen[0] == seen[1]
    assert reports(again) == reports(text)
    assert again.endswith("the output of every layer is finite; what is computed from them is not: loss")


def test_a_step_that_is_finite_on_this_machine_is_said_to_be(toy, tmp_path, monkeypatch, capsys):
    infinite = lambda *_: {"loss": torch.tensor(torch.inf, requires_grad=True)}  # noqa: E731
    with monkeypatch.context() as patch:
        patch.setattr(toy, "train_step", infinite)
        text = stopped_message(toy, "--output_dir", tmp_path, *SETTINGS)
    toy.main(replay_flags(text))
    assert "step 0, replayed on cpu: the loss and its gradient are finite here" in capsys.readouterr().out


def test_a_run_that_cannot_write_the_step_down_still_names_its_samples(toy, tmp_path):
    (tmp_path / f"nonfinite_step_{place_of(toy, 7) // 4}").touch()
    text = stopped_message(toy, "--output_dir", tmp_path, *SETTINGS, "poison=7")
    assert "sample7.jpg" in text
    assert "The step cannot be replayed, for it cannot be written down (" in text


def pipe_in_place_of(file):
    file.unlink()
    os.mkfifo(file)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: (folder / "process_0.pth").unlink(), "process_0.pth does not exist"),
        (lambda folder: (folder / "step.pth").unlink(), "step.pth does not exist"),
        (lambda folder: (folder / "step.pth").write_bytes(b"x"), "step.pth is damaged"),
        (lambda folder: pipe_in_place_of(folder / "step.pth"), "step.pth: a named pipe, not a file"),
        (lambda folder: torch.save({"model": {}}, folder / "step.pth"), "is no step of this script"),
        (lambda folder: torch.save([1], folder / "process_0.pth"), "is no step of this script"),
        (lambda folder: os.truncate(folder / "process_0.pth", 9000), "process_0.pth is damaged"),
    ],
)
def test_a_folder_that_is_no_written_step_is_refused(toy, tmp_path, change, said):
    flags = replay_flags(stopped_message(toy, "--output_dir", tmp_path, *SETTINGS, "poison=7"))
    change(next(tmp_path.glob("nonfinite*")))
    with pytest.raises(SystemExit, match=said) as stopped:
        toy.main(flags)
    assert "\n" not in stopped.value.code


@pytest.mark.parametrize("other", ["--evaluate", "--resume"])
def test_replaying_is_all_that_such_a_run_does(toy, tmp_path, other):
    with pytest.raises(SystemExit, match="--replay does one step of a training again, in one process, without"):
        toy.main(["--output_dir", str(tmp_path), "--replay", str(tmp_path), other])


def test_the_first_layer_and_the_first_gradient_that_are_not_finite_are_named():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU()))
    with torch.no_grad():
        model[1][0].bias[1] = torch.nan
    with Watch(model) as watch:
        watch.watched(lambda model, batch, progress: model(batch["x"]))(model, {"x": torch.ones(3, 2)}, None)
    assert watch.finding({}) == "first not finite: the output of 1.0 (Linear), [3, 2], in rows 0, 1, 2"

    model[1][0].bias.data.fill_(9.0)  # whatever the weights, ReLU passes on a gradient
    with Watch(model) as watch:
        output = watch.watched(lambda model, batch, progress: model(batch["x"]))(model, {"x": torch.ones(3, 2)}, None)
        (output.sum() * torch.inf).backward()
    assert watch.finding({"loss": 1.0}).startswith("every output is finite; first not finite: the gradient of 1.0.")


def test_what_steps_were_given_is_forgotten_at_once_where_they_are_finite(toy, tmp_path, monkeypatch):
    kept = []

    class Recorder(engine.step.StepRecorder):
        def begin(self, *arguments):
            super().begin(*arguments)
            kept.append(len(self._steps))

    monkeypatch.setattr("engine.step.StepRecorder", Recorder)
    toy.main(["--output_dir", str(tmp_path), *SETTINGS])
    assert kept == [1] * 12
