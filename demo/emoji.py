"""Unpack the emoji pictures and their words: `python -m demo.emoji --source FOLDER [--out output/emoji]`"""

import json
import os
import stat
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath
from typing import Any

if __name__ == "__main__":
    from settings.interrupts import exit_on_interrupt

    exit_on_interrupt()

from data.shapes.wordpiece import frequent_words, wordpiece_vocabulary
from files import atomic_write, open_regular
from settings import UserError
from settings.flags import Parser, file_path
from settings.messages import message

_TRAINING = ("pretrain.json", "train.json")
_ANNOTATIONS = (*_TRAINING, "val.json", "val_gt.json")
_FILES = ("images.zip", *_ANNOTATIONS)
_MAX_PICTURES, _MAX_PICTURE_BYTES, _MAX_BYTES = 100_000, 16 * 2**20, 2**30


def unpack(source: Path, out: Path) -> None:
    """Copy the annotation files of `source` to `out` and unpack images.zip beside them, what is there already apart.

    `vocab.txt`, the words of the training captions, goes with them.

    Raises:
        UserError: naming the file that is missing, damaged, or no such file; nothing is unpacked of an archive with
            a path that leads out of `out`, a link, or more than an archive of emoji holds.
    """
    texts = [text for name in _TRAINING for text in _captions(source / name)]
    with open_regular(source / "images.zip") as file:
        try:
            pictures = zipfile.ZipFile(file)
        except Exception as error:  # damaged archives raise errors of any type
            raise UserError(f"{source / 'images.zip'}: not a zip archive ({error})") from error
        with pictures:
            _check(pictures, source / "images.zip")
            out.mkdir(parents=True, exist_ok=True)
            for name in _ANNOTATIONS:
                with open_regular(source / name) as original, atomic_write(out / name) as temporary:
                    temporary.write_bytes(original.read())
            with atomic_write(out / "vocab.txt") as temporary:
                words = wordpiece_vocabulary(frequent_words(iter(texts)))
                temporary.write_text("\n".join(words) + "\n", encoding="utf-8")
            for picture in pictures.infolist():
                if not picture.is_dir() and not (out / picture.filename).exists():
                    _write(out / picture.filename, _content(pictures, picture, source / "images.zip"))


def _captions(file: Path) -> Iterator[str]:
    """The captions of an annotation file."""
    with open_regular(file) as opened:
        try:
            records: Any = json.load(opened)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{file}: not valid JSON ({error})") from error
    if not isinstance(records, list):
        raise UserError(f"{file}: expected a JSON list of records, found {type(records).__name__}")
    for number, record in enumerate(records):
        if not isinstance(record, dict) or not isinstance(record.get("caption"), str):
            raise UserError(f"{file}, record {number}: expected an object with a text under `caption`")
        yield record["caption"]


def _check(pictures: zipfile.ZipFile, file: Path) -> None:
    """Refuse an archive whose members would land elsewhere, or are no plain files, or too large."""
    members = pictures.infolist()
    for member in members:
        name = f"{file}: {member.filename!r}"
        path = PureWindowsPath(member.filename)  # knows both kinds of slashes, and drives
        if path.anchor or ".." in path.parts or not path.parts:
            raise UserError(f"{name} leads out of the folder it is unpacked into")
        if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise UserError(f"{name} is a link or a device, not a picture")
        if member.file_size > _MAX_PICTURE_BYTES:
            raise UserError(f"{name} unpacks to {member.file_size:,} bytes; at most {_MAX_PICTURE_BYTES:,} are taken")
    total = sum(member.file_size for member in members)
    if len(members) > _MAX_PICTURES or total > _MAX_BYTES:
        raise UserError(
            f"{file}: {len(members):,} members of {total:,} bytes; "
            f"at most {_MAX_PICTURES:,} of {_MAX_BYTES:,} are taken"
        )


def _content(pictures: zipfile.ZipFile, picture: zipfile.ZipInfo, file: Path) -> bytes:
    """The unpacked bytes of a member: never more than it states, which `_check` has bounded."""
    try:
        return pictures.read(picture)
    except Exception as error:  # as above
        raise UserError(f"{file}: {picture.filename!r} cannot be unpacked ({error})") from error


def _write(target: Path, content: bytes) -> None:
    """Write a file that is there whole or not at all, without waiting for the disk as `atomic_write` does."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.part")
    temporary.write_bytes(content)
    os.replace(temporary, target)


def main() -> None:
    parser = Parser(prog="python -m demo.emoji", description=__doc__)
    parser.add_argument("--source", type=file_path, required=True, help=f"folder of {', '.join(_FILES)}")
    parser.add_argument("--out", type=file_path, default=Path("output/emoji"), help="folder to unpack into")
    options = parser.parse_args()
    missing = [name for name in _FILES if not os.path.isfile(options.source / name)]  # pathlib's raises for long names
    if missing:
        sys.exit(message(f"demo.emoji: {options.source} has no {', '.join(missing)}", sys.stderr.encoding))
    try:
        unpack(options.source, options.out)
    except (UserError, OSError) as error:
        sys.exit(message(f"demo.emoji: {error}", sys.stderr.encoding))
    print(f"{sum(len(files) for _, _, files in os.walk(options.out / 'images')):,} pictures in {options.out}")


if __name__ == "__main__":
    main()
