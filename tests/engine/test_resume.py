"""A run that was killed, or told to stop, and went on ends with the same weights as one that was not."""

import json
import os
import random
import shutil
import signal as signals
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from engine import PREEMPTED, checkpoint
from engine.checkpoint import save_last
from files import REPOSITORY

SETTINGS = ["max_epoch=3", "print_freq=5", "save_every=5", "tensorboard=false"]
FREE = ("config", "scaler")  # keys of a checkpoint in which other keys than ours may stand
STEPS = 36  # three epochs of 12 for one process, of 6 for two


def final(folder: Path) -> dict:
    return torch.load(folder / "checkpoint_last.pth", weights_only=True)


def assert_same_end(first: Path, second: Path) -> None:
    one, two = final(first), final(second)
    assert one["step"] == two["step"]
    for name, tensor in one["model"].items():
        assert torch.equal(tensor, two["model"][name]), name
    for number, moments in one["optimizer"]["state"].items():
        for name, tensor in moments.items():
            assert torch.equal(tensor, two["optimizer"]["state"][number][name]), (number, name)
    for mine, other in zip(one["rng"], two["rng"], strict=True):
        assert torch.equal(mine["torch"], other["torch"])
    assert one["losses"] == two["losses"]
    assert one["loaders"] == two["loaders"] == [{"batches": one["step"]}] * len(one["rng"])
    assert [json.loads(x) for x in (first / "log.txt").open()] == [json.loads(x) for x in (second / "log.txt").open()]
    best_of_one, best_of_two = (torch.load(f / "checkpoint_best.pth", weights_only=True) for f in (first, second))
    assert best_of_one["epoch"] == best_of_two["epoch"]


