"""Places that cannot be written to, names that name nothing, numbers out of range: one line each, and no traceback."""

import errno
import io
import json
import os
import resource
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from engine import checkpoint
from engine.failure import exit_on_user_error, explain
from engine.log import EpochLog
from files import REPOSITORY
from tests.mounts import in_own_mounts

SETTINGS = ["max_epoch=2", "print_freq=5", "tensorboard=false"]


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("a" * 300, "File name too long"),
        ("a\0b", "embedded null byte"),
        ("file/run", "Not a directory"),
        ("file", "File exists"),
        ("/proc/run", "No such file or directory"),
    ],
)
def test_an_output_folder_that_cannot_be_made_is_named(toy, tmp_path, monkeypatch, place, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match=f"--output_dir .*: no folder can be made there .*{said}") as stopped:
        toy.main(["--output_dir", place, *SETTINGS])
    assert "\n" not in stopped.value.code


def test_the_home_folder_is_meant_by_a_tilde(toy, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    toy.main(["--output_dir", "~/run", *SETTINGS])
    assert (tmp_path / "run/log.txt").exists()


@pytest.mark.parametrize("path", ["a" * 300, "a" * 300 + "/b=c", "a\0b", "~nosuchuser/x.pth"])
def test_a_checkpoint_of_an_impossible_name_is_none(toy, tmp_path, path):
    with pytest.raises(SystemExit, match="no such file, nor a folder|no override|command line|unknown key"):
        toy.main(["--output_dir", str(tmp_path), "--resume", path, *SETTINGS])


@pytest.mark.parametrize("seed", ["-1", str(2**63), str(2**70), "9" * 5000, "x"])
def test_a_seed_out_of_range_is_refused(toy, tmp_path, capsys, seed):
    with pytest.raises(SystemExit) as stopped:
        toy.main(["--output_dir", str(tmp_path), f"--seed={seed}"])
    assert stopped.value.code == 2
    assert "--seed" in capsys.readouterr().err


def test_the_largest_seed_trains(toy, tmp_path):
    toy.main(["--output_dir", str(tmp_path), "--seed", str(2**63 - 1), *SETTINGS])


@pytest.mark.parametrize("device", ["meta", "nonsense", "", "cpu:x", "xla", "cuda:999999999999", "a\0b"])
def test_a_device_that_nothing_can_be_trained_on_is_refused(toy, tmp_path, device):
    with pytest.raises(SystemExit, match="--device .*: (unknown; choose auto|torch sees no CUDA GPU)"):
        toy.main(["--output_dir", str(tmp_path), "--device", device])


def test_a_full_disk_ends_the_run_and_keeps_the_earlier_checkpoint(toy, tmp_path, monkeypatch):
    toy.main(["--output_dir", str(tmp_path), *SETTINGS])
    before = (tmp_path / "checkpoint_last.pth").read_bytes()

    def full(state, file):
        file.write(b"half of it")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoint.torch, "save", full)
    with pytest.raises(SystemExit) as stopped:
        toy.main(["--output_dir", str(tmp_path), *SETTINGS, "max_epoch=3", "--resume"])
    last = tmp_path / "checkpoint_last.pth"
    best = tmp_path / "checkpoint_best.pth"
    assert f"the checkpoint {best} cannot be written (" in stopped.value.code
    assert "No space left on device; free space there" in stopped.value.code
    assert stopped.value.code.endswith(f"{last} is still there: go on from it with --resume")
    assert last.read_bytes() == before
    assert not list(tmp_path.glob(".*.pth"))


def test_wherever_in_a_checkpoint_the_disk_is_full_that_is_the_error():
    class Full(io.BytesIO):
        def __init__(self, room):
            super().__init__()
            self.room = room

        def write(self, content):
            written = super().write(bytes(content)[: max(0, self.room - self.tell())])
            if written < len(bytes(content)):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return written

    state = {"model": {"weight": torch.zeros(500)}, "step": 3}
    whole = io.BytesIO()
    torch.save(state, whole)
    for room in range(0, len(whole.getvalue()) - 1, 20):
        with pytest.raises(OSError, match="No space left on device"):
            checkpoint.write(state, SimpleNamespace(open=lambda mode, room=room: Full(room)))


def test_a_file_system_that_is_really_full_says_so(toy, tmp_path):
    script = 'mount -t tmpfs -o size=32k tmpfs "$0" && exec "$@"'
    run = [sys.executable, toy.__file__, "--output_dir", str(tmp_path / "run"), *SETTINGS, "save_every=1"]
    result = subprocess.run(
        in_own_mounts(script, str(tmp_path), *run, "keep_checkpoints=9"),
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert result.returncode == 1
    assert "No space left on device" in result.stderr
    assert "is still there: go on from it with --resume" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "number", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.ENAMETOOLONG, errno.EMFILE, errno.EDQUOT]
)
def test_what_the_machine_refuses_is_said_in_one_line_with_the_place_and_a_remedy(number):
    with pytest.raises(SystemExit) as stopped, exit_on_user_error(None, 0):
        raise OSError(number, os.strerror(number), "/there/file")
    assert f": /there/file: {os.strerror(number)}; " in stopped.value.code


def test_too_little_memory_is_said_with_what_to_do():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 55, dtype=torch.uint8)
    for error in (caught.value, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB"), MemoryError()):
        said = explain(error)
        assert said is not None
        assert said.startswith("the memory is too small: lower batch_size")
    with pytest.raises(SystemExit, match="CUDA out of memory"), exit_on_user_error(None, 0):
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_an_error_that_only_a_bug_can_cause_is_not_the_users():
    assert explain(OSError(errno.EBADF, "bad")) is None
    assert explain(RuntimeError("this cannot happen")) is None
    with pytest.raises(KeyError), exit_on_user_error(None, 0):
        raise KeyError("a")


def test_half_a_line_in_the_log_is_dropped_and_named(tmp_path, caplog):
    path = tmp_path / "log.txt"
    path.write_bytes(b'{"epoch": 0, "a": 1}\n{"epo\n[]\n\xff\n{"epoch": 1}\n{"epoch": 2}\n{"epoch"')
    log = EpochLog(path, 2)
    log.write({"epoch": 2})
    assert [json.loads(line)["epoch"] for line in path.read_text().splitlines()] == [0, 1, 2]
    assert f"{path} line 2 is no line of an epoch" in caplog.text


def test_the_limit_of_open_files_is_raised_as_far_as_it_may(toy, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, limits[1]), limits[1]))
    try:
        toy.main(["--output_dir", str(tmp_path), *SETTINGS])
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (limits[1], limits[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert torch.load(tmp_path / "checkpoint_last.pth", weights_only=True)["step"] == 24


@pytest.mark.parametrize("place", ["cache", "cache/annotations/a.json", ""])
def test_of_a_cache_that_cannot_be_written_the_variable_is_named(tmp_path, monkeypatch, place):
    """Its folder, a file in it, or the folder that it was to be made in."""
    monkeypatch.setenv("BLIP_CACHE", str(tmp_path / "cache"))
    error = explain(OSError(errno.EROFS, "", str(tmp_path / place)))
    assert error == f"{tmp_path / place}: Read-only file system; name a place that can be written to; " + (
        "BLIP_CACHE names another cache"
    )
    assert "BLIP_CACHE" not in explain(OSError(errno.EROFS, "", str(tmp_path / "cached")))
