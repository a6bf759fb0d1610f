"""Read what torch.save wrote, without running code, whatever the file holds in truth."""

import math
import os
import pickle
import re
import shlex
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

import torch
from torch import Tensor

from models.errors import one_line
from models.paths import open_regular
from models.weights.integrity import CheckpointError, DamagedFile, verify_digest, verify_zip

HEAD = 64  # bytes by which files of other kinds are known
_SLACK = 16 << 20  # bytes that tensors may have beyond what their file's size explains
_TIED = 8  # most names that a tensor has in a file, where all have so many

# What files start with that are mistaken for weights.
_MISTAKEN = {
    b"version https://git-lfs": "it is a pointer of Git LFS: fetch the file itself with `git lfs pull`",
    b"<!DOCTYPE": "it is a web page: fetch the file itself",
    b"<html": "it is a web page: fetch the file itself",
    bytes(8): "it starts with zeros, as a file does that was not written to its end: fetch it again",
}


def unpickle(path: Path) -> Any:
    """Call torch.load so that it runs no code, once the file's checksums hold, with errors that say what to do.

    Raises:
        UnreadableFile: it is no regular file, or cannot be opened.
        DamagedFile: it is no file of torch.save, or another than was written or downloaded.
        CheckpointError: it holds more than tensors and plain data.
    """
    with open_regular(path) as file:
        head = file.read(HEAD)
        zipped = head.startswith(b"PK") and _is_zip(file)
        if not (zipped and verify_zip(path)):
            verify_digest(path)
        file.seek(0)
        try:
            # With mmap, the optimizer's state beside the weights costs no memory; only zips of names in UTF-8 allow it.
            mapped = zipped and not re.search("[\ud800-\udfff]", os.fspath(path))
            return torch.load(path if mapped else file, map_location="cpu", weights_only=True, mmap=mapped)
        except Exception as error:  # torch's reader fails in every way there is
            refused = isinstance(error, pickle.UnpicklingError) and _REFUSED.search(str(error))
            if refused and (zipped or head[:1] == b"\x80"):
                raise CheckpointError(_refusal(path, refused[1])) from error
            raise DamagedFile(
                f"{path} is not a PyTorch file, or a damaged one ({unlike_weights(head, error)})"
            ) from error


def _is_zip(file: BinaryIO) -> bool:
    try:
        return zipfile.is_zipfile(file)
    except zipfile.BadZipFile:  # `verify_zip` says why
        return True


def unlike_weights(head: bytes, error: Exception) -> str:
    """Why a file is none of weights, by its first bytes, else by what its reader says; and what to do."""
    if known := next((why for start, why in _MISTAKEN.items() if head.startswith(start)), None):
        return known
    cause = str(error).rpartition("WeightsUnpickler error:")[2].strip().partition("\n")[0]
    if not head or re.fullmatch(rb"[\t\r\n -~]*", head):
        cause = "it is text" if head else "it is empty"
    return f"{one_line(cause) or type(error).__name__}: fetch it again"


_REFUSED = re.compile(r"GLOBAL (\S+)|Can only (?:create|build)|unrecognized function")


def _refusal(path: Path, found: str | None) -> str:
    """Why a pickle is refused, with a command that keeps its weights, safe to paste into any shell for any name.

    The name is an argument, never a part of the code; it is percent-encoded where a terminal would not print it.
    """
    name, argument = os.fspath(path), "sys.argv[1]"
    if not name.isprintable() or not name.isascii():
        name, argument = quote(os.fsencode(name)), "os.fsdecode(unquote_to_bytes(sys.argv[1]))"
    code = (
        "import os, sys, torch; from urllib.parse import unquote_to_bytes; "
        f'content = torch.load({argument}, map_location="cpu", weights_only=False); '
        'weights = content.get("model") or content.get("state_dict") or content; '
        'torch.save({"model": weights}, open("only_weights.pth", "xb"))'
    )
    return (
        f"{one_line(path)} is refused: its pickle holds {one_line(found) if found else 'objects'} besides tensors and "
        "plain data, and reading that could run code. If you trust where it comes from, keep only its weights first, "
        f"in only_weights.pth:\n  python -c {shlex.quote(code)} {shlex.quote(name)}"
    )


def check_tensors(path: Path, tensors: Mapping[Any, Any]) -> dict[str, Tensor]:
    """The tensors of a file by key, if all are plain ones, and no larger than the file can hold.

    Raises:
        CheckpointError: which key is not.
    """
    size = 0
    for key, tensor in tensors.items():
        if not isinstance(key, str):
            raise CheckpointError(f"{path}: the name of a tensor is {one_line(repr(key), 60)}, which is no text")
        if not isinstance(tensor, Tensor):
            raise CheckpointError(f"{path}: {one_line(key)} is of type {type(tensor).__name__}, not a tensor")
        kind = (
            "nested" if tensor.is_nested else "meta" if tensor.is_meta else "quantized" if tensor.is_quantized else None
        )
        if kind is None and tensor.layout is not torch.strided:
            kind = str(tensor.layout).removeprefix("torch.")
        if kind is not None:
            raise CheckpointError(f"{path}: {one_line(key)} is a {kind} tensor, where plain numbers are expected")
        size += math.prod(tensor.shape) * tensor.element_size()
    most = _TIED * path.stat().st_size + _SLACK
    if size > most:
        raise CheckpointError(f"{path}: its tensors claim {size:,} bytes, and the file has {path.stat().st_size:,}")
    return dict(tensors)
