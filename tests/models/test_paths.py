"""Paths of the repository, and files that appear whole."""

import os
import pickle
import re
import socket
from pathlib import Path

import pytest

from models.errors import MissingFile, UnreadableFile, UserError
from models.paths import REPOSITORY, atomic_write, open_regular, resolve


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


@pytest.mark.parametrize("path", ["~nosuchuser/a.json", "a" * 300, "a\0b.json"])
def test_a_path_that_cannot_exist_stays_as_given(path):
    assert resolve(path) == Path(path)


def test_a_regular_file_is_opened_also_through_a_link(tmp_path):
    (tmp_path / "file.bin").write_bytes(b"content")
    (tmp_path / "link.bin").symlink_to("file.bin")
    for path in (tmp_path / "file.bin", str(tmp_path / "link.bin")):
        with open_regular(path) as file:
            assert file.read() == b"content"


@pytest.fixture
def strange(tmp_path, monkeypatch):
    """A folder that holds what is no file."""
    monkeypatch.chdir(tmp_path)  # a socket's name has at most 107 characters
    Path("folder").mkdir()
    os.mkfifo("pipe")
    server = socket.socket(socket.AF_UNIX)
    server.bind("socket")
    Path("link").symlink_to("pipe")
    Path("circle").symlink_to("circle")
    yield tmp_path
    server.close()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("folder", "a folder, not a file"),
        ("pipe", "a named pipe, not a file"),
        ("link", "a named pipe, not a file"),
        ("socket", "a socket, not a file"),
        ("/dev/zero", "a device, not a file"),
        ("/dev/null", "a device, not a file"),
        ("circle", "Too many levels of symbolic links"),
        ("a" * 300, "File name too long"),
    ],
)
@pytest.mark.usefixtures("strange")
def test_what_is_no_file_is_refused_at_once_and_named(name, reason):
    before = len(os.listdir("/dev/fd"))
    with pytest.raises(UnreadableFile) as caught:
        open_regular(name)
    assert (caught.value.path, caught.value.reason, str(caught.value)) == (name, reason, f"{name}: {reason}")
    assert str(pickle.loads(pickle.dumps(caught.value))) == f"{name}: {reason}"  # on its way from a worker
    assert len(os.listdir("/dev/fd")) == before


def test_a_missing_file_and_a_nul_in_a_name_are_named(tmp_path):
    with pytest.raises(MissingFile, match=r"absent.json: there is no such file"):
        open_regular(tmp_path / "absent.json")
    with pytest.raises(UnreadableFile, match=re.escape(r"'a\x00b': not a file name")):
        open_regular("a\0b")


def test_too_few_file_handles_are_no_fault_of_the_file(tmp_path, monkeypatch):
    def open_none(*_):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "open", open_none)
    with pytest.raises(UserError, match=r"a.json: too many files are open; raise the limit") as caught:
        open_regular(tmp_path / "a.json")
    assert not isinstance(caught.value, UnreadableFile)


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
