"""Downloads: a file appears whole or not at all, broken transfers resume, and only one of several processes downloads.

A partial download lies in `.NAME.TAG.part` beside the destination; TAG is a hash of the server's version of the file
(its ETag). A later run requests only the rest, and never joins parts of two versions. The file is renamed to its final
name once its size and hash are right; its SHA-256 then stands beside it, in NAME.sha256 (see `digest`).

`BLIP_CACHE` moves the cache from `~/.cache/blip`; `BLIP_OFFLINE=1` (or `HF_HUB_OFFLINE=1`) forbids the network.
"""

import errno
import glob
import hashlib
import http.client
import logging
import os
import re
import shutil
import time
import urllib.error
from pathlib import Path

from filelock import SoftFileLease, Timeout
from tqdm import tqdm

from models.errors import UserError, one_line
from models.weights.address import AddressError, open_address, request_address, without_password
from models.weights.digest import file_digest, keep_digest, kept_digest

logger = logging.getLogger("blip.models")

_BLOCK = 1 << 20  # bytes read at once
_ATTEMPTS = 5  # attempts at one file; each resumes the last one
_LARGEST = 64 << 30  # bytes of a file whose size nobody tells
_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)")
_TRANSIENT = {408, 429, 500, 502, 503, 504}  # HTTP statuses that are worth another attempt


class DownloadError(UserError, OSError):
    """A file could not be downloaded; the message names its URL, and where to put it by hand."""


class WrongFile(DownloadError):
    """A file that is here, or that was sent, is not the expected one: its size or its hash differs."""


class _WrongAnswer(OSError):
    """What a server answers cannot be the file, and another attempt would not help."""


def cache_dir() -> Path:
    """The folder of downloaded files: `$BLIP_CACHE`, or `~/.cache/blip`."""
    return Path(os.path.expanduser(os.environ.get("BLIP_CACHE") or "~/.cache/blip"))


def offline() -> bool:
    """Whether the environment forbids the network."""
    return any(
        os.environ.get(name, "").lower() in {"1", "true", "yes", "on"} for name in ("BLIP_OFFLINE", "HF_HUB_OFFLINE")
    )


def download(url: str, path: str | Path, *, sha256: str | None = None, size: int | None = None) -> Path:
    """Download `url` to `path`, unless `path` exists -> `path`.

    If several processes call this at once, one downloads and the others wait. A file that exists must have the known
    size, and the known hash, which is computed once: then it stands beside the file.

    Args:
        url: an http or https address.
        path: the file to write.
        sha256: the expected hexadecimal digest, or its first digits.
        size: the expected size in bytes.

    Raises:
        DownloadError: no network, or the server refuses.
        WrongFile: the size or hash is wrong.
        AddressError: nothing can be fetched from such an address.
    """
    path = Path(os.path.expanduser(path))
    if _present(path, size, sha256):
        return path
    request_address(url)
    if offline():
        raise _failure(url, path, "the environment forbids the network (BLIP_OFFLINE or HF_HUB_OFFLINE is set)")
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = SoftFileLease(path.with_name(f".{path.name}.lease"))  # flock is refused by many network file systems
    try:
        lock.acquire(timeout=1)
    except Timeout:
        logger.info("waiting for another process that downloads %s", path)
        lock.acquire()
    try:
        if not _present(path, size, sha256):
            part = _fetch(url, path, size)
            keep_digest(path, _verify(part, url, path, sha256, size))
            os.replace(part, path)
    finally:
        lock.release()
    return path


def _present(path: Path, size: int | None, sha256: str | None) -> bool:
    if not os.path.isfile(path):
        return False
    found = path.stat().st_size
    if size is not None and found != size:
        raise WrongFile(f"{path} has {found:,} bytes where {size:,} are expected: delete it and run again")
    if sha256 is not None and not (kept_digest(path) or "").startswith(sha256):  # put there by hand
        digest = file_digest(path)
        if not digest.startswith(sha256):
            raise WrongFile(f"{path} has the SHA-256 {digest} where {sha256} is expected: delete it and run again")
        keep_digest(path, digest)
    return True


def _fetch(url: str, path: Path, size: int | None) -> Path:
    """Download the file into its part beside `path`, in up to `_ATTEMPTS` attempts -> the part, now whole."""
    reason = ""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return _transfer(url, path, size)
        except urllib.error.HTTPError as error:
            reason = f"the server answers {error.code} {one_line(error.reason)}"
            if error.code not in _TRANSIENT:
                raise _failure(url, path, reason) from error
        except (AddressError, UnicodeError, http.client.InvalidURL) as error:
            raise _failure(url, path, one_line(error, 500)) from error
        except (OSError, http.client.HTTPException) as error:
            reason = one_line(getattr(error, "reason", None) or error or type(error).__name__)
            if isinstance(error, _WrongAnswer) or getattr(error, "errno", None) == errno.ENOSPC:
                raise _failure(url, path, reason) from error
        if attempt < _ATTEMPTS:
            logger.warning("%s: %s; trying again (%d of %d)", path.name, reason, attempt + 1, _ATTEMPTS)
            time.sleep(0.5 * 2 ** (attempt - 1))
    raise _failure(url, path, reason)


