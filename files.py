"""Paths, whole files and downloads, for the rooms beside `models/`.

`models/` imports nothing of this repository but itself, so that it can be copied into another project: what it shares
with the other rooms lives in it, and they take it from here.
"""

from models.paths import REPOSITORY, atomic_write, open_regular, resolve
from models.weights.download import DownloadError, cache_dir, download, offline

__all__ = ["REPOSITORY", "DownloadError", "atomic_write", "cache_dir", "download", "offline", "open_regular", "resolve"]
