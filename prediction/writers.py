"""Where predictions about pictures go: lines, files beside the pictures, files of unit vectors, strips of heat maps.

A writer is a context that yields a function; the function takes the record of one picture.
"""

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor
from tqdm import tqdm

from data.media.image_file import open_image
from files import atomic_write
from models.weights.integrity import save_safetensors
from prediction.heat_maps import draw_strip, stack
from prediction.json_lines import JsonLines, Record
from settings import UserError
from settings.messages import printable

Write = Callable[[Record], None]


@contextmanager
def line_writer(
    out: Path | None, columns: Callable[[Record], Iterable[Sequence[str]]], *, append: bool
) -> Iterator[Write]:
    """Write records as JSON lines to a file, or print each as the lines of its `columns`.

    Every line is in the file when the next picture is looked at: whatever ends the run leaves what is finished.
    """

    def show(record: Record) -> None:
        for line in columns(record):
            tqdm.write("\t".join(printable(column, sys.stdout.encoding) for column in line), file=sys.stdout)

    if out is None:
        yield show
    else:
        with JsonLines(out, append=append) as lines:
            yield lines.write


@contextmanager
def sidecar_writer(suffix: str, key: str) -> Iterator[Write]:
    """Write what a record has under `key` into a file beside its picture, whose suffix becomes `suffix`."""

    def write(record: Record) -> None:
        sidecar = Path(record["image"]).with_suffix(suffix)
        with _errors_named(sidecar), atomic_write(sidecar) as temporary:
            temporary.write_text(record[key] + "\n", encoding="utf-8")

    yield write


@contextmanager
def strip_writer(file_of: Callable[[Path], Path]) -> Iterator[Write]:
    """Draw the `strips` of a record, each a label, words and their maps, below each other in the picture's file.

    A line for people says which picture and text, and where.
    """

    def write(record: Record) -> None:
        picture, out = Path(record["image"]), file_of(Path(record["image"]))
        image = open_image(picture)
        drawn = stack([draw_strip(image, words, maps, label) for label, words, maps in record["strips"]])
        with _errors_named(out), atomic_write(out) as temporary:
            drawn.save(temporary, format="PNG")
        columns = str(picture), record["text"], str(out)
        tqdm.write("\t".join(printable(column, sys.stdout.encoding) for column in columns), file=sys.stdout)

    yield write


def check_outputs(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Raise UserError for an output that is an input by this or another name, or that cannot be written.

    Names do not tell: a link, another spelling, or a file system that does not tell capitals apart.
    """
    read = {identity: path for path in inputs if (identity := _identity(path))}
    folders: set[Path] = set()
    for out in outputs:
        if same := read.get(_identity(out) or (-1, -1)):
            raise UserError(f"{out} would be written over {same}, which is read: choose another name")
        with _errors_named(out):
            if out.parent not in folders:
                folders.add(out.parent)
                _try_to_write(out)


def _identity(path: Path) -> tuple[int, int] | None:
    """The file that a path leads to, whatever its name; None where there is none.

    `new/../a.png` leads to a.png once the folder `new` is made, as it is for an output.
    """
    try:
        status = os.stat(os.path.realpath(path))
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def _try_to_write(out: Path) -> None:
    """Open a file as it will be for writing, and leave things as they were; devices and pipes are left alone."""
    out.parent.mkdir(parents=True, exist_ok=True)
    existed = os.path.lexists(out)
    if existed and not out.is_file() and not out.is_dir():
        return
    with out.open("ab"):
        pass
    if not existed:
        out.unlink()


@contextmanager
def _errors_named(out: Path) -> Iterator[None]:
    """Name the file in errors of writing it, which often do not."""
    try:
        yield
    except UserError:
        raise
    except (OSError, ValueError, SafetensorError) as error:  # a NUL in the name; names of over 100 MB
        raise UserError(f"{out}: cannot be written ({getattr(error, 'strerror', None) or error})") from error


def check_sidecars(paths: Iterable[Path], suffix: str, *, may_exist: bool) -> None:
    """Raise UserError where two pictures would write their captions into one file, or one into a file that is there."""
    picture_of: dict[Path, Path] = {}
    for path in paths:
        first = picture_of.setdefault(path.with_suffix(suffix), path)
        if first != path:
            raise UserError(f"{first} and {path} would both write {path.with_suffix(suffix)}: use --out")
    there = [] if may_exist else [sidecar for sidecar in picture_of if sidecar.exists()]
    if there:
        raise UserError(
            f"{there[0]} is there already ({len(there)} such files in all): --resume keeps what is there and describes "
            "the other pictures; or choose another suffix, or delete them"
        )


@contextmanager
def feature_writer(out: Path, texts: Sequence[str], text_vectors: Tensor | None) -> Iterator[Write]:
    """Keep records of a `vector` (and the states of all `tokens`) until the block ends, and write one file of them.

    The file holds `image` [N, D], `image_tokens` [N, T, W] and `text` [M, D], where there are such, and the names of
    pictures and texts in the same order. It is not written where there is no picture.
    """
    records: list[Record] = []
    yield records.append
    if not records:
        return
    tensors = {"image": torch.stack([record["vector"] for record in records])}
    if "tokens" in records[0]:
        tensors["image_tokens"] = torch.stack([record["tokens"] for record in records])
    if text_vectors is not None:
        tensors["text"] = text_vectors.cpu()
    names = {"images": [record["image"] for record in records], "texts": list(texts)}
    if out.exists() and not out.is_file():  # a device or pipe, which a file would replace
        raise UserError(f"--out {out} is there and is no file: choose another name")
    with _errors_named(out), atomic_write(out) as temporary:
        if out.suffix == ".npz":
            arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in tensors.items()}
            arrays |= {name: np.array(value, dtype=np.str_) for name, value in names.items()}
            np.savez(temporary, **arrays)
        else:
            metadata = {name: json.dumps(value) for name, value in names.items()}
            save_safetensors({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary, metadata)