def _transfer(url: str, path: Path, size: int | None) -> Path:
    """One attempt: request what is missing, append it to the part -> the part, now whole.

    No more is written than the server announces, or than is expected; nothing at all, where that does not fit the disk.
    """
    parts = list(path.parent.glob(f".{glob.escape(path.name)}.*.part"))
    response = _resume(url, path, parts[0]) if parts else None
    if response is None:
        for part in parts:
            part.unlink()
        response = open_address(url)
    with response:
        part = _part(path, response)
        start = part.stat().st_size if part.exists() else 0
        total = _total(response, start)
        if size is not None and total is not None and total != size:
            part.unlink(missing_ok=True)
            raise _WrongAnswer(f"it is not the expected file: it has {total:,} bytes where {size:,} are expected")
        free = shutil.disk_usage(path.parent).free
        total = size if total is None else total
        limit = min(_LARGEST, start + free // 2) if total is None else total
        if limit - start > free:
            raise _WrongAnswer(f"it has {limit:,} bytes, {limit - start:,} of them to come, and {free:,} are free")
        with (
            part.open("ab") as file,
            tqdm(total=total, initial=start, unit="B", unit_scale=True, desc=path.name, disable=None) as bar,
        ):
            while block := response.read(_BLOCK):
                start += len(block)
                if start > limit:
                    break
                file.write(block)
                bar.update(len(block))
    if start > limit:
        part.unlink()
        raise _WrongAnswer(f"the server sends more than {limit:,} bytes")
    if total is not None and start < total:
        raise ConnectionError(f"the connection broke after {start:,} of {total:,} bytes")
    return part


def _resume(url: str, path: Path, part: Path) -> http.client.HTTPResponse | None:
    """Request the rest of the file; None if `part` is not the beginning of the server's current version."""
    start = part.stat().st_size
    try:
        response = open_address(url, start)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # the file is not longer than the part
            return None
        raise
    if _first_byte(response) == start and _version(response) and _part(path, response) == part:
        return response
    response.close()
    return None


def _first_byte(response: http.client.HTTPResponse) -> int | None:
    """The first byte of the file that an answer holds, 0 of a whole one; None if the answer contradicts itself."""
    if response.status == 200:
        return 0
    found = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if response.status != 206 or not found:
        return None
    first, last = int(found[1]), int(found[2])
    length = response.headers.get("Content-Length", str(last - first + 1))
    is_rest = length == str(last - first + 1) and found[3] in ("*", str(last + 1))
    return first if is_rest else None


def _total(response: http.client.HTTPResponse, start: int) -> int | None:
    """The size of the file that an answer completes, `start` bytes of which are here; None if the server tells none."""
    if _first_byte(response) != start:
        raise _WrongAnswer(f"the server answers {response.status} with another part of the file than was asked for")
    length = response.headers.get("Content-Length")
    if length is None:
        return None
    if not re.fullmatch(r"[0-9]{1,18}", length):
        raise _WrongAnswer(f"the server announces {one_line(length)!r} bytes")
    return start + int(length)


def _version(response: http.client.HTTPResponse) -> str:
    """An identifier of the file's version on the server; empty if the server gives none."""
    return response.headers.get("ETag") or response.headers.get("Last-Modified") or ""


def _part(path: Path, response: http.client.HTTPResponse) -> Path:
    """The path of the part for the server's current version of the file."""
    return path.with_name(f".{path.name}.{hashlib.sha256(_version(response).encode()).hexdigest()[:8]}.part")


def _verify(part: Path, url: str, path: Path, sha256: str | None, size: int | None) -> str:
    """The part's hash; deletes it and raises DownloadError if its size or hash is wrong."""
    found, wrong = file_digest(part), None
    if size is not None and part.stat().st_size != size:
        wrong = f"it has {part.stat().st_size:,} bytes where {size:,} are expected"
    elif sha256 is not None and not found.startswith(sha256):
        wrong = f"its sha256 is {found} where {sha256} is expected"
    if wrong:
        part.unlink()
        raise WrongFile(str(_failure(url, path, f"what was downloaded is not the expected file: {wrong}")))
    return found


def _failure(url: str, path: Path, reason: str) -> DownloadError:
    return DownloadError(
        f"cannot download {one_line(path.name)}: {reason}\n"
        f"  address:   {without_password(url)}\n"
        f"  wanted at: {path.absolute()}\n"
        "Fetch it by any other means, put it there, and run again."
    )
