"""Unpack the emoji pictures and their words: `python -m data.emoji --source ../shared/emoji --out output/emoji`"""

import argparse
import os
import shutil
import zipfile
from pathlib import Path

from utils import atomic_write

_ANNOTATIONS = ("pretrain.json", "train.json", "val.json", "val_gt.json")


def unpack(source: Path, out: Path) -> None:
    """Copy the annotation files of `source` to `out` and unpack images.zip beside them, what is there already apart."""
    out.mkdir(parents=True, exist_ok=True)
    for name in _ANNOTATIONS:
        with atomic_write(out / name) as temporary:
            shutil.copyfile(source / name, temporary)
    with zipfile.ZipFile(source / "images.zip") as pictures:
        for picture in pictures.infolist():
            target = out / picture.filename
            if not target.exists() and not picture.is_dir():
                pictures.extract(picture, out)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m data.emoji", description=__doc__)
    parser.add_argument(
        "--source", type=Path, default=Path("../shared/emoji"), help="folder of images.zip and its JSON"
    )
    parser.add_argument("--out", type=Path, default=Path("output/emoji"), help="folder to unpack into")
    options = parser.parse_args()
    unpack(options.source, options.out)
    print(f"{sum(len(files) for _, _, files in os.walk(options.out / 'images')):,} pictures in {options.out}")


if __name__ == "__main__":
    main()
