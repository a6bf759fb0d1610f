"""The SHA-256 of a file, which stands beside it as NAME.sha256 once it is downloaded."""

import contextlib
import hashlib
import os
import re
from pathlib import Path

from models.errors import UserError
from models.paths import atomic_write, open_regular

_BLOCK = 1 << 20  # bytes read at once


def file_digest(path: Path) -> str:
    """The SHA-256 of a file."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def keep_digest(path: Path, digest: str) -> None:
    """Write a file's SHA-256 beside it, as `sha256sum -c NAME.sha256` reads it; where it cannot be, there is none."""
    with contextlib.suppress(OSError), atomic_write(digest_file(path)) as temporary:
        temporary.write_text(f"{digest}  {path.name}\n", encoding="utf-8", errors="surrogateescape")


def kept_digest(path: Path) -> str | None:
    """The SHA-256 that is kept of a file; None where there is none that can be read.

    It stands beside the file, or is the name of the file in the cache of the Hugging Face hub.
    """
    with contextlib.suppress(UserError), open_regular(digest_file(path)) as file:
        for line in file.read(_BLOCK).decode("utf-8", "surrogateescape").splitlines():
            match = re.fullmatch(r"([0-9a-fA-F]{64})(?:[ \t]+\*?(.*?))?\s*", line)
            if match and match[2] in (None, "", path.name):
                return match[1].lower()
    real = Path(os.path.realpath(path))
    return real.name if real.parent.name == "blobs" and re.fullmatch("[0-9a-f]{64}", real.name) else None


def digest_file(path: Path) -> Path:
    """Where a file's SHA-256 stands."""
    return path.with_name(f"{path.name}.sha256")
