"""Any pictures a person names: files, folders and globs, read in batches, broken ones set aside."""

import glob
import itertools
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from data.media.image_file import BadImage, open_image
from settings import MissingFile
from transform.image import EvalTransform


def picture_suffixes() -> set[str]:
    """The file suffixes that can be read as pictures (Pillow also knows some that it can only write, as .pdf)."""
    return {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}


def find_pictures(names: Iterable[str]) -> list[Path]:
    """The files that names mean, in their order: a file itself, a folder's pictures at any depth, a glob's matches.

    Raises:
        MissingFile: a name that means nothing.
    """
    known = picture_suffixes()
    found: dict[Path, None] = {}
    for name in names:
        path = Path(name).expanduser()
        if path.is_dir():
            paths = sorted(file for file in path.rglob("*") if file.suffix.lower() in known)
        elif path.exists():
            paths = [path]
        else:
            paths = sorted(Path(match) for match in glob.glob(str(path), recursive=True) if Path(match).is_file())
        if not paths:
            raise MissingFile(f"{name}: there is no such file, folder with pictures, or match")
        found.update(dict.fromkeys(paths))
    return list(found)


def read_batches(
    paths: Sequence[Path], image_size: int, batch_size: int, threads: int = 4
) -> Iterator[tuple[list[Path], Tensor, list[BadImage]]]:
    """Decode and resize pictures ahead of their use.

    Yields, for every `batch_size` paths: those that could be read, their pixels uint8 `[B, 3, S, S]`, and the others
    with their reasons. B may be 0.
    """
    transform = EvalTransform(image_size)

    def read(path: Path) -> Tensor | BadImage:
        try:
            return transform(open_image(path))
        except BadImage as error:
            return error

    with ThreadPoolExecutor(threads) as pool:
        batches = [list(paths[i : i + batch_size]) for i in range(0, len(paths), batch_size)]
        ahead = [[pool.submit(read, path) for path in batch] for batch in batches[:2]]
        for number, batch in enumerate(batches):
            results = [future.result() for future in ahead.pop(0)]
            for following in itertools.islice(batches, number + 2, number + 3):
                ahead.append([pool.submit(read, path) for path in following])
            readable = [
                (path, result) for path, result in zip(batch, results, strict=True) if isinstance(result, Tensor)
            ]
            empty = torch.empty(0, 3, image_size, image_size, dtype=torch.uint8)
            yield (
                [path for path, _ in readable],
                torch.stack([pixels for _, pixels in readable]) if readable else empty,
                [result for result in results if isinstance(result, BadImage)],
            )
