"""Find the weights that a name, URL, path or Hugging Face repository stands for, and read them without running code."""

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

import huggingface_hub
from safetensors import safe_open
from torch import Tensor

from models.errors import one_line
from models.paths import open_regular
from models.token_files import folder_tokens
from models.weights.address import is_web_address, request_address
from models.weights.download import DownloadError, cache_dir, download, offline
from models.weights.included import INCLUDED
from models.weights.integrity import CheckpointError, DamagedFile, checkpoint_of, verify_digest, verify_tensors
from models.weights.released import RELEASED, find_released
from models.weights.unpickle import HEAD, check_tensors, unlike_weights, unpickle

State = dict[str, Tensor]

_LONGEST_JSON = 64 << 20  # bytes of a Hugging Face folder's JSON files; that of thousands of weights has 1 MB
_PROCESSORS = ("processor_config.json", "preprocessor_config.json")
_VOCABULARIES = ("vocab.txt", "tokenizer.json")
_WRAPPERS = {"module.": "DistributedDataParallel", "_orig_mod.": "torch.compile"}


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
        source: a name of `models.weights.released` (`model_base`) or of `models.weights.included` (`demo_caption`), an
            http(s) URL, a file (PyTorch's `.pth`, or `.safetensors`), a folder in the Hugging Face layout, or the name
            of a hub repository (`owner/name`).

    Returns:
        the tensors by key, and what else the checkpoint holds (`config`, `epoch`, `optimizer`, ...; for safetensors,
        what `save_safetensors` was given as `checkpoint`; for a Hugging Face folder, its `config.json` under `config`,
        and in `architecture` the vocabulary of its tokenizer and the `pixels` of its image processor).

    Raises:
        CheckpointError: there is no such checkpoint, it is damaged, or its pickle holds more than tensors and plain
            data.
        DownloadError: it is not on this machine and cannot be downloaded.
    """
    path = find(source)
    if not path.is_dir():
        return _read_file(path)
    config = path / "config.json"
    metadata = {"config": _read_json(config)} if os.path.lexists(config) else {}
    architecture: dict[str, Any] = {}
    if tokens := folder_tokens(path):
        architecture["vocabulary"] = tokens
    if pixels := _folder_pixels(path):
        architecture["pixels"] = pixels
    if architecture:
        metadata["architecture"] = architecture
    return _read_folder(path), metadata


def _folder_pixels(folder: Path) -> dict[str, Any] | None:
    """Mean and deviation of pixels in a Hugging Face folder's image processor; None without one."""
    file = next((folder / name for name in _PROCESSORS if os.path.lexists(folder / name)), None)
    if file is None:
        return None
    values = _read_json(file)
    processor = values.get("image_processor", values)  # where one file has the tokenizer's settings too
    if not isinstance(processor, dict) or "image_mean" not in processor:
        return None
    return {"mean": processor["image_mean"], "std": processor.get("image_std")}


def find(source: str | Path) -> Path:
    """Find the file or folder that `source` names (see `read_state`), downloading it to the cache if necessary."""
    text = os.fspath(source)
    path = Path(os.path.expanduser(text))
    if os.path.exists(path):
        return path
    if included := INCLUDED.get(text):
        if included.exists():
            return included
        raise CheckpointError(
            f"{text} comes with the repository, as {included}, which is not here: copy its folder too"
        )
    if entry := RELEASED.get(text.removesuffix(".pth")):
        return download(entry.url, cache_dir() / f"{entry.name}.pth", sha256=entry.sha256, size=entry.size)
    if is_web_address(text):
        entry = find_released(text)
        if entry and entry.url == text:
            return find(entry.name)
        request_address(text)
        return download(text, cache_dir() / _cached_name(text))
    if re.fullmatch(r"[\w-][\w.-]{,95}/[\w.-]{1,96}", text) and path.suffix not in {
        ".pth",
        ".pt",
        ".bin",
        ".safetensors",
    }:
        return hub_folder(text)
    is_folder = path.suffix == ".pth" and os.path.isdir(path.parent)
    beside = sorted(file.name for file in path.parent.glob("*.pth")) if is_folder else []
    names = [
        *get_close_matches(text[:100], [*RELEASED, *INCLUDED], n=1),
        *(one_line(path.with_name(name)) for name in beside[:8]),
    ]
    hint = f"; did you mean {' or '.join(names)}?" if names else ""
    raise CheckpointError(
        f"no checkpoint {one_line(repr(text))}: it is no file or folder here, no http(s) address, no hub name "
        f"(owner/name), and no released checkpoint (docs/checkpoints.md lists them){hint}"
    )


def _cached_name(address: str) -> str:
    """The name of an address's file in the cache: its own, after a hash, as files of two addresses may share a name."""
    name = re.sub(r"[^\w.%+~=@,-]", "_", re.split("[?#]", address)[0].rsplit("/", 1)[-1], flags=re.ASCII)
    return f"{hashlib.sha256(address.encode()).hexdigest()[:8]}-{name[-100:]}"


def hub_folder(name: str) -> Path:
    """Download a Hugging Face repository's weights and configuration to the hub's cache -> their folder."""
    fetch = partial(huggingface_hub.snapshot_download, name, local_files_only=offline())
    try:
        folder = Path(fetch(allow_patterns=["config.json", *_PROCESSORS, *_VOCABULARIES, "model*.safetensors*"]))
        if not any(folder.glob("model*.safetensors")):  # older repositories hold a pickle only
            fetch(allow_patterns=["pytorch_model*.bin*"])
        return folder
    except Exception as error:  # the hub's own, and those of the library beneath it
        raise DownloadError(
            f"cannot fetch {name} from the Hugging Face hub, and no file or folder of that name is here: "
            f"{one_line(str(error).partition(chr(10))[0])}\n"
            f"Fetch model.safetensors and config.json of https://huggingface.co/{name} by any other means, "
            f"put them into a folder, and name that folder instead, or let it be {name} in the working directory."
        ) from error


def _read_folder(folder: Path) -> State:
    """Read all tensors of a Hugging Face folder, from one file or several."""
    state: State = {}
    holder: dict[str, str] = {}
    for file in _weight_files(folder):
        for key, tensor in _read_file(file)[0].items():
            if key in state:
                raise CheckpointError(
                    f"{folder}: {holder[key]} and {file.name} both hold {one_line(key)}: remove the older one"
                )
            state[key], holder[key] = tensor, file.name
    return state


def _weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights of a Hugging Face folder: one, or all those of its index."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        stem, suffix = name.split(".")
        index = folder / f"{name}.index.json"
        if os.path.lexists(folder / name):
            return [folder / name]
        files = sorted(folder.glob(f"{stem}*.{suffix}"))
        wanted = _indexed(index) if os.path.lexists(index) else _numbered([file.name for file in files])
        if missing := sorted(wanted - {file.name for file in files}):
            others = f" and {len(missing) - 8} others" if len(missing) > 8 else ""
            names = ", ".join(one_line(name) for name in missing[:8])
            raise CheckpointError(f"{folder} lacks {names}{others}: fetch what is missing")
        if files:
            return [folder / name for name in sorted(wanted)] or files
    names = ", ".join(file.name for file in sorted(folder.glob("*.pth")))
    hint = f"; if you mean one of its files, name that: {names}" if names else ""
    raise CheckpointError(f"{folder} holds no weights: expected model.safetensors or pytorch_model.bin in it{hint}")


def _indexed(index: Path) -> set[str]:
    """The names of the files that an index lists."""
    names = _read_json(index).get("weight_map")
    values = list(names.values()) if isinstance(names, dict) else []
    odd = [name for name in values if not isinstance(name, str) or name != os.path.basename(name) or "\0" in name]
    if odd or not values:
        raise CheckpointError(f"{index}: its weight_map gives no file of this folder for each weight: fetch it again")
    return set(values)


def _numbered(names: Sequence[str]) -> set[str]:
    """The names of all files that belong to those numbered `...-00001-of-00003...`."""
    wanted: set[str] = set()
    for name in names:
        if match := re.fullmatch(r"(.*-)\d{5}-of-(\d{5})(\..*)", name):
            wanted.update(f"{match[1]}{number:05}-of-{match[2]}{match[3]}" for number in range(1, int(match[2]) + 1))
    return wanted


def _read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file of a Hugging Face folder, which holds a mapping."""
    with open_regular(path) as file:
        content = file.read(_LONGEST_JSON + 1)
    try:
        if len(content) > _LONGEST_JSON:
            raise ValueError(f"it has more than {_LONGEST_JSON:,} bytes")
        values = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON ({one_line(error)}): fetch it again") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} holds a {type(values).__name__} where settings by name are expected")
    return values


def _read_file(path: Path) -> tuple[State, dict[str, Any]]:
    try:
        return _read_safetensors(path) if path.suffix == ".safetensors" else _read_pth(path)
    except DamagedFile as error:
        real, cache = Path(os.path.realpath(path)), Path(os.path.abspath(cache_dir()))
        if real.parent.name != "blobs" and cache not in Path(os.path.abspath(path)).parents:
            raise
        raise DamagedFile(f"{error}. Delete {real} and run again: it is then downloaded anew") from error


def _read_safetensors(path: Path) -> tuple[State, dict[str, Any]]:
    with open_regular(path) as file:  # a named pipe would be waited for
        head = file.read(HEAD)
    try:
        with safe_open(path, framework="pt") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (it is no mapping)
            metadata = file.metadata() or {}
    except Exception as error:  # of the library's own, Python's and torch's kinds
        raise DamagedFile(f"{path} is not a whole safetensors file ({unlike_weights(head, error)})") from error
    if not verify_tensors(path, state, metadata):
        verify_digest(path)
    if not state:
        raise CheckpointError(f"{path} holds no weights")
    return check_tensors(path, state), checkpoint_of(path, metadata)


def _read_pth(path: Path) -> tuple[State, dict[str, Any]]:
    content = unpickle(path)
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds a {type(content).__name__} where a dictionary of weights is expected")
    key = next((key for key in ("model", "state_dict") if isinstance(content.get(key), Mapping)), None)
    state = content if key is None else content[key]
    others = [one_line(repr(name), 60) for name, value in state.items() if not isinstance(value, Tensor)]
    if others or not state:
        where = "" if key is None else f" under {key!r}"
        raise CheckpointError(
            f"{path} holds no weights: expected tensors{where} or a dictionary of them under 'model'; "
            f"found {', '.join(others[:8]) or 'nothing'}"
        )
    metadata = {} if key is None else {name: value for name, value in content.items() if name != key}
    return check_tensors(path, state), metadata
