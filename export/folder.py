"""The files of an export: the graphs, the vocabulary, and `model.json` with what a program must know beside them."""

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import ModelProto

from models.base import VisionLanguageModel
from models.blip import BLIPDecoder
from models.image_text import MAX_TEXT_LENGTH
from settings import UserError

LARGEST = 2 * 2**30  # bytes of a protobuf message, which a graph with its weights is


def check_folder(folder: Path) -> None:
    """Raise UserError unless `folder` is empty, or can be made."""
    if os.path.lexists(folder) and not folder.is_dir():
        raise UserError(f"--out {folder}: a file; name a folder")
    if folder.is_dir() and (held := sorted(os.listdir(folder))):
        raise UserError(f"--out {folder}: holds {held[0]} and {len(held) - 1} other files; name a new or empty folder")


def describe(model: VisionLanguageModel) -> dict[str, Any]:
    """What a program must know beside the graphs, in plain data."""
    tokens = model.tokenizer.get_vocab()
    described: dict[str, Any] = {
        "image_size": model.visual_encoder.image_size,
        "mean": model.pixels.mean,
        "std": model.pixels.std,
        "vocabulary": "vocab.txt",
        "tokens": {name: tokens[name] for name in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[DEC]", "[ENC]")},
        "longest_text": {"caption": model.text_config.max_position_embeddings, "match": MAX_TEXT_LENGTH},
    }
    if isinstance(model, BLIPDecoder):
        described |= {"prompt": model.prompt, "prompt_ids": model.prompt_ids}
    return described


def write_folder(
    folder: Path, graphs: Mapping[str, ModelProto], model: VisionLanguageModel, about: Mapping[str, Any]
) -> None:
    """Write an export whole or not at all.

    Args:
        folder: empty, or not there.
        about: goes into `model.json` as it is.

    Raises:
        UserError: a graph is too large for one file.
    """
    for name, graph in graphs.items():
        if graph.ByteSize() >= LARGEST:
            raise UserError(f"{name}.onnx would have {graph.ByteSize() / 2**30:.1f} GB; one file holds less than 2 GB")
    folder.parent.mkdir(parents=True, exist_ok=True)
    tokens = sorted(model.tokenizer.get_vocab().items(), key=lambda item: item[1])
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as name:
        made = Path(name, "made")
        made.mkdir()
        for file, graph in graphs.items():
            onnx.save(graph, made / f"{file}.onnx")
        (made / "vocab.txt").write_text("".join(f"{token}\n" for token, _ in tokens), encoding="utf-8")
        versions = {"torch": torch.__version__, "onnx": onnx.__version__}
        text = json.dumps({**about, "graphs": [*graphs], "made_with": versions}, indent=2)
        (made / "model.json").write_text(f"{text}\n", encoding="utf-8")
        if folder.is_dir():
            folder.rmdir()
        made.rename(folder)
