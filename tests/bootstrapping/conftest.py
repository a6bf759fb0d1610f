"""A small corpus of pictures, and a captioner and a filter with random weights."""

import pytest

from tests.small_capfilt import pairs_of_web, write_checkpoints


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    """(captioner, filter): of different image sizes."""
    return write_checkpoints(tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture(scope="session")
def corpus(demo_folder):
    """(list of the noisy web's pairs, folder of its pictures)."""
    return pairs_of_web(demo_folder)
