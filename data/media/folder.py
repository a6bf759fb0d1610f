"""Pictures from files, folders and globs, read in batches; those that cannot be read are returned with the reason."""

import glob
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
    """The file suffixes that can be read as pictures (Pillow also knows some that it can only write, such as .pdf)."""
    return {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}


def find_pictures(names: Iterable[str]) -> list[Path]:
    """The picture files that `names` stand for, in their order.

    A name is a file, a folder (its pictures at any depth) or a glob.

    Raises:
        MissingFile: for a name that matches nothing.
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
    """Decode and resize pictures in threads, ahead of their use.

    Yields, for every `batch_size` paths: those that could be read, their pixels uint8 `[B, 3, S, S]`, and an error for
    each of the others. B may be 0.
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
            for following in batches[number + 2 : number + 3]:
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
