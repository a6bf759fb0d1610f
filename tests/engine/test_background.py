"""A checkpoint that is written while training goes on holds what one does for which training stops."""

import errno
import io
import os
import signal
import threading
from functools import partial
from pathlib import Path

import pytest
import torch

from engine import PREEMPTED, background, checkpoint
from engine.background import BackgroundSaver
from engine.step import Optimization

SETTINGS = ["max_epoch=2", "print_freq=5", "save_every=4", "tensorboard=false", "keep_checkpoints=9"]
CPU = torch.device("cpu")


@pytest.fixture
def steps(monkeypatch) -> list[int]:
    """The steps that have been done, as far as training is."""
    done = []
    step = Optimization.step

    def counted(self, batches, progress, lr):
        values = step(self, batches, progress, lr)
        done.append(progress.step)
        return values

    monkeypatch.setattr(Optimization, "step", counted)
    return done


@pytest.fixture
def slow(monkeypatch, steps) -> list[int]:
    """Each checkpoint is written when three more steps are done, or a while is over; the numbers of steps done."""
    meanwhile, write = [], checkpoint.write

    def write_later(state, path):
        begun = len(steps)
        moved = threading.Event()
        for _ in range(40):
            if len(steps) >= begun + 3:
                break
            moved.wait(0.001)
        meanwhile.append(len(steps) - begun)
        write(state, path)

    monkeypatch.setattr(checkpoint, "write", write_later)
    return meanwhile


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("checkpoint_*.pth")}


def test_all_files_of_a_run_are_byte_by_byte_those_written_while_training_stands_still(
    toy, tmp_path, slow, monkeypatch
):
    run = ["--output_dir", str(tmp_path / "run"), *SETTINGS]
    toy.main(run)
    assert max(slow) >= 3
    background_files = contents(tmp_path / "run")
    (tmp_path / "run").rename(tmp_path / "earlier")
    monkeypatch.setattr(BackgroundSaver, "write", lambda self, save: save())
    toy.main(run)
    assert contents(tmp_path / "run") == background_files
    assert len(background_files) == 7  # of steps 4, 8, ..., 24, and the best


def saved(state) -> bytes:
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def test_weights_and_moments_that_change_during_the_write_are_written_as_they_were():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Linear(64, 64, bias=False))
    model[1].weight = model[0].weight  # tied
    model.register_buffer("across", torch.randn(5, 7).T)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)

    def step():
        optimizer.zero_grad()
        model(torch.randn(8, 64)).square().mean().backward()
        optimizer.step()

    step()
    saver, files, go_on = BackgroundSaver(CPU), [], threading.Event()
    for _ in range(3):
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "sums": {"loss": 1.0}, "none": []}
        expected = saved(state)
        copied = saver.copy(state)
        saver.write(lambda copied=copied: (go_on.wait(5), files.append(saved(copied))))
        state["sums"]["loss"] = 2.0
        step()
        go_on.set()
        saver.wait()
        go_on.clear()
        assert files[-1] == expected
    read = torch.load(io.BytesIO(files[-1]))["model"]
    assert read["0.weight"].data_ptr() == read["1.weight"].data_ptr()


def test_memory_of_the_host_is_taken_once(monkeypatch):
    monkeypatch.setattr(background, "_BLOCK", 1000)
    saver, places = BackgroundSaver(CPU), []
    state = [torch.full((number,), float(number)) for number in (3, 200, 0, 1000, 40, 7)]
    for _ in range(4):
        copied = saver.copy(state)
        for one, two in zip(state, copied, strict=True):
            assert torch.equal(one, two)
        places.append([copy.data_ptr() for copy in copied])
        saver.write(lambda: None)
        saver.wait()
    assert places == [places[0]] * 4
    taken = sorted((place, place + 4 * len(x)) for place, x in zip(places[0], state, strict=True) if len(x))
    assert all(end <= begin for (_, end), (begin, _) in zip(taken, taken[1:], strict=False))


def test_a_disk_that_is_full_ends_the_run_at_the_next_step(toy, tmp_path, steps, monkeypatch):
    failed_at = []

    def full(state, path, write=checkpoint.write):
        if state["step"] > 4:
            failed_at.append(len(steps))
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        write(state, path)

    monkeypatch.setattr(checkpoint, "write", full)
    write = BackgroundSaver.write
    monkeypatch.setattr(BackgroundSaver, "write", lambda self, save: (write(self, save), self._thread.join()))
    with pytest.raises(SystemExit, match=r"checkpoint_last.pth cannot be written .*No space left") as stopped:
        toy.main(["--output_dir", str(tmp_path), *SETTINGS])
    assert f"{tmp_path / 'checkpoint_last.pth'} is still there: go on from it with --resume" in stopped.value.code
    assert (failed_at, len(steps)) == ([8], 9)
    assert torch.load(tmp_path / "checkpoint_last.pth", weights_only=True)["step"] == 4
    assert not list(tmp_path.glob(".*.pth"))


def test_the_weights_of_the_last_epoch_that_cannot_be_written_end_the_run(toy, tmp_path, monkeypatch):
    def full(state, path, write=checkpoint.write):
        if "optimizer" not in state:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        write(state, path)

    monkeypatch.setattr(checkpoint, "write", full)
    with pytest.raises(SystemExit, match="checkpoint_best.pth cannot be written"):
        toy.main(["--output_dir", str(tmp_path), *SETTINGS, "max_epoch=1"])


def test_a_signal_during_a_write_leaves_when_the_checkpoint_of_its_step_is_whole(
    toy, tmp_path, slow, steps, monkeypatch, capsys
):
    step = toy.train_step

    def signaled(config, last, model, batch, progress):
        if progress.step == 4:  # the checkpoint of 4 steps is being written
            os.kill(os.getpid(), signal.SIGTERM)
        return step(config, last, model, batch, progress)

    monkeypatch.setattr(toy, "train_step", signaled)
    with pytest.raises(SystemExit) as stopped:
        toy.main(["--output_dir", str(tmp_path), *SETTINGS])
    assert stopped.value.code == PREEMPTED
    assert len(slow) == 2
    assert len(steps) == 5
    assert torch.load(tmp_path / "checkpoint_last.pth", weights_only=True)["step"] == 5
    printed = capsys.readouterr().out
    assert "after a signal, the checkpoint of step 5 is written: 1.02e-05 GB" in printed
    assert "stopped by a signal after step 5, its checkpoint whole 0." in printed


def test_a_checkpoint_that_takes_longer_than_torchrun_waits_is_told_at_once(toy, tmp_path, monkeypatch, capsys):
    toy.main(["--output_dir", str(tmp_path / "quick"), *SETTINGS])
    printed = capsys.readouterr().out
    assert printed.count("checkpoints are written in the background: ") == 1
    assert "takes long to write" not in printed
    monkeypatch.setattr(background, "GRACE", 10.0)  # of which a step may take 10
    toy.main(["--output_dir", str(tmp_path / "slow"), *SETTINGS])
    printed = capsys.readouterr().out
    assert printed.count("a checkpoint takes long to write (1.02e-05 GB") == 1
    assert "save_every" in printed.partition("takes long to write")[2].partition("\n")[0]


def test_an_error_of_the_run_is_not_hidden_by_one_of_the_write(caplog):
    saver = BackgroundSaver(CPU)
    saver.write(partial(os.stat, "/nowhere"))
    saver.close()
    assert "/nowhere" in caplog.text
