"""The emoji are unpacked once, with a vocabulary of their words, and a second call leaves what is there."""

import json
import os
import stat
import zipfile

import pytest

from demo import emoji
from demo.emoji import main, unpack
from models.tokenizer import build_tokenizer
from settings import UserError

CAPTIONS = {
    "pretrain.json": [{"caption": "Grinning Face, happy"}, {"caption": "face with tongue"}],
    "train.json": [{"caption": "grinning face"}],
    "val.json": [{"caption": ["zebra", "zebra"]}],
    "val_gt.json": {"annotations": []},
}


@pytest.fixture
def source(tmp_path):
    """The annotation files."""
    folder = tmp_path / "source"
    folder.mkdir()
    for name, content in CAPTIONS.items():
        (folder / name).write_text(json.dumps(content))
    return folder


def test_annotations_and_pictures_are_unpacked(tmp_path, source):
    out = tmp_path / "out"
    with zipfile.ZipFile(source / "images.zip", "w") as pictures:
        pictures.writestr("images/noto/1f600.png", b"picture")
    unpack(source, out)
    picture = out / "images" / "noto" / "1f600.png"
    assert picture.read_bytes() == b"picture"
    assert json.loads((out / "val_gt.json").read_text()) == CAPTIONS["val_gt.json"]
    tokenizer = build_tokenizer(out / "vocab.txt")
    assert tokenizer.tokenize("Grinning face!") == ["grinning", "face", "!"]
    assert tokenizer.tokenize("zebra") == ["z", "##e", "##b", "##r", "##a"]  # validation lends no words
    assert tokenizer.tokenize("happy") == ["h", "##a", "##p", "##p", "##y"]  # occurs once
    picture.write_bytes(b"kept")
    unpack(source, out)
    assert picture.read_bytes() == b"kept"


def test_a_folder_without_the_files_is_named(tmp_path, monkeypatch):
    (tmp_path / "val.json").write_text("[]")
    monkeypatch.setattr("sys.argv", ["demo.emoji", "--source", str(tmp_path)])
    with pytest.raises(SystemExit, match="has no images.zip, pretrain.json, train.json, val_gt.json"):
        main()


@pytest.mark.parametrize(
    "name", ["../evil.png", "/tmp/evil.png", "images/../../evil.png", "C:\\evil.png", "a\\..\\..\\b"]
)
def test_an_archive_that_leads_out_of_the_folder_is_refused_whole(tmp_path, source, name):
    with zipfile.ZipFile(source / "images.zip", "w") as pictures:
        pictures.writestr("images/a.png", b"picture")
        pictures.writestr(name, b"picture")
    with pytest.raises(UserError, match="images.zip: .* leads out of the folder"):
        unpack(source, tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"source"}


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_a_link_or_device_in_an_archive_is_refused(tmp_path, source, kind):
    link = zipfile.ZipInfo("images/noto")
    link.external_attr = (kind | 0o777) << 16
    with zipfile.ZipFile(source / "images.zip", "w") as pictures:
        pictures.writestr(link, "/etc")
        pictures.writestr("images/noto/passwd", b"picture")
    with pytest.raises(UserError, match="images.zip: 'images/noto' is a link or a device"):
        unpack(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_archive_larger_than_one_of_emoji_is_refused_before_it_is_unpacked(tmp_path, source, monkeypatch):
    with zipfile.ZipFile(source / "images.zip", "w", zipfile.ZIP_DEFLATED) as pictures:
        pictures.writestr("images/a.png", bytes(2**24 + 1))
    with pytest.raises(UserError, match="'images/a.png' unpacks to 16,777,217 bytes; at most 16,777,216 are taken"):
        unpack(source, tmp_path / "out")
    with zipfile.ZipFile(source / "images.zip", "w") as pictures:
        for i in range(3):
            pictures.writestr(f"images/{i}.png", bytes(10))
    for name, bound in (("_MAX_PICTURES", 2), ("_MAX_BYTES", 29)):
        with monkeypatch.context() as patched:
            patched.setattr(emoji, name, bound)
            with pytest.raises(UserError, match="images.zip: 3 members of 30 bytes; at most"):
                unpack(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_damaged_archive_is_named_and_leaves_no_half_picture(tmp_path, source):
    (source / "images.zip").write_bytes(b"no zip")
    with pytest.raises(UserError, match="images.zip: not a zip archive"):
        unpack(source, tmp_path / "out")
    with zipfile.ZipFile(source / "images.zip", "w") as pictures:
        pictures.writestr("images/a.png", b"picture")
    (source / "images.zip").write_bytes((source / "images.zip").read_bytes().replace(b"picture", b"Picture"))
    with pytest.raises(UserError, match="'images/a.png' cannot be unpacked .*Bad CRC-32"):
        unpack(source, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*a.png*"))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("[", "not valid JSON"),
        ("{}", "expected a JSON list of records, found dict"),
        ('[{"caption": "a"}, {"caption": 3}]', "record 1: expected an object with a text under `caption`"),
        ("[null]", "record 0: expected an object"),
    ],
)
def test_annotations_that_are_none_end_the_command_with_their_name(tmp_path, source, content, reason, monkeypatch):
    zipfile.ZipFile(source / "images.zip", "w").close()
    (source / "train.json").write_text(content)
    monkeypatch.setattr("sys.argv", ["demo.emoji", "--source", str(source), "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit, match=f"demo.emoji: .*train.json.* {reason}"):
        main()
    assert not (tmp_path / "out").exists()


def test_a_pipe_is_not_waited_for(tmp_path, source):
    os.mkfifo(source / "images.zip")
    with pytest.raises(UserError, match="images.zip: a named pipe, not a file"):
        unpack(source, tmp_path / "out")
