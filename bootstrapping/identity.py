"""What a CapFilt run is of: its corpus, its checkpoints by hash, its settings. A restart must be of the same."""

import hashlib
import json
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bootstrapping.scores import RUN_FILE
from files import atomic_write, open_regular, without_secrets
from models.weights.files import find
from settings import ConfigError, MissingFile

_BLOCK = 1 << 22


def checkpoint_identity(source: str) -> dict[str, str]:
    """The name of a checkpoint and the SHA-256 of its weights (of a folder: of all its files of weights, by name)."""
    path = find(source)
    weights = (file for file in path.iterdir() if file.suffix in (".safetensors", ".bin")) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in sorted(weights):
        with open_regular(file) as content:
            while block := content.read(_BLOCK):
                digest.update(block)
    return {"source": without_secrets(source), "sha256": digest.hexdigest()}


def versions() -> dict[str, str]:
    """The versions of Python and of what computes and stores the scores."""
    found = {"python": platform.python_version()}
    for package in ("torch", "tokenizers", "pillow", "pyarrow"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def claim_folder(folder: Path, identity: Mapping[str, Any], places: Mapping[str, Any]) -> None:
    """Note in the output folder what the run is of, or check that the run there is of the same.

    Args:
        places: where the corpus is now, which may have been moved; for the choice, which reads pictures and shards.

    Raises ConfigError for a folder of another run, with what differs.
    """
    file = folder / RUN_FILE
    known = json.loads(json.dumps({**identity, "places": places}))  # as it is read back
    try:
        with open_regular(file) as content:
            earlier = json.loads(content.read())
    except MissingFile:
        earlier = None
    except (ValueError, RecursionError):
        raise ConfigError(f"{file} is damaged: it is no JSON; choose another --output_dir") from None
    if earlier is not None and (differences := _differences(earlier, known)):
        raise ConfigError(
            f"{folder} holds the scores of another run ({'; '.join(differences[:4])}): choose another --output_dir, or "
            "delete the folder"
        )
    if earlier != known:
        with atomic_write(file) as temporary:
            temporary.write_text(json.dumps(known, indent=1), encoding="utf-8")


_HASHES = {"source": "sha256", "sources": "digest"}
"""What a checkpoint and a corpus are called makes no difference where these are the same."""


def _differences(earlier: Any, now: Any, name: str = "") -> list[str]:
    """What differs, as `key was X, is Y now`."""
    if isinstance(earlier, dict) and isinstance(now, dict):
        same = {key for key, hashed in _HASHES.items() if hashed in now and earlier.get(hashed) == now[hashed]}
        keys = [key for key in {**earlier, **now} if key not in same and (name, key) != ("", "places")]
        return [
            difference
            for key in keys
            for difference in _differences(earlier.get(key), now.get(key), f"{name}.{key}" if name else key)
        ]
    return [] if earlier == now else [f"{name} was {_short(earlier)}, is {_short(now)} now"]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
