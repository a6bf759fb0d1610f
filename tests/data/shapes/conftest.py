"""One world for all tests of it."""

from pathlib import Path

import pytest

from data.shapes import Scene, build_world, read_scenes


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """600 pictures: 420 of train and 60 each of val, test and nocaps."""
    out = tmp_path_factory.mktemp("shapes") / "world"
    build_world(out, 600, seed=3, noise=0.3)
    return out


@pytest.fixture(scope="session")
def scenes(world: Path) -> dict[str, Scene]:
    return read_scenes(world / "scenes.json")
