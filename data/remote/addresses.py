"""Addresses of files that fsspec reads: s3://bucket/00000.tar, https://host/00000.tar, file:///mnt/slow/00000.tar."""

import functools
import importlib
import os
import re
from typing import TYPE_CHECKING

from files import without_secrets
from settings import ConfigError, needs_extra

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")  # at least two letters: a single one is a drive of Windows
_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "http": "aiohttp", "https": "aiohttp"}


def is_address(name: object) -> bool:
    """Whether a shard is named by an address, and not by a path."""
    return _ADDRESS.match(str(name)) is not None


def file_system(address: str) -> tuple["AbstractFileSystem", str]:
    """The file system that reads `address`, and what the file is called there.

    Credentials come from where the package of each file system looks for them: the environment and its config files.
    Raises MissingPackage, which names the extra to install, and ConfigError for an address of an unknown kind.
    """
    scheme, _, rest = address.partition("://")
    system = _file_system(os.getpid(), scheme.lower(), f"{scheme}://{rest.partition('/')[0]}")
    return system, system._strip_protocol(address)  # pyright: ignore (a public part of fsspec in all but its name)


@functools.cache
def _file_system(process: int, scheme: str, root: str) -> "AbstractFileSystem":
    """One for a process and host: fsspec's own cache has another one for each thread."""
    del process
    with needs_extra("remote", f"reading {scheme}:// shards"):
        import fsspec.core

        if scheme in _PACKAGES:
            importlib.import_module(_PACKAGES[scheme])
    try:
        return fsspec.core.url_to_fs(f"{root}/", use_listings_cache=False)[0]
    except ImportError as error:
        raise ConfigError(f"shards: {without_secrets(root)} cannot be read: {error}") from None
    except ValueError as error:
        raise ConfigError(
            f"shards: {without_secrets(root)} is no address that fsspec knows ({without_secrets(error)})"
        ) from None
