"""Paths, whole files, schedules and documented settings."""

import dataclasses
import json
import os
from pathlib import Path

import pytest

import utils


def test_a_path_of_the_repository_is_found_from_another_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert utils.resolve("models/vocab.txt") == utils.REPOSITORY / "models/vocab.txt"


def test_the_working_directory_comes_before_the_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("utils.py").touch()
    assert utils.resolve("utils.py") == Path("utils.py")


def test_a_path_that_exists_nowhere_stays_as_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert utils.resolve("no/such.json") == Path("no/such.json")


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path):
    target = tmp_path / "file.txt"
    target.write_text("old")

    def fail_half_way():
        with utils.atomic_write(target) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_write_makes_the_folder_and_replaces_the_file(tmp_path):
    target = tmp_path / "new" / "file.txt"
    for text in ("first", "second"):
        with utils.atomic_write(target) as temporary:
            assert temporary.suffix == ".txt"
            temporary.write_text(text)
    assert target.read_text() == "second"
    assert list(target.parent.iterdir()) == [target]


def test_a_file_has_the_mode_that_the_umask_gives_however_it_was_written(tmp_path):
    def private(path):  # as safetensors does it: a file of its own, moved into place
        path.with_suffix(".tmp").write_text("text")
        path.with_suffix(".tmp").chmod(0o600)
        path.with_suffix(".tmp").replace(path)

    before = os.umask(0o027)
    try:
        for name, write in (("plain", lambda path: path.write_text("text")), ("private", private)):
            with utils.atomic_write(tmp_path / name) as temporary:
                write(temporary)
            assert (tmp_path / name).stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(before)


def test_schedules_equal_the_reference(golden):
    expected = json.loads(golden("lr_schedules/expected.json").read_text())
    for case in expected["cosine"]:
        values = [utils.cosine_lr(e, case["max_epoch"], case["init_lr"], case["min_lr"]) for e in case["epochs"]]
        assert values == pytest.approx(case["lr"], rel=1e-12)
    for case in expected["warmup"]:
        values = [utils.warmup_lr(s, case["max_step"], case["init_lr"], case["max_lr"]) for s in case["steps"]]
        assert values == pytest.approx(case["lr"], rel=1e-12)
    for case in expected["step"]:
        values = [utils.step_lr(e, case["init_lr"], case["min_lr"], case["decay_rate"]) for e in case["epochs"]]
        assert values == pytest.approx(case["lr"], rel=1e-12)


def test_no_warm_up_starts_at_the_full_rate():
    assert utils.warmup_lr(0, 0, 1e-6, 3e-4) == 3e-4


def test_a_setting_carries_its_meaning_and_copies_a_list():
    @dataclasses.dataclass
    class Config:
        files: list[str] = utils.setting(["a"], "files to read")
        root: str = utils.setting(..., "where they lie")

    first, second = Config(root="x"), Config(root="x")
    first.files.append("b")
    assert second.files == ["a"]
    assert dataclasses.fields(Config)[0].metadata["help"] == "files to read"
    with pytest.raises(TypeError, match="root"):
        Config()


def test_a_rule_that_does_not_hold_is_an_error_for_the_reader():
    utils.check(True, "k", 1, "at least 1")
    with pytest.raises(utils.UserError, match="k = 0: must be at least 1"):
        utils.check(False, "k", 0, "at least 1")