@pytest.fixture(scope="module")
def uninterrupted(toy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    toy.main(["--output_dir", str(folder), *SETTINGS])
    return folder


@pytest.mark.parametrize("workers", [0, 2])
def test_killed_at_a_random_step_and_resumed_equals_uninterrupted(toy, uninterrupted, tmp_path, workers):
    step = random.SystemRandom().randrange(11, STEPS)  # the save of step 10 has waited for the file of step 5
    command = [sys.executable, toy.__file__, "--output_dir", str(tmp_path), *SETTINGS, f"num_workers={workers}"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    killed = subprocess.run([*command, f"stop_at={step}"], env=environment, capture_output=True, text=True, check=False)
    assert killed.returncode == -9, killed.stdout + killed.stderr
    assert final(tmp_path)["step"] < STEPS
    toy.main(["--output_dir", str(tmp_path), *SETTINGS, f"num_workers={workers}", "--resume"])
    assert_same_end(uninterrupted, tmp_path)


@pytest.mark.parametrize("signal", ["SIGTERM", "SIGUSR1"])
@pytest.mark.parametrize("step", [3, 11, 12])
def test_a_signal_saves_at_the_next_step_and_exits_with_the_documented_status(
    toy, uninterrupted, tmp_path, signal, step
):
    with pytest.raises(SystemExit) as stopped:
        toy.main(["--output_dir", str(tmp_path), *SETTINGS, f"stop_at={step}", f"stop_by={signal}"])
    assert stopped.value.code == PREEMPTED == 75
    assert signals.getsignal(signals.SIGTERM) == signals.SIG_IGN  # a launcher's would change the status of who leaves
    assert final(tmp_path)["step"] == step + 1
    toy.main(["--output_dir", str(tmp_path), *SETTINGS, "--resume"])
    assert_same_end(uninterrupted, tmp_path)


def test_two_processes_killed_and_restarted_by_torchrun_equal_uninterrupted(torchrun, tmp_path):
    step = random.SystemRandom().randrange(6, STEPS // 2)
    for name, restarts, stop_at in (("whole", 0, -1), ("killed", 1, step)):
        folder = tmp_path / name
        result = torchrun(2, "--output_dir", folder, *SETTINGS, f"stop_at={stop_at}", restarts=restarts)
        assert result.returncode == 0, result.stdout + result.stderr
        assert ("resumed from" in result.stdout) == (name == "killed")
    assert_same_end(tmp_path / "whole", tmp_path / "killed")
    assert len(final(tmp_path / "killed")["rng"]) == 2


@pytest.mark.parametrize(
    ("stop_at", "save_every", "saved"),
    [
        (7, 5, 9),  # the flag travels while a step computes
        (3, 1, 4),  # a save waits for it
        (5, 5, 6),  # as does the end of an epoch
    ],
)
def test_a_signal_to_one_of_two_processes_stops_both_after_the_same_step(
    torchrun, tmp_path, stop_at, save_every, saved
):
    settings = [*SETTINGS, f"save_every={save_every}", f"stop_at={stop_at}", "stop_by=SIGTERM"]
    result = torchrun(2, "--output_dir", tmp_path, *settings)
    assert f"exitcode  : {PREEMPTED}" in result.stderr
    assert "training.py" not in result.stderr  # no traceback but torchrun's own
    assert final(tmp_path)["step"] == saved


def test_an_earlier_run_is_not_overwritten(toy, uninterrupted):
    written = final(uninterrupted)["step"]
    with pytest.raises(SystemExit, match="checkpoint_last.pth belongs to an earlier run.*--resume"):
        toy.main(["--output_dir", str(uninterrupted), *SETTINGS])
    assert final(uninterrupted)["step"] == written


@pytest.mark.parametrize("processes", [1, 2])
def test_nor_does_a_restart_by_torchrun_go_on_with_it(torchrun, toy, uninterrupted, tmp_path, processes):
    shutil.copytree(uninterrupted, tmp_path, dirs_exist_ok=True)
    result = torchrun(processes, "--output_dir", tmp_path, *SETTINGS, "max_epoch=9", restarts=2)
    assert result.returncode == 1
    assert "belongs to an earlier run" in result.stderr
    assert (tmp_path / "refused").exists()
    assert final(tmp_path)["step"] == STEPS
    toy.main(["--output_dir", str(tmp_path), *SETTINGS, "max_epoch=4", "--resume"])
    assert final(tmp_path)["step"] == 48
    assert not (tmp_path / "refused").exists()


def test_the_best_weights_are_in_the_folder_that_training_goes_on_in(toy, uninterrupted, tmp_path):
    for name, best_is_there, epoch in (("same", True, 2), ("other", False, 3)):
        folder = tmp_path / name
        folder.mkdir()
        state = final(uninterrupted)
        torch.save({**state, "best": 1e9}, folder / "checkpoint_last.pth")  # never reached again
        if best_is_there:
            shutil.copy(uninterrupted / "checkpoint_best.pth", folder)
        toy.main(["--output_dir", str(folder), *SETTINGS, "max_epoch=4", "--resume"])
        assert torch.load(folder / "checkpoint_best.pth", weights_only=True)["epoch"] == epoch


def test_settings_that_changed_are_in_force_after_a_resume(toy, uninterrupted, tmp_path, capsys):
    path = str(uninterrupted / "checkpoint_last.pth")
    changed = ["max_epoch=4", "weight_decay=0.2", "precision=fp16"]
    toy.main(["--output_dir", str(tmp_path), "--resume", path, *SETTINGS, *changed])
    assert "precision was 'auto'" in capsys.readouterr().out
    assert [group["weight_decay"] for group in final(tmp_path)["optimizer"]["param_groups"]] == [0.2]
    assert final(tmp_path)["scaler"]["scale"] > 1


def test_resuming_by_path_needs_a_training_state(toy, uninterrupted, tmp_path):
    best = str(uninterrupted / "checkpoint_best.pth")
    with pytest.raises(SystemExit, match="no training state.*--checkpoint"):
        toy.main(["--output_dir", str(tmp_path), "--resume", best])
    (tmp_path / "half.pth").write_bytes((uninterrupted / "checkpoint_last.pth").read_bytes()[:999])
    with pytest.raises(SystemExit, match="half.pth is damaged or cut off"):
        toy.main(["--output_dir", str(tmp_path), "--resume", str(tmp_path / "half.pth")])
    other = final(uninterrupted)
    other["model"]["linear.weight"] = torch.zeros(1, 7)
    torch.save(other, tmp_path / "other.pth")
    with pytest.raises(SystemExit, match="other.pth holds another model than the config describes(.|\n)*linear.weight"):
        toy.main(["--output_dir", str(tmp_path), "--resume", str(tmp_path / "other.pth")])
    for nowhere in ("nowhere.pth", str(tmp_path)):
        with pytest.raises(SystemExit, match="no such file, nor a folder with a checkpoint_last.pth"):
            toy.main(["--output_dir", str(tmp_path / "new"), "--resume", nowhere])


def test_resuming_by_folder_takes_its_newest_checkpoint(toy, uninterrupted, tmp_path):
    toy.main(["--output_dir", str(tmp_path), "--resume", str(uninterrupted), *SETTINGS, "max_epoch=4"])
    assert final(tmp_path)["step"] == 48


def test_a_restart_goes_on_where_the_run_was_not_at_the_path_it_began_from(
    toy, uninterrupted, tmp_path, monkeypatch, capsys
):
    command = ["--output_dir", str(tmp_path), "--resume", str(uninterrupted / "checkpoint_last.pth"), *SETTINGS]
    stale = tmp_path / "checkpoint_last.pth"  # of a run that is given up
    stale.write_bytes((uninterrupted / "checkpoint_best.pth").read_bytes())
    os.utime(stale, (0, 0))
    (tmp_path / "config.yaml").touch()  # of this one, which died before its first save
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    toy.main([*command, "max_epoch=4"])
    assert f"resumed from {uninterrupted}" in capsys.readouterr().out
    toy.main([*command, "max_epoch=5"])  # died after it
    assert f"resumed from {tmp_path}" in capsys.readouterr().out
    assert final(tmp_path)["step"] == 60


def test_what_a_process_left_that_was_killed_while_it_saved_is_swept_away(toy, tmp_path):
    half, other = tmp_path / ".1a2b3c4d.checkpoint_last.pth", tmp_path / ".1a2b3c4d.log.txt"
    for path in (half, other):
        path.write_bytes(b"half of it")
    toy.main(["--output_dir", str(tmp_path), *SETTINGS, "max_epoch=1"])
    assert not half.exists()
    assert other.exists()


def test_resume_without_a_checkpoint_starts_from_the_beginning(toy, uninterrupted, tmp_path):
    toy.main(["--output_dir", str(tmp_path), *SETTINGS, "--resume"])
    assert_same_end(uninterrupted, tmp_path)


def test_a_finished_run_goes_on_when_given_more_epochs(toy, uninterrupted, tmp_path, capsys):
    path = str(uninterrupted / "checkpoint_last.pth")
    toy.main(["--output_dir", str(tmp_path), "--resume", path, *SETTINGS, "max_epoch=4"])
    assert final(tmp_path)["step"] == 48
    assert "max_epoch was 3" in capsys.readouterr().out


def test_resume_with_another_number_of_processes_goes_on_with_the_same_global_batches(toy, torchrun, tmp_path, capsys):
    """Two processes with batches of 4, then one with the same memory: the end of one with batches of 8."""
    settings = [*SETTINGS, "dropout=0.0"]
    toy.main(["--output_dir", str(tmp_path / "whole"), *settings, "batch_size=8"])
    changed = tmp_path / "changed"
    torchrun(2, "--output_dir", changed, *settings, "stop_at=4", "stop_by=SIGTERM")
    assert final(changed)["samples"] == 40
    toy.main(["--output_dir", str(changed), *settings, "--resume"])
    printed = capsys.readouterr().out
    assert "takes 8 samples: 1 process(es) with batch_size = 4 and accumulation_steps = 2" in printed
    assert "not bitwise equal" in printed
    assert final(changed)["step"] == final(tmp_path / "whole")["step"] == 18
    for name in ("linear.weight", "linear.bias"):
        ours, theirs = (final(folder)["model"][name] for folder in (changed, tmp_path / "whole"))
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    logs = [[json.loads(line) for line in (folder / "log.txt").open()] for folder in (changed, tmp_path / "whole")]
    for ours, theirs in zip(*logs, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)


def test_another_global_batch_is_asked_for_by_its_key(toy, tmp_path, capsys):
    settings = ["--output_dir", str(tmp_path), *SETTINGS]
    with pytest.raises(SystemExit):
        toy.main([*settings, "stop_at=4", "stop_by=SIGTERM"])
    assert final(tmp_path)["samples"] == 20
    toy.main([*settings, "--resume", "batch_size=8", "max_epoch=1"])
    assert final(tmp_path)["step"] == 12  # still of 4 samples
    toy.main([*settings, "--resume", "batch_size=8", "global_batch_size=8", "max_epoch=2"])
    assert "took 4 samples before and takes 8 from here on" in capsys.readouterr().out
    assert final(tmp_path)["step"] == 12 + 6
    assert final(tmp_path)["config"]["global_batch_size"] == 8


@pytest.mark.parametrize("keep", [1, 3])
def test_the_newest_checkpoints_are_kept(toy, tmp_path, keep):
    toy.main(["--output_dir", str(tmp_path), *SETTINGS, f"keep_checkpoints={keep}", "max_epoch=2"])
    older = sorted(path.name for path in tmp_path.glob("checkpoint_step_*.pth"))
    assert older == ["checkpoint_step_000000015.pth", "checkpoint_step_000000020.pth"][: keep - 1]
    assert final(tmp_path)["step"] == 24


def test_after_going_back_the_newest_are_those_written_last(toy, tmp_path, capsys):
    settings = ["--output_dir", str(tmp_path), *SETTINGS, "keep_checkpoints=2"]
    toy.main([*settings, "max_epoch=2"])
    middle = tmp_path / "checkpoint_step_000000020.pth"
    toy.main([*settings, "max_epoch=2", "--resume", str(middle), "save_every=2"])
    assert f"going back to {middle}, though {tmp_path / 'checkpoint_last.pth'} is newer" in capsys.readouterr().out
    assert [path.name for path in tmp_path.glob("checkpoint_step_*.pth")] == ["checkpoint_step_000000022.pth"]


def test_the_last_but_one_is_resumed_from_when_the_last_is_missing(toy, uninterrupted, tmp_path):
    toy.main(["--output_dir", str(tmp_path), *SETTINGS, "keep_checkpoints=2"])
    (tmp_path / "checkpoint_last.pth").unlink()  # as after a power cut between two renames
    toy.main(["--output_dir", str(tmp_path), *SETTINGS, "keep_checkpoints=2", "--resume"])
    assert_same_end(uninterrupted, tmp_path)


def flip_a_bit_of_the_weights(path: Path) -> None:
    weights = torch.load(path, weights_only=True)["model"]["linear.weight"].numpy().tobytes()
    content = bytearray(path.read_bytes())
    content[content.index(weights) + 3] ^= 1
    path.write_bytes(content)


@pytest.fixture
def three_checkpoints(toy, tmp_path):
    """A folder with `checkpoint_last.pth` of step 24 and its predecessors of steps 20 and 15."""
    toy.main(["--output_dir", str(tmp_path / "run"), *SETTINGS, "max_epoch=2", "keep_checkpoints=3"])
    return tmp_path / "run"


def test_a_damaged_checkpoint_is_named_and_the_newest_whole_one_resumed_from(toy, three_checkpoints, capsys):
    flip_a_bit_of_the_weights(three_checkpoints / "checkpoint_last.pth")
    (three_checkpoints / "checkpoint_step_000000020.pth").write_bytes(b"half of it")
    toy.main(["--output_dir", str(three_checkpoints), *SETTINGS, "keep_checkpoints=3", "--resume"])
    printed = capsys.readouterr().out
    whole = three_checkpoints / "checkpoint_step_000000015.pth"
    assert "checkpoint_last.pth is damaged: its record 'archive/data/" in printed
    assert printed.count(f"going on from {whole}, the newest that is whole") == 2
    assert f"resumed from {whole}: epoch 1, step 15" in printed
    assert final(three_checkpoints)["step"] == STEPS
    assert [path.name for path in sorted(three_checkpoints.glob("*.damaged"))] == [
        "checkpoint_last.pth.damaged",
        "checkpoint_step_000000020.pth.damaged",
    ]


def test_a_damaged_checkpoint_of_another_folder_stays_where_it_is(toy, three_checkpoints, tmp_path, capsys):
    flip_a_bit_of_the_weights(three_checkpoints / "checkpoint_last.pth")
    toy.main(["--output_dir", str(tmp_path / "new"), *SETTINGS, "--resume", str(three_checkpoints)])
    assert "step_000000020.pth: epoch 1, step 20" in capsys.readouterr().out
    assert (three_checkpoints / "checkpoint_last.pth").exists()


def test_where_all_are_damaged_or_one_is_given_by_name_nothing_is_trained(toy, three_checkpoints, tmp_path):
    for path in three_checkpoints.glob("checkpoint_*.pth"):
        flip_a_bit_of_the_weights(path)
    command = ["--output_dir", str(three_checkpoints), *SETTINGS, "--resume"]
    with pytest.raises(SystemExit, match=r"checkpoint_last.pth is damaged.*No checkpoint in .* is whole") as stopped:
        toy.main(command)
    assert "\n" not in stopped.value.code
    with pytest.raises(SystemExit, match=r"checkpoint_last.pth is damaged"):
        toy.main([*command[:1], str(tmp_path), *SETTINGS, "--resume", str(three_checkpoints / "checkpoint_last.pth")])


def test_damage_that_befalls_the_last_checkpoint_in_a_run_does_not_end_it(toy, three_checkpoints):
    (three_checkpoints / "checkpoint_last.pth").write_bytes(b"half")
    save_last(three_checkpoints, {"step": 25}, keep=2)
    assert [path.name for path in three_checkpoints.glob("checkpoint_step_*")] == ["checkpoint_step_000000020.pth"]


@pytest.mark.parametrize("key", sorted(checkpoint._STATE))
def test_a_key_that_a_checkpoint_lacks_or_holds_wrongly_is_named(toy, uninterrupted, tmp_path, key):
    state, nonsense = final(uninterrupted), "training state" if key in ("optimizer", "rng") else f"no '{key}'"
    changes = [({name: value for name, value in state.items() if name != key}, nonsense)]
    changes += [({**state, key: value}, f"'{key}'") for value in (None, True)]
    if isinstance(state[key], dict) and key not in FREE:
        changes += [({**state, key: {"x": 1}}, f"'{key}'|another model")]
    if isinstance(state[key], int):
        changes += [({**state, key: -1}, f"'{key}' is -1")]
    for number, (changed, said) in enumerate(changes):
        path = tmp_path / f"{number}.pth"
        torch.save(changed, path)
        with pytest.raises(SystemExit, match=said) as stopped:
            toy.main(["--output_dir", str(tmp_path / "run"), *SETTINGS, "--resume", str(path)])
        assert str(path) in stopped.value.code


def test_a_part_of_the_state_that_does_not_fit_is_named(toy, uninterrupted, tmp_path):
    moments = final(uninterrupted)["optimizer"]["state"][0]
    for number, (key, change) in enumerate(
        [
            ("optimizer", lambda state: state["optimizer"]["state"][0].update(exp_avg=torch.zeros(3))),
            ("optimizer", lambda state: state["optimizer"]["state"][0].pop("exp_avg")),
            ("optimizer", lambda state: state["optimizer"]["param_groups"][0].update(betas="x")),
            ("optimizer", lambda state: state["optimizer"]["param_groups"].clear()),
            ("rng", lambda state: state["rng"][0].update(torch=moments["exp_avg"])),
            ("rng", lambda state: state.update(rng=[None])),
            ("losses", lambda state: state.update(losses={"sums": {"loss": "x"}, "count": 3})),
            ("loaders", lambda state: state.update(loaders=[{}])),
        ]
    ):
        state = final(uninterrupted)
        change(state)
        path = tmp_path / f"{number}.pth"
        torch.save(state, path)
        with pytest.raises(SystemExit, match=f"{path} cannot be resumed from: its '{key}' does not fit"):
            toy.main(["--output_dir", str(tmp_path / "run"), *SETTINGS, "max_epoch=4", "--resume", str(path)])


def test_what_is_no_file_is_not_waited_for(toy, tmp_path):
    os.mkfifo(tmp_path / "pipe.pth")
    for path, said in ((tmp_path / "pipe.pth", "a named pipe"), ("/dev/zero", "a device")):
        with pytest.raises(SystemExit, match=f"{path}: {said}, not a file"):
            toy.main(["--output_dir", str(tmp_path / "run"), *SETTINGS, "--resume", str(path)])
