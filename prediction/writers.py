"""Writers of predictions: to the terminal, as JSON lines, into files beside the pictures, or as a file of unit vectors.

A writer is a context that yields a function; this writes the record of one picture.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from files import atomic_write
from settings import UserError

Record = dict[str, Any]
"""What a task predicts about one picture, whose path is under `image`."""

Write = Callable[[Record], None]


@contextmanager
def line_writer(out: Path | None, lines: Callable[[Record], Iterable[str]]) -> Iterator[Write]:
    """Write records as JSON lines to `out`, which appears when the block ends; without `out`, print their `lines`."""

    def show(record: Record) -> None:
        for line in lines(record):
            tqdm.write(line)

    if out is None:
        yield show
    else:
        with atomic_write(out) as temporary, temporary.open("w", encoding="utf-8") as file:
            yield lambda record: print(json.dumps(record, ensure_ascii=False), file=file)


@contextmanager
def sidecar_writer(suffix: str, key: str) -> Iterator[Write]:
    """Write `record[key]` into a file beside the picture, of the same name with another suffix."""

    def write(record: Record) -> None:
        with atomic_write(Path(record["image"]).with_suffix(suffix)) as temporary:
            temporary.write_text(record[key] + "\n", encoding="utf-8")

    yield write


def check_sidecars(paths: Iterable[Path], suffix: str) -> None:
    """Raise UserError if the captions of two pictures would go into one file."""
    picture_of: dict[Path, Path] = {}
    for path in paths:
        first = picture_of.setdefault(path.with_suffix(suffix), path)
        if first != path:
            raise UserError(f"{first} and {path} would both write {path.with_suffix(suffix)}: use --out")


@contextmanager
def feature_writer(out: Path, texts: Sequence[str], text_vectors: Tensor | None) -> Iterator[Write]:
    """Collect records of a `vector` (and the states of all `tokens`), and write one file of them when the block ends.

    The file holds `image` [N, D], and `image_tokens` [N, T, W] and `text` [M, D] if there are any; and the paths of the
    pictures and the texts, in the same order. Without any picture, no file is written.
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
    with atomic_write(out) as temporary:
        if out.suffix == ".npz":
            arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in tensors.items()}
            arrays |= {name: np.array(value, dtype=np.str_) for name, value in names.items()}
            np.savez(temporary, **arrays)
        else:
            metadata = {name: json.dumps(value) for name, value in names.items()}
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary, metadata)
