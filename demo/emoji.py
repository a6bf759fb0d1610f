"""Unpack the emoji pictures and their words: `python -m demo.emoji --source FOLDER [--out output/emoji]`"""

import argparse
import json
import os
import shutil
import sys
import zipfile
from pathlib import Path

from data.shapes.wordpiece import frequent_words, wordpiece_vocabulary
from files import atomic_write

_TRAINING = ("pretrain.json", "train.json")
_ANNOTATIONS = (*_TRAINING, "val.json", "val_gt.json")
_FILES = ("images.zip", *_ANNOTATIONS)


def unpack(source: Path, out: Path) -> None:
    """Copy the annotation files of `source` to `out` and unpack images.zip beside them, what is there already apart.

    `vocab.txt`, the words of the training captions, goes with them.
    """
    out.mkdir(parents=True, exist_ok=True)
    for name in _ANNOTATIONS:
        with atomic_write(out / name) as temporary:
            shutil.copyfile(source / name, temporary)
    texts = (pair["caption"] for name in _TRAINING for pair in json.loads((out / name).read_text(encoding="utf-8")))
    with atomic_write(out / "vocab.txt") as temporary:
        temporary.write_text("\n".join(wordpiece_vocabulary(frequent_words(texts))) + "\n", encoding="utf-8")
    with zipfile.ZipFile(source / "images.zip") as pictures:
        for picture in pictures.infolist():
            target = out / picture.filename
            if not target.exists() and not picture.is_dir():
                pictures.extract(picture, out)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m demo.emoji", description=__doc__)
    parser.add_argument("--source", type=Path, required=True, help=f"folder of {', '.join(_FILES)}")
    parser.add_argument("--out", type=Path, default=Path("output/emoji"), help="folder to unpack into")
    options = parser.parse_args()
    missing = [name for name in _FILES if not (options.source / name).is_file()]
    if missing:
        sys.exit(f"demo.emoji: {options.source} has no {', '.join(missing)}")
    unpack(options.source, options.out)
    print(f"{sum(len(files) for _, _, files in os.walk(options.out / 'images')):,} pictures in {options.out}")


if __name__ == "__main__":
    main()
