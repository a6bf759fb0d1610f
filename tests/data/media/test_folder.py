"""Folders of pictures as people have them: links, companions of macOS, HEIC, and names of any kind."""

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from data.media.folder import find_pictures, picture_suffixes, read_batches
from settings import MissingFile, UserError

NO_HEIC = ".heic" not in picture_suffixes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    picture(tmp_path / "photos" / "b.jpg")
    picture(tmp_path / "photos" / "a" / "c.png")
    (tmp_path / "photos" / "notes.txt").write_text("no picture")
    return tmp_path / "photos"


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(path)


def found(*names: object, below: Path) -> list[str]:
    return [str(path.relative_to(below)) for path in find_pictures(map(str, names))]


def test_a_folder_is_searched_at_any_depth(folder: Path) -> None:
    assert found(folder, below=folder) == ["a/c.png", "b.jpg"]
    assert found(folder / "*.jpg", folder, below=folder) == ["b.jpg", "a/c.png"]
    assert found(folder / "**/*.png", below=folder) == ["a/c.png"]


def test_linked_folders_are_read_once_and_circles_end(folder: Path) -> None:
    picture(folder.parent / "elsewhere" / "x.jpg")
    (folder / "link").symlink_to("../elsewhere")
    (folder / "second").symlink_to("../elsewhere")
    (folder / "a" / "circle").symlink_to("..")
    (folder.parent / "elsewhere" / "back").symlink_to(folder)
    (folder / "0_to_a").symlink_to("a")
    assert found(folder, below=folder) == ["a/c.png", "b.jpg", "link/x.jpg"]


def test_a_linked_picture_and_a_link_to_nothing_are_among_the_pictures(folder: Path) -> None:
    (folder / "link.jpg").symlink_to("b.jpg")
    (folder / "dangling.jpg").symlink_to("nowhere.jpg")
    assert found(folder, below=folder) == ["a/c.png", "b.jpg", "dangling.jpg", "link.jpg"]
    _, pixels, bad = next(read_batches(find_pictures([str(folder)]), 16, 4))
    assert (len(pixels), [error.reason for error in bad]) == (3, ["No such file or directory"])


def test_companions_of_macos_are_passed_over(folder: Path) -> None:
    (folder / "._b.jpg").write_bytes(b"\0\5\x16\7")
    (folder / "__MACOSX").mkdir()
    shutil.copy(folder / "b.jpg", folder / "__MACOSX" / "b.jpg")
    assert found(folder, below=folder) == ["a/c.png", "b.jpg"]


def test_pictures_without_a_suffix_are_told_by_their_beginning(folder: Path) -> None:
    shutil.copy(folder / "b.jpg", folder / "download")
    shutil.copy(folder / "b.jpg", folder / ".hidden")
    (folder / "LICENSE").write_text("no picture")
    (folder / "empty").touch()
    os.mkfifo(folder / "pipe")
    assert found(folder, below=folder) == ["a/c.png", "b.jpg", "download"]


def test_a_folder_named_like_a_picture_is_named_and_searched(folder: Path) -> None:
    picture(folder / "dir.jpg" / "d.png")
    assert found(folder, below=folder) == ["a/c.png", "b.jpg", "dir.jpg", "dir.jpg/d.png"]
    _, _, bad = next(read_batches(find_pictures([str(folder)]), 16, 4))
    assert [str(error) for error in bad] == [f"{folder}/dir.jpg: a folder, not a file"]


def test_a_folder_that_cannot_be_listed_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def listed(path: str) -> Any:  # to root, every folder is
        if os.path.basename(path) == "a":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", listed)
    assert found(folder, below=folder) == ["a", "b.jpg"]


@pytest.mark.skipif(not NO_HEIC, reason="pillow-heif is installed")
def test_heic_pictures_are_named_and_alone_they_are_refused(folder: Path) -> None:
    (folder / "a" / "IMG_2.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    assert found(folder, below=folder) == ["a/IMG_2.HEIC", "a/c.png", "b.jpg"]
    (folder / "a" / "c.png").unlink()
    for name in (folder / "a", folder / "a" / "*", folder / "a" / "IMG_2.HEIC"):
        with pytest.raises(UserError, match=r"1 of 1 pictures: a HEIC picture, which needs the package pillow-heif"):
            find_pictures([str(name)])


@pytest.mark.parametrize("name", ["absent", "*.jpg", "~nosuchuser/a.jpg", "a" * 300, "a\0b", "[", "[z-a].jpg", ""])
def test_a_name_that_matches_nothing_is_an_error(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingFile, match="there is no such file, folder with pictures, or match"):
        find_pictures([name])


def test_names_of_any_kind_are_found_and_read(tmp_path: Path) -> None:
    names = ["a b.jpg", "it's [1].jpg", "new\nline.jpg", "日本 😀.jpg", os.fsdecode(b"latin1_\xe9.jpg")]
    for name in names:
        picture(tmp_path / name)
    paths = find_pictures([str(tmp_path)])
    assert sorted(path.name for path in paths) == sorted(names)
    assert find_pictures([str(tmp_path / name) for name in names]) == [tmp_path / name for name in names]
    read, pixels, bad = next(read_batches(paths, 16, 8))
    assert (read, pixels.shape, bad) == (paths, (5, 3, 16, 16), [])
    assert pixels.dtype == torch.uint8
