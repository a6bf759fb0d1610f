"""Downloads: a file appears whole or not at all, broken transfers resume, and only one of several processes downloads.

A partial download lies in `.NAME.TAG.part` beside the destination; TAG is a hash of the server's version of the file
(its ETag). A later run requests only the rest, and never joins parts of two versions. The file is renamed to its final
name once its size and hash are right.

`BLIP_CACHE` moves the cache from `~/.cache/blip`; `BLIP_OFFLINE=1` (or `HF_HUB_OFFLINE=1`) forbids the network.
"""

import glob
import hashlib
import http.client
import logging
import os
import time
import urllib.error
import urllib.request
from pathlib import Path

from filelock import FileLock, Timeout
from tqdm import tqdm

from models.errors import UserError

logger = logging.getLogger("blip.models")

_BLOCK = 1 << 20  # bytes read at once
_ATTEMPTS = 5  # attempts at one file; each resumes the last one
_TIMEOUT = 30.0  # seconds without a byte after which a connection counts as broken
_TRANSIENT = {408, 429, 500, 502, 503, 504}  # HTTP statuses that are worth another attempt


class DownloadError(UserError, OSError):
    """A file could not be downloaded; the message names its URL, and where to put it by hand."""


def cache_dir() -> Path:
    """The folder of downloaded files: `$BLIP_CACHE`, or `~/.cache/blip`."""
    return Path(os.environ.get("BLIP_CACHE") or "~/.cache/blip").expanduser()


def offline() -> bool:
    """Whether the environment forbids the network."""
    return any(
        os.environ.get(name, "").lower() in {"1", "true", "yes", "on"} for name in ("BLIP_OFFLINE", "HF_HUB_OFFLINE")
    )


def download(url: str, path: str | Path, *, sha256: str | None = None, size: int | None = None) -> Path:
    """Download `url` to `path`, unless `path` exists -> `path`.

    If several processes call this at once, one downloads and the others wait. Of a file that exists, only the size is
    checked: its hash was checked when it was downloaded.

    Args:
        url: an http or https address.
        path: the file to write.
        sha256: the expected hexadecimal digest, or its first digits.
        size: the expected size in bytes.

    Raises:
        DownloadError: no network, the server refuses, or the size or hash is wrong.
    """
    path = Path(path).expanduser()
    if _present(path, size):
        return path
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"cannot download {url!r}: the address must start with http:// or https://")
    if offline():
        raise _failure(url, path, "the environment forbids the network (BLIP_OFFLINE or HF_HUB_OFFLINE is set)")
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(timeout=1)
    except Timeout:
        logger.info("waiting for another process that downloads %s", path)
        lock.acquire()
    try:
        if not _present(path, size):
            part = _fetch(url, path, size)
            _verify(part, url, path, sha256, size)
            os.replace(part, path)
    finally:
        lock.release()
    return path


def _present(path: Path, size: int | None) -> bool:
    if not path.is_file():
        return False
    found = path.stat().st_size
    if size is not None and found != size:
        raise DownloadError(f"{path} has {found:,} bytes where {size:,} are expected: delete it and run again")
    return True


def _fetch(url: str, path: Path, size: int | None) -> Path:
    """Download the file into its part beside `path`, in up to `_ATTEMPTS` attempts -> the part, now whole."""
    reason = ""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return _transfer(url, path, size)
        except urllib.error.HTTPError as error:
            if error.code not in _TRANSIENT:
                raise _failure(url, path, f"the server answers {error.code} {error.reason}") from error
            reason = f"the server answers {error.code} {error.reason}"
        except (OSError, http.client.HTTPException) as error:
            reason = str(getattr(error, "reason", None) or error or type(error).__name__)
        if attempt < _ATTEMPTS:
            logger.warning("%s: %s; trying again (%d of %d)", path.name, reason, attempt + 1, _ATTEMPTS)
            time.sleep(0.5 * 2 ** (attempt - 1))
    raise _failure(url, path, reason)


def _transfer(url: str, path: Path, size: int | None) -> Path:
    """One attempt: request what is missing, append it to the part -> the part, now whole."""
    parts = list(path.parent.glob(f".{glob.escape(path.name)}.*.part"))
    response = _resume(url, path, parts[0]) if parts else None
    if response is None:
        for part in parts:
            part.unlink()
        response = _open(url)
    part = _part(path, response)
    start = part.stat().st_size if part.exists() else 0
    left = response.headers.get("Content-Length")
    total = size if left is None else start + int(left)
    with (
        response,
        part.open("ab") as file,
        tqdm(total=total, initial=start, unit="B", unit_scale=True, desc=path.name, disable=None) as bar,
    ):
        while block := response.read(_BLOCK):
            file.write(block)
            bar.update(len(block))
    if total is not None and part.stat().st_size < total:
        raise ConnectionError(f"the connection broke after {part.stat().st_size:,} of {total:,} bytes")
    return part


def _resume(url: str, path: Path, part: Path) -> http.client.HTTPResponse | None:
    """Request the rest of the file; None if `part` is not the beginning of the server's current version."""
    start = part.stat().st_size
    try:
        response = _open(url, start)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # the file is not longer than the part
            return None
        raise
    is_rest = response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
    if is_rest and _version(response) and _part(path, response) == part:
        return response
    response.close()
    return None


def _open(url: str, start: int = 0) -> http.client.HTTPResponse:
    headers = {"User-Agent": "blip"} | ({"Range": f"bytes={start}-"} if start else {})
    return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT)


def _version(response: http.client.HTTPResponse) -> str:
    """An identifier of the file's version on the server; empty if the server gives none."""
    return response.headers.get("ETag") or response.headers.get("Last-Modified") or ""


def _part(path: Path, response: http.client.HTTPResponse) -> Path:
    """The path of the part for the server's current version of the file."""
    return path.with_name(f".{path.name}.{hashlib.sha256(_version(response).encode()).hexdigest()[:8]}.part")


def _verify(part: Path, url: str, path: Path, sha256: str | None, size: int | None) -> None:
    """Delete the part and raise DownloadError if its size or hash is wrong."""
    wrong = None
    if size is not None and part.stat().st_size != size:
        wrong = f"it has {part.stat().st_size:,} bytes where {size:,} are expected"
    elif sha256 is not None and not (found := _sha256(part)).startswith(sha256):
        wrong = f"its sha256 is {found} where {sha256} is expected"
    if wrong:
        part.unlink()
        raise _failure(url, path, f"what was downloaded is not the expected file: {wrong}")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _failure(url: str, path: Path, reason: str) -> DownloadError:
    return DownloadError(
        f"cannot download {path.name}: {reason}\n"
        f"  address:   {url}\n"
        f"  wanted at: {path.absolute()}\n"
        "Fetch it by any other means, put it there, and run again."
    )
