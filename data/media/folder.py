"""Pictures from files, folders and globs, read in batches; those that cannot be read are returned with the reason."""

import glob
import os
import re
import warnings
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import torch
from PIL import Image
from torch import Tensor

from data.media.image_file import NEEDED, BadImage, open_image
from data.media.read_ahead import read_ahead
from files import open_regular
from settings import MissingFile, UserError
from transform.image import EvalTransform

Picture = TypeVar("Picture", bound=str | os.PathLike[str] | Image.Image)


def picture_suffixes() -> set[str]:
    """The file suffixes that can be read as pictures (Pillow also knows some that it can only write, such as .pdf)."""
    return {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}


def find_pictures(names: Iterable[str]) -> list[Path]:
    """The picture files that `names` stand for, in their order.

    A name is a file, a folder (its pictures at any depth, those in linked folders and those without a suffix too) or a
    glob. HEIC and JPEG XL pictures are among them also where they cannot be read, so that they are named instead of
    passed over.

    Raises:
        MissingFile: for a name that matches nothing.
        UserError: for a name that stands for nothing but such pictures, where these cannot be read.
    """
    known = picture_suffixes()
    found: dict[Path, None] = {}
    for name in names:
        path = os.path.expanduser(name)
        if os.path.isdir(path):
            paths = sorted(_pictures_below(path, known | NEEDED.keys()))
        elif os.path.lexists(path):
            paths = [Path(path)]
        else:
            paths = sorted(Path(match) for match in _glob(path) if not os.path.isdir(match))
        if not paths:
            raise MissingFile(f"{name}: there is no such file, folder with pictures, or match")
        reasons = {"" if path.suffix.lower() in known else NEEDED.get(path.suffix.lower(), "") for path in paths}
        if "" not in reasons:
            raise UserError(f"{name}: {len(paths)} of {len(paths)} pictures: {'; '.join(sorted(reasons))}")
        found.update(dict.fromkeys(paths))
    return list(found)


def _pictures_below(top: str, suffixes: set[str]) -> Iterator[Path]:
    """The pictures of a folder at any depth; those of a linked folder once, however many links lead to it.

    macOS's `._NAME` companions and `__MACOSX` folders hold no pictures. Folders that cannot be listed come as paths, to
    be named like pictures that cannot be read.
    """
    unlisted: list[str] = []
    seen: set[tuple[int, int]] = set()
    for folder, subfolders, files in os.walk(top, followlinks=True, onerror=lambda e: unlisted.append(str(e.filename))):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            subfolders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        for file in (*files, *subfolders):
            path = Path(folder, file)
            if not file.startswith("._") and (path.suffix.lower() in suffixes or _is_picture_without_suffix(path)):
                yield path
        subfolders[:] = sorted(name for name in subfolders if name != "__MACOSX")
        # what is really below goes before what is only linked to, so that a picture has the nearer of its names
        subfolders.sort(key=lambda name: os.path.islink(os.path.join(folder, name)))
    yield from map(Path, unlisted)


def _is_picture_without_suffix(path: Path) -> bool:
    """Whether a file whose name says nothing begins like a picture; hidden files are passed over."""
    if path.suffix or path.name.startswith("."):
        return False
    try:
        with open_regular(path) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large sizes; they are checked when the picture is read
            Image.open(file).close()
    except Exception:  # on what is no picture, Pillow's readers raise errors of any type
        return False
    return True


def _glob(pattern: str) -> list[str]:
    try:
        return glob.glob(pattern, recursive=True)
    except (ValueError, re.error):  # a NUL, or brackets that are no pattern
        return []


def read_batches(
    pictures: Sequence[Picture], image_size: int, batch_size: int, threads: int = 4
) -> Generator[tuple[list[Picture], Tensor, list[BadImage]], None, None]:
    """Decode and resize pictures (files, or Pillow's, in RGB) in threads, ahead of their use.

    Yields, for every `batch_size` of them: those that could be read, their pixels uint8 `[B, 3, S, S]`, and an error
    for each of the others. B may be 0.
    """

    def pixels(picture: Picture) -> Tensor:
        return transform(picture if isinstance(picture, Image.Image) else open_image(picture))

    transform = EvalTransform(image_size)
    empty = torch.empty(0, 3, image_size, image_size, dtype=torch.uint8)
    with closing(read_ahead(pictures, pixels, batch_size, threads)) as batches:
        for batch in batches:
            readable = [(picture, result) for picture, result in batch if isinstance(result, Tensor)]
            yield (
                [picture for picture, _ in readable],
                torch.stack([pixels for _, pixels in readable]) if readable else empty,
                [result for _, result in batch if isinstance(result, BadImage)],
            )
