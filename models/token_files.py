"""Lists of tokens as they stand in files: one token a line, or a tokenizer in the Hugging Face layout."""

import json
import os
from pathlib import Path

from models.errors import ConfigError, MissingFile
from models.paths import open_regular

_LARGEST = 64 * 2**20  # bytes of a vocabulary file
_ZIP = b"PK\x03\x04"  # how a file of torch.save begins


def read_tokens(path: Path) -> list[str] | None:
    """The tokens of a file that holds one a line; None where it is a checkpoint (of torch.save, or safetensors).

    Raises:
        MissingFile: there is no such file.
        UnreadableFile: it is no file, or cannot be opened.
        ConfigError: it is no text, or too large to be a list of tokens.
    """
    try:
        opened = open_regular(path)
    except MissingFile:
        raise MissingFile(
            f"vocabulary file {path} does not exist; it should hold one token a line, or be a checkpoint that "
            "carries its vocabulary"
        ) from None
    with opened as file:
        start = file.read(len(_ZIP))
        if start == _ZIP or path.suffix == ".safetensors":
            return None
        content = start + file.read(_LARGEST)
    if len(content) > _LARGEST:
        raise ConfigError(f"vocabulary file {path} has more than {_LARGEST:,} bytes: it is no list of tokens")
    try:
        lines = content.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ConfigError(f"vocabulary file {path} is not UTF-8 text ({error.reason})") from None
    if not lines[-1]:  # what follows the last line's end
        del lines[-1]
    return [line.rstrip("\r") for line in lines]


def folder_tokens(folder: Path) -> list[str] | None:
    """The tokens of a folder in the Hugging Face layout, from `vocab.txt` or `tokenizer.json`; None without either."""
    if os.path.exists(folder / "vocab.txt"):
        return read_tokens(folder / "vocab.txt")
    file = folder / "tokenizer.json"
    if not os.path.exists(file):
        return None
    try:
        with open_regular(file) as opened:
            ids = json.loads(opened.read(_LARGEST))["model"]["vocab"]
        tokens = sorted(ids, key=ids.__getitem__)
        if [ids[token] for token in tokens] != list(range(len(tokens))):
            raise ValueError(f"its ids are not 0 to {len(tokens) - 1}, each once")
        return tokens
    except (AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{file} holds no WordPiece vocabulary ({type(error).__name__}: {error})") from None
