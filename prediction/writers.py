"""What is said of pictures: lines for people, JSON lines, files of unit vectors."""

import contextlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from files import atomic_write
from settings import UserError

Record = dict[str, Any]
"""What a task found about one picture, whose path is under `image`."""


def show(record: Record) -> Iterator[str]:
    """What a person reads of a record, a line each."""
    name = record["image"]
    if "captions" in record:
        yield from (f"{name}\t{row['log_prob']:.2f}\t{row['caption']}" for row in record["captions"])
    elif "caption" in record:
        yield f"{name}\t{record['caption']}"
    for row in record.get("answers", []):
        certainty = f"\t{row['probability']:.1%}" if "probability" in row else ""
        yield f"{name}\t{row['question']}\t{row['answer']}{certainty}"
    for row in record.get("texts", []):
        yield f"{name}\tmatch {row['match']:.1%}\tcosine {row['cosine']:.3f}\t{row['text']}"


@contextlib.contextmanager
def lines_to(path: Path | None) -> Iterator[TextIO | None]:
    """A file that appears whole when the block ends, or None."""
    if path is None:
        yield None
    else:
        with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8") as file:
            yield file


def save_features(records: Sequence[Record], texts: Sequence[str], vectors: Tensor | None, path: Path) -> None:
    """Write `image` [N, D] (and `image_tokens`, `text`), with the names of pictures and texts in the same order."""
    arrays = {"image": torch.stack([record["vector"] for record in records])}
    if "tokens" in records[0]:
        arrays["image_tokens"] = torch.stack([record["tokens"] for record in records])
    if vectors is not None:
        arrays["text"] = vectors.cpu()
    names = {"images": [record["image"] for record in records], "texts": list(texts)}
    with atomic_write(path) as temporary:
        if path.suffix == ".npz":
            plain = {name: array.numpy() for name, array in arrays.items()}
            np.savez(temporary, **plain, **{name: np.array(value, dtype=np.str_) for name, value in names.items()})
        else:
            metadata = {name: json.dumps(value) for name, value in names.items()}
            save_file({name: array.contiguous() for name, array in arrays.items()}, temporary, metadata)


def check_sidecars(paths: Iterable[Path], suffix: str) -> None:
    """Raise UserError where two pictures would write their captions into one file."""
    picture_of: dict[Path, Path] = {}
    for path in paths:
        first = picture_of.setdefault(path.with_suffix(suffix), path)
        if first != path:
            raise UserError(f"{first} and {path} would both write {path.with_suffix(suffix)}: use --out")
