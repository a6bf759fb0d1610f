"""Fixtures for every test: the golden files, unpacked on demand, and one thread so that 2 cores are shared fairly."""

import lzma
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`golden('caption/checkpoint.pth')` -> a readable path; files kept under xz are unpacked once a session."""
    unpacked = tmp_path_factory.mktemp("golden")

    def path_of(name: str) -> Path:
        plain = GOLDEN / name
        if plain.exists():
            return plain
        target = unpacked / name
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(lzma.decompress((GOLDEN / f"{name}.xz").read_bytes()))
        return target

    return path_of
