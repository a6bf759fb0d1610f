"""Whether a file of weights holds what was written into it, and whether its weights are numbers.

Three digests tell: a zip of torch.save has a CRC32 of each tensor, which torch itself does not look at; safetensors
files written here have a SHA-256 of each tensor, and of what else a checkpoint holds; beside a download lies the
SHA-256 of the whole file, as NAME.sha256. To check reads the whole file, and takes a core about half a second a GB
besides.
"""

import errno
import hashlib
import json
import struct
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from models.errors import UserError, one_line
from models.weights.digest import digest_file, file_digest, kept_digest

_FOLDER = 0x10  # the attribute of a folder, by which torch would read a record as empty
_DIGESTS = "blip_sha256"  # the key of our tensors' digests in the metadata of a safetensors file
_CHECKPOINT = "blip_checkpoint"  # the key, there, of what a checkpoint holds beside its weights, as JSON
_OF_CHECKPOINT = "__metadata__"  # the name of its digest among those of the tensors, none of which can be called so
_MOST_RECORDS = 100_000  # torch reads some thousands a second
_NAMED = 8  # most keys that a message names


class CheckpointError(UserError, ValueError):
    """A checkpoint that cannot be read, or does not fit the model."""


class DamagedFile(CheckpointError):
    """A file that holds something else than was written into it."""


class NotFiniteWeights(CheckpointError):
    """Weights that are NaN or infinite, of which nothing can be computed."""


def verify_zip(path: Path) -> bool:
    """Check every record of a zip (the format of torch.save) against its CRC32, in little memory.

    Returns whether there are checksums: `torch.serialization.set_crc32_options(False)` writes zeros in their place.

    Raises:
        DamagedFile: a record (the first one is named) differs from what was written, or the file is no whole zip.
        OSError: the file cannot be read.
    """
    # Beside BadZipFile, what zipfile raises of a damaged record: a method or a version that there is not, an encrypted
    # record (RuntimeError), numbers and names that cannot be, an end that comes too early.
    damages = (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError, struct.error, zlib.error)
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
            # torch stores records as they are, and would take a packed one's bytes for a tensor's.
            odd = [
                record.filename
                for record in records
                if record.compress_type != zipfile.ZIP_STORED or record.external_attr & _FOLDER
            ]
            too_many = len(records) > _MOST_RECORDS
            overlap = sum(record.file_size for record in records) > path.stat().st_size  # reading might take for ever
            has_checksums = any(record.CRC for record in records)
            broken = archive.testzip() if has_checksums and not (odd or overlap or too_many) else None
    except damages as error:
        raise DamagedFile(f"{path} is damaged or cut off ({error or 'it ends too early'})") from None
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise DamagedFile(f"{path} is damaged: it points outside of itself") from None
    if too_many:
        raise DamagedFile(f"{path} is damaged: it has {len(records):,} records, where torch.save writes one a tensor")
    if odd:
        raise DamagedFile(f"{path} is damaged: its record {odd[0]!r} is packed or a folder, as torch.save writes none")
    if overlap:
        raise DamagedFile(f"{path} is damaged: its records are larger than the file")
    if broken is not None:
        raise DamagedFile(f"{path} is damaged: its record {broken!r} is not what was written (the checksum differs)")
    return has_checksums


def save_safetensors(
    tensors: Mapping[str, Tensor],
    path: Path,
    metadata: Mapping[str, str],
    checkpoint: Mapping[str, Any] | None = None,
) -> None:
    """Write a safetensors file with the SHA-256 of each tensor in its metadata, under `blip_sha256`.

    The same content gives the same bytes.

    Args:
        checkpoint: what a checkpoint holds beside its weights (`architecture`, `config`), in plain data, for
            `models.weights.files.read_state` to return.
    """
    digests, told = {name: _tensor_digest(tensor) for name, tensor in tensors.items()}, dict(metadata)
    if checkpoint is not None:
        told[_CHECKPOINT] = json.dumps(checkpoint, sort_keys=True)
        digests[_OF_CHECKPOINT] = _text_digest(told[_CHECKPOINT])
    save_file(dict(tensors), path, {**told, _DIGESTS: json.dumps(digests)})
    _sort_metadata(path)


def _sort_metadata(path: Path) -> None:
    """Bring the metadata of a safetensors file into the order of its keys: the library's is another in each process."""
    with open(path, "r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        if len(text) <= size:  # as written by the library, but for the order
            file.seek(8)
            file.write(text.ljust(size))


def checkpoint_of(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """What `save_safetensors` was given as `checkpoint`; {} of a file that holds no such thing.

    Raises:
        CheckpointError: its metadata holds something else there.
    """
    try:
        checkpoint = json.loads(metadata.get(_CHECKPOINT, "{}"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: its metadata {_CHECKPOINT} is not JSON ({one_line(error)})") from None
    if not isinstance(checkpoint, dict):
        raise CheckpointError(f"{path}: its metadata {_CHECKPOINT} is a {type(checkpoint).__name__}, not an object")
    return checkpoint


def verify_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bool:
    """Check what was read of a safetensors file against the digests in its metadata; whether there are such.

    Raises:
        DamagedFile: a tensor (the first one is named), or what the file holds beside them, differs from what
            `save_safetensors` wrote.
    """
    if _DIGESTS not in metadata:
        return False
    try:
        written = dict(json.loads(metadata[_DIGESTS]))
        of_checkpoint = written.pop(_OF_CHECKPOINT, None)
        names = set(written) ^ set(tensors)
    except (ValueError, TypeError, RecursionError):
        raise DamagedFile(f"{path} is damaged: the digests of its tensors ({_DIGESTS}) cannot be read") from None
    different = next((name for name, tensor in tensors.items() if written.get(name) != _tensor_digest(tensor)), None)
    if names or different is not None:
        name = one_line(sorted(names)[0] if names else different)
        raise DamagedFile(f"{path} is damaged: its tensor {name} is not what was written (the SHA-256 differs)")
    if of_checkpoint != (_text_digest(metadata[_CHECKPOINT]) if _CHECKPOINT in metadata else None):
        raise DamagedFile(f"{path} is damaged: its {_CHECKPOINT} is not what was written (the SHA-256 differs)")
    return True


def _text_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _tensor_digest(tensor: Tensor) -> str:
    """The SHA-256 of a tensor's dtype, shape and bytes."""
    digest = hashlib.sha256(f"{tensor.dtype} {list(tensor.shape)}\n".encode())
    digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def verify_digest(path: Path) -> None:
    """Check a file against the SHA-256 that is kept of it, if one is.

    Raises:
        DamagedFile: it is another.
    """
    kept = kept_digest(path)
    if kept is not None and (found := file_digest(path)) != kept:
        where = digest_file(path) if digest_file(path).exists() else "the cache"
        raise DamagedFile(f"{path} is damaged, or was replaced: its SHA-256 is {found}, and {where} says {kept}")


def check_finite(tensors: Iterable[tuple[str, Tensor]], source: Any) -> None:
    """Raise NotFiniteWeights, with the first keys, where a floating-point tensor holds NaN or infinity."""
    finite = {name: tensor.isfinite().all() for name, tensor in tensors if tensor.is_floating_point()}
    if not finite:
        return
    whole = torch.stack(list(finite.values())).tolist()  # asks the device once
    broken = [one_line(name) for name, is_finite in zip(finite, whole, strict=True) if not is_finite]
    if broken:
        others = f" and {len(broken) - _NAMED} others" if len(broken) > _NAMED else ""
        raise NotFiniteWeights(f"the weights of {source} are not finite: keys {', '.join(broken[:_NAMED])}{others}")
