"""Commands in a mount namespace of their own, where a small file system can be put anywhere."""

import functools
import os
import shutil
import subprocess

import pytest


def in_own_mounts(script: str, *arguments: str) -> list[str]:
    """The command that runs a shell script with mounts of its own; its test is skipped where none can be made."""
    if not _can_mount():
        pytest.skip("a mount namespace needs root, unshare, and a kernel that lets it")
    return ["unshare", "-m", "sh", "-c", script, *arguments]


@functools.cache
def _can_mount() -> bool:
    if not hasattr(os, "geteuid") or os.geteuid() != 0 or shutil.which("unshare") is None:
        return False
    probe = ["unshare", "-m", "sh", "-c", "mount -t tmpfs -o size=32k tmpfs /mnt"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0
