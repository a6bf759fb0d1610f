"""The emoji are unpacked once, with a vocabulary of their words, and a second call leaves what is there."""

import json
import zipfile

import pytest

from demo.emoji import main, unpack
from models.tokenizer import build_tokenizer

CAPTIONS = {
    "pretrain.json": [{"caption": "Grinning Face, happy"}, {"caption": "face with tongue"}],
    "train.json": [{"caption": "grinning face"}],
    "val.json": [{"caption": ["zebra", "zebra"]}],
    "val_gt.json": {"annotations": []},
}


def test_annotations_and_pictures_are_unpacked(tmp_path):
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    for name, content in CAPTIONS.items():
        (source / name).write_text(json.dumps(content))
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
