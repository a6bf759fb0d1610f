"""Checkpoints: no room for them, bits that flip in them, and two runs that would write the same ones."""

import random
import re
import shutil
import time
from pathlib import Path

import pytest

from tests.faults.runs import SEED, TOY, Started, assert_same_end, finish, os, run, script
from tests.mounts import in_own_mounts

SETTINGS = ["max_epoch=3", "print_freq=5", "save_every=5", "tensorboard=false", "keep_checkpoints=2"]
LAST = "checkpoint_last.pth"
_draw = random.Random(f"{SEED} storage")


@pytest.fixture(scope="module")
def toy():
    import importlib.util
    import sys

    spec = importlib.util.spec_from_file_location("toy", TOY)
    module = sys.modules["toy"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    finish(script(TOY, "--output_dir", folder, *SETTINGS), folder)
    return folder


@pytest.fixture(scope="module")
def half_done(tmp_path_factory):
    """A run that was killed before step 13 of 36, after its checkpoints of steps 5 and 10."""
    folder = tmp_path_factory.mktemp("half")
    status, printed = run(script(TOY, "--output_dir", folder, *SETTINGS, "stop_at=13"), folder)
    assert status == -9, printed
    return folder


def message_of(printed: str) -> str:
    (line,) = [line for line in printed.splitlines() if line.startswith("toy.py")]
    assert "Traceback" not in printed
    return line


@pytest.mark.faults(
    "no room for a checkpoint (a limit of file sizes, drawn at random), resumed", "weights bitwise equal"
)
@pytest.mark.parametrize("share", [0.0, *(round(_draw.random(), 3) for _ in range(7))])
def test_no_room_for_a_checkpoint(whole, half_done, tmp_path, share):
    folder = tmp_path / "run"
    shutil.copytree(half_done, folder)
    before = (folder / LAST).read_bytes()
    limit = 1000 + int(share * (len(before) - 2000))  # the config and the lock have room
    command = script(TOY, "--output_dir", folder, *SETTINGS, "--resume")
    status, printed = Started(command, tmp_path, file_bytes=limit).end()
    assert status == 1, printed
    line = message_of(printed)
    assert f"{folder / LAST} is still there: go on from it with --resume" in line
    assert "File too large" in line
    assert (folder / LAST).read_bytes() == before
    assert not list(folder.glob(".*.pth"))
    finish(command, tmp_path)
    assert_same_end(whole, folder)


@pytest.mark.faults("a full file system (of a size drawn at random), more room, resumed", "weights bitwise equal")
@pytest.mark.parametrize("kilobytes", [_draw.randrange(24, 72, 4) for _ in range(4)])
def test_a_full_file_system(whole, tmp_path, kilobytes):
    """In a mount namespace: a run that fails, more room, and the run that goes on, whose folder is copied out."""
    there, out = tmp_path / "there", tmp_path / "out"
    there.mkdir()
    lines = [
        f'mount -t tmpfs -o size={kilobytes}k tmpfs "$0"',
        '"$@"; echo "status $?"',
        'mount -o remount,size=100m "$0"',
        '"$@" --resume; echo "status $?"',
        f'cp -r "$0/run" "{out}"',
    ]
    command = script(TOY, "--output_dir", there / "run", *SETTINGS, "save_every=1")
    shell = in_own_mounts("\n".join(lines), str(there), *command)
    _, printed = Started(shell, tmp_path, PATH=os.environ["PATH"]).end()
    assert re.findall(r"status (\d+)", printed) == ["1", "0"], printed
    assert "No space left on device" in message_of(printed)
    assert_same_end(whole, out, ignored=("/config",))


def flip(content: bytearray) -> None:
    content[_draw.randrange(len(content))] ^= 1 << _draw.randrange(8)


def cut(content: bytearray) -> None:
    del content[_draw.randrange(len(content)) :]


def zero(content: bytearray) -> None:
    at = _draw.randrange(len(content))
    content[at : at + 512] = bytes(len(content[at : at + 512]))


@pytest.mark.faults(
    "a bit flipped, the end cut off or a sector zeroed in `checkpoint_last.pth`", "weights bitwise equal"
)
@pytest.mark.parametrize(("damage", "times"), [(flip, 120), (cut, 40), (zero, 40)])
def test_a_damaged_checkpoint(toy, whole, half_done, tmp_path, record_property, capsys, damage, times):
    """Of the file's 20 KB, some bytes mean nothing: damage is either named, or changes no weight."""
    record_property("tried", times)
    noticed = 0
    for number in range(times):
        folder = tmp_path / str(number)
        shutil.copytree(half_done, folder)
        content = bytearray((folder / LAST).read_bytes())
        damage(content)
        (folder / LAST).write_bytes(content)
        toy.main(["--output_dir", str(folder), *SETTINGS, "--resume"])
        named = "checkpoint_last.pth is damaged" in capsys.readouterr().out
        assert named == (folder / f"{LAST}.damaged").exists()
        noticed += named
        assert_same_end(whole, folder)
        shutil.rmtree(folder)
    assert noticed > 0.8 * times


@pytest.mark.faults("two runs started in one `--output_dir`", "one is refused, the other ends bitwise equal")
@pytest.mark.parametrize("delay", [0.0, *(round(_draw.uniform(0, 0.2), 3) for _ in range(5))])
def test_two_runs_in_one_folder(whole, tmp_path, delay):
    folder: Path = tmp_path / "run"
    command = script(TOY, "--output_dir", folder, *SETTINGS)
    first = Started(command, tmp_path)
    time.sleep(delay)
    ends = [first, Started(command, tmp_path)]
    ends = [started.end() for started in ends]
    assert sorted(status for status, _ in ends) == [0, 1], ends
    refused = message_of(next(printed for status, printed in ends if status))
    assert "another run (process " in refused or "belongs to an earlier run" in refused
    (folder / "refused").unlink(missing_ok=True)
    assert_same_end(whole, folder)
