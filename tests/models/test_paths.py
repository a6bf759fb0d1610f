"""Paths of the repository, and files that appear whole."""

import os
from pathlib import Path

import pytest

from models.paths import REPOSITORY, atomic_write, resolve


def test_a_path_of_the_repository_is_found_from_another_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert resolve("models/vocab.txt") == REPOSITORY / "models/vocab.txt"


def test_the_working_directory_comes_before_the_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("files.py").touch()
    assert resolve("files.py") == Path("files.py")


def test_a_path_that_exists_nowhere_stays_as_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert resolve("no/such.json") == Path("no/such.json")


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path):
    target = tmp_path / "file.txt"
    target.write_text("old")

    def fail_half_way():
        with atomic_write(target) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_write_makes_the_folder_and_replaces_the_file(tmp_path):
    target = tmp_path / "new" / "file.txt"
    for text in ("first", "second"):
        with atomic_write(target) as temporary:
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
            with atomic_write(tmp_path / name) as temporary:
                write(temporary)
            assert (tmp_path / name).stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(before)
