"""Whether a file of weights holds what was written into it, and whether its weights are numbers.

Three digests tell: a zip of torch.save has a CRC32 of each tensor, which torch itself does not look at; safetensors
files written here have a SHA-256 of each tensor; beside a download lies the SHA-256 of the whole file, as NAME.sha256.
To check reads the whole file, and takes a core about half a second a GB besides.
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


def save_safetensors(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Write a safetensors file with the SHA-256 of each tensor in its metadata, under `blip_sha256`."""
    digests = {name: _tensor_digest(tensor) for name, tensor in tensors.items()}
    save_file(dict(tensors), path, {**metadata, _DIGESTS: json.dumps(digests)})


def verify_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bool:
    """Check what was read of a safetensors file against the digests in its metadata; whether there are such.

    Raises:
        DamagedFile: a tensor (the first one is named) differs from what `save_safetensors` wrote.
    """
    if _DIGESTS not in metadata:
        return False
    try:
        written = dict(json.loads(metadata[_DIGESTS]))
        names = set(written) ^ set(tensors)
    except (ValueError, TypeError, RecursionError):
        raise DamagedFile(f"{path} is damaged: the digests of its tensors ({_DIGESTS}) cannot be read") from None
    different = next((name for name, tensor in tensors.items() if written.get(name) != _tensor_digest(tensor)), None)
    if names or different is not None:
        name = one_line(sorted(names)[0] if names else different)
        raise DamagedFile(f"{path} is damaged: its tensor {name} is not what was written (the SHA-256 differs)")
    return True


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
