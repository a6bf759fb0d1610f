"""What a person can mend ends a script with its message alone, said once; a bug shows its traceback."""

import os
import signal
import subprocess
import sys

import pytest

import train_nlvr
from files import REPOSITORY
from settings import UserError

SETTINGS = ["max_epoch=2", "tensorboard=false", "stop_at=7"]
MISTAKE = "toy.py: sample 7 is upside down: turn it\n"


def run(toy, *arguments):
    """The toy in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, toy.__file__, *map(str, arguments)]
    heed = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)  # noqa: E731  (ignored in background jobs)
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60, check=False, preexec_fn=heed
    )


def test_a_mistake_ends_a_script_with_its_message_alone(toy, tmp_path):
    result = run(toy, "--output_dir", tmp_path, *SETTINGS, "stop_by=mistake")
    assert (result.returncode, result.stderr) == (1, MISTAKE)


def test_ctrl_c_ends_a_training_with_one_line(toy, tmp_path):
    result = run(toy, "--output_dir", tmp_path, *SETTINGS, "stop_by=SIGINT")
    assert (result.returncode, result.stderr) == (130, "toy.py: interrupted\n")


@pytest.mark.parametrize("variable", ["RANK", "WORLD_SIZE"])
def test_nonsense_of_a_launcher_is_said_in_one_line(toy, tmp_path, monkeypatch, variable):
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", variable: "x"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit, match=f"{variable} = 'x' in the environment"):
        toy.main(["--output_dir", str(tmp_path)])


def test_a_bug_keeps_its_traceback(toy, tmp_path):
    result = run(toy, "--output_dir", tmp_path, *SETTINGS, "stop_by=bug")
    assert result.returncode == 1
    assert result.stderr.startswith("Traceback")
    assert result.stderr.endswith("RuntimeError: this cannot happen\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--checkpoint", "model_base_nvlr"], "no checkpoint 'model_base_nvlr': .*did you mean model_base_nlvr"),
        (["--checkpoint", "model_base_nlvr"], "cannot download model_base_nlvr.pth: the environment forbids"),
        (["pretrained=", "test_file=nowhere.json"], "annotation file nowhere.json does not exist"),
        (["pretrained=", "val_file=wrong.json"], "wrong.json, record 1: has no 'images'"),
        (["pretrained=", "val_file=bad.json"], "nothing.png: No such file or directory"),
    ],
)
def test_the_errors_of_every_part_are_for_the_reader(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BLIP_OFFLINE", "1")
    monkeypatch.setenv("BLIP_CACHE", str(tmp_path))
    pair = '{"images": ["nothing.png", "nothing.png"], "sentence": "", "label": "True"}'
    for name, content in (("wrong.json", "[{}]"), ("bad.json", f"[{pair}]")):
        (tmp_path / name).write_text(content)
    vit = "vit={embed_dim: 8, depth: 1, num_heads: 1, patch_size: 16}"
    text = "med_config={hidden_size: 8, num_hidden_layers: 1, num_attention_heads: 1, intermediate_size: 8}"
    tiny = [vit, text, "image_size=16", "val_file=bad.json", "num_workers=1"]
    with pytest.raises(SystemExit, match=message) as stopped:
        train_nlvr.main(["--evaluate", *tiny, *arguments])
    assert isinstance(stopped.value.__cause__, UserError)
    assert "Traceback" not in str(stopped.value)


def test_one_of_two_processes_says_what_ends_both(torchrun, tmp_path):
    result = torchrun(2, "--output_dir", tmp_path, *SETTINGS, "stop_by=mistake")
    own, _, torchruns = result.stderr.partition("ChildFailedError")
    assert result.returncode == 1
    assert own.count("toy.py (process 1): sample 7 is upside down: turn it\n") == 1
    assert 'toy.py", line' not in result.stderr  # no traceback of ours, of the process that was left alone either
    assert "traceback : toy.py (process 1): sample 7 is upside down: turn it\n" in torchruns


@pytest.mark.faults("Ctrl-C in one of two processes", "one line, status 130 there; the other ends in silence")
def test_ctrl_c_in_one_of_two_processes_ends_both(torchrun, tmp_path):
    result = torchrun(2, "--output_dir", tmp_path, *SETTINGS, "stop_by=SIGINT")
    own = result.stderr.partition("ChildFailedError")[0]
    assert result.returncode == 1
    assert own.count("toy.py: interrupted\n") == 1
    assert 'toy.py", line' not in result.stderr


def test_what_all_processes_meet_is_said_once(torchrun, tmp_path):
    result = torchrun(2, "--output_dir", tmp_path, "max_epochs=2")
    own = result.stderr.partition("ChildFailedError")[0]
    assert own.count("unknown key 'max_epochs'; the nearest valid key is 'max_epoch'") == 1


def test_a_bug_of_one_of_two_processes_keeps_its_traceback(torchrun, tmp_path):
    result = torchrun(2, "--output_dir", tmp_path, *SETTINGS, "stop_by=bug")
    assert "RuntimeError: this cannot happen\n" in result.stderr


@pytest.mark.parametrize("processes", [2, pytest.param(3, marks=pytest.mark.faults("a process of three stands", ""))])
def test_a_process_that_stands_still_is_named_after_the_time_that_the_config_gives(torchrun, tmp_path, processes):
    """The last process stops itself; the launcher kills it in the end."""
    settings = [*SETTINGS, "stop_by=SIGSTOP", "timeout_minutes=0.1", "stop_at=3"]
    result = torchrun(processes, "--output_dir", tmp_path, *settings)
    own = result.stderr.partition("ChildFailedError")[0]
    assert result.returncode == 1
    assert own.count(f"no answer from process {processes - 1}, pid ") == 1
    waited = (
        "for timeout_minutes, while others waited for the gradients of step 3: it is stopped, hangs, or its machine"
    )
    assert waited in own
    assert 'toy.py", line' not in result.stderr
