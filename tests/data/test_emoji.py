"""The emoji are unpacked once, and a second call leaves what is there."""

import zipfile

from data.emoji import unpack


def test_annotations_and_pictures_are_unpacked(tmp_path):
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    for name in ("pretrain.json", "train.json", "val.json", "val_gt.json"):
        (source / name).write_text(name)
    with zipfile.ZipFile(source / "images.zip", "w") as pictures:
        pictures.writestr("images/noto/1f600.png", b"picture")
    unpack(source, out)
    picture = out / "images" / "noto" / "1f600.png"
    assert picture.read_bytes() == b"picture"
    assert (out / "val_gt.json").read_text() == "val_gt.json"
    picture.write_bytes(b"kept")
    unpack(source, out)
    assert picture.read_bytes() == b"kept"
