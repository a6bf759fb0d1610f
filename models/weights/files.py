"""Find the weights that a name, URL, path or Hugging Face repository stands for, and read them without running code."""

import hashlib
import json
import pickle
import re
import zipfile
from collections.abc import Mapping
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

import huggingface_hub
import torch
from huggingface_hub.utils import HFValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from models.errors import UserError
from models.vocabulary import folder_tokens
from models.weights.download import DownloadError, cache_dir, download, offline
from models.weights.integrity import verify_zip
from models.weights.released import RELEASED, find_released

State = dict[str, Tensor]

_WRAPPERS = {"module.": "DistributedDataParallel", "_orig_mod.": "torch.compile"}


class CheckpointError(UserError, ValueError):
    """A checkpoint that cannot be read, or does not fit the model."""


def without_wrappers(state: State) -> tuple[State, tuple[str, ...]]:
    """Strip the key prefixes of wrappers such as `DistributedDataParallel` -> the state, and the wrappers' names."""
    stripped = []
    while prefix := next((p for p in _WRAPPERS if state and all(key.startswith(p) for key in state)), None):
        state = {key.removeprefix(prefix): tensor for key, tensor in state.items()}
        stripped.append(_WRAPPERS[prefix])
    return state, tuple(stripped)


def read_state(source: str | Path) -> tuple[State, dict[str, Any]]:
    """Read the weights that `source` names, on the CPU, as they are stored.

    Args:
        source: a name of `models.weights.released` (`model_base`), an http(s) URL, a file (PyTorch's `.pth`, or
            `.safetensors`), a folder in the Hugging Face layout, or the name of a hub repository (`owner/name`).

    Returns:
        the tensors by key, and what else the checkpoint holds (`config`, `epoch`, `optimizer`, ...; for a Hugging Face
        folder, its `config.json` under `config`, and the vocabulary of its tokenizer in `architecture`).

    Raises:
        CheckpointError: there is no such checkpoint, it is damaged, or its pickle holds more than tensors and plain
            data.
        DownloadError: it is not on this machine and cannot be downloaded.
    """
    path = find(source)
    if not path.is_dir():
        return _read_file(path)
    config = path / "config.json"
    metadata = {"config": json.loads(config.read_text(encoding="utf-8"))} if config.is_file() else {}
    if tokens := folder_tokens(path):
        metadata["architecture"] = {"vocabulary": tokens}
    return _read_folder(path), metadata


def find(source: str | Path) -> Path:
    """Find the file or folder that `source` names (see `read_state`), downloading it to the cache if necessary."""
    path = Path(source).expanduser()
    if path.exists():
        return path
    text = str(source)
    if entry := RELEASED.get(text.removesuffix(".pth")):
        return download(entry.url, cache_dir() / f"{entry.name}.pth", sha256=entry.sha256, size=entry.size)
    if text.startswith(("http://", "https://")):
        entry = find_released(text)
        if entry and entry.url == text:
            return find(entry.name)
        # Files of different URLs may have the same name, so the cached one starts with a hash of the URL.
        name = text.split("?")[0].rsplit("/", 1)[-1]
        return download(text, cache_dir() / f"{hashlib.sha256(text.encode()).hexdigest()[:8]}-{name}")
    if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", text) and path.suffix not in {".pth", ".pt", ".bin", ".safetensors"}:
        return hub_folder(text)
    beside = sorted(file.name for file in path.parent.glob("*.pth")) if path.suffix == ".pth" else []
    names = [*get_close_matches(text, RELEASED, n=1), *(str(path.with_name(name)) for name in beside[:8])]
    hint = f"; did you mean {' or '.join(names)}?" if names else ""
    raise CheckpointError(
        f"no checkpoint {text!r}: it is no file or folder here, no address, no hub name (owner/name), "
        f"and no released checkpoint (docs/checkpoints.md lists them){hint}"
    )


def hub_folder(name: str) -> Path:
    """Download a Hugging Face repository's weights and configuration to the hub's cache -> their folder."""
    fetch = partial(huggingface_hub.snapshot_download, name, local_files_only=offline())
    try:
        folder = Path(fetch(allow_patterns=["config.json", "vocab.txt", "model*.safetensors*"]))
        if not any(folder.glob("model*.safetensors")):  # older repositories hold a pickle only
            fetch(allow_patterns=["pytorch_model*.bin*"])
        return folder
    except (HFValidationError, OSError) as error:
        raise DownloadError(
            f"cannot fetch {name} from the Hugging Face hub, and no file or folder of that name is here: "
            f"{str(error).splitlines()[0]}\n"
            f"Fetch model.safetensors and config.json of https://huggingface.co/{name} by any other means, "
            f"put them into a folder, and name that folder instead, or let it be {name} in the working directory."
        ) from error


def _read_folder(folder: Path) -> State:
    """Read all tensors of a Hugging Face folder, from one file or several."""
    for pattern in ("model*.safetensors", "pytorch_model*.bin"):
        files = sorted(folder.glob(pattern))
        if files:
            return {key: tensor for file in files for key, tensor in _read_file(file)[0].items()}
    names = ", ".join(file.name for file in sorted(folder.glob("*.pth")))
    hint = f"; if you mean one of its files, name that: {names}" if names else ""
    raise CheckpointError(f"{folder} holds no weights: expected model.safetensors or pytorch_model.bin in it{hint}")


def _read_file(path: Path) -> tuple[State, dict[str, Any]]:
    if path.suffix == ".safetensors":
        try:
            return load_file(path), {}
        except SafetensorError as error:
            raise CheckpointError(f"{path} is not a whole safetensors file ({error}): fetch it again") from error
    content = _unpickle(path)
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds a {type(content).__name__} where a dictionary of weights is expected")
    key = next((key for key in ("model", "state_dict") if isinstance(content.get(key), Mapping)), None)
    state = content if key is None else content[key]
    others = [name for name, value in state.items() if not isinstance(value, Tensor)]
    if others or not state:
        where = "" if key is None else f" under {key!r}"
        raise CheckpointError(
            f"{path} holds no weights: expected tensors{where} or a dictionary of them under 'model'; "
            f"found {', '.join(map(repr, others[:8])) or 'nothing'}"
        )
    return dict(state), {} if key is None else {name: value for name, value in content.items() if name != key}


def _unpickle(path: Path) -> Any:
    """Call torch.load so that it runs no code, once the file's checksums hold, with errors that say what to do."""
    zipped = zipfile.is_zipfile(path)
    if zipped:
        verify_zip(path)
    try:
        # With mmap, the optimizer's state beside the weights costs no memory; only zip files support it.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        with path.open("rb") as file:
            is_pickle = zipped or file.read(1) == b"\x80"
        if not is_pickle or not isinstance(error, pickle.UnpicklingError):
            raise CheckpointError(f"{path} is not a PyTorch file, or a damaged one: fetch it again") from error
        found = re.search(r"GLOBAL (\S+)", str(error))
        raise CheckpointError(
            f"{path} is refused: its pickle holds {found[1] if found else 'objects'} besides tensors and plain data, "
            "and reading that could run code. If you trust where it comes from, keep only its weights first:\n"
            f'  python -c "import torch; content = torch.load({str(path)!r}, weights_only=False); '
            "torch.save({'model': content['model']}, 'weights.pth')\""
        ) from error
