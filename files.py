"""Paths, atomic writes and downloads, for the packages beside `models`.

`models` imports nothing of this repository but itself, so that it can be copied into another project. So what it shares
with the other packages is defined there, and they import it from here.
"""

from models.paths import REPOSITORY, atomic_write, open_regular, remove_unfinished, resolve
from models.weights.address import is_web_address, without_password, without_secrets
from models.weights.download import DownloadError, WrongFile, cache_dir, download, offline

__all__ = [
    "REPOSITORY",
    "DownloadError",
    "WrongFile",
    "atomic_write",
    "cache_dir",
    "download",
    "is_web_address",
    "offline",
    "open_regular",
    "remove_unfinished",
    "resolve",
    "without_password",
    "without_secrets",
]
