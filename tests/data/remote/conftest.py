"""Shards on a web server on this machine, small blocks, and pauses of milliseconds."""

import io
import json

import numpy as np
import pytest
import torch
import webdataset
from PIL import Image

from data.loaders import TrainLoader
from data.pretrain import PretrainDataset
from data.records.shards import shard_files
from data.remote import reading
from data.remote.stage import Staging
from tests.data.remote.web_server import WebServer

COUNT, SAMPLES = 5, 6


@pytest.fixture(autouse=True)
def quick(tmp_path, monkeypatch):
    monkeypatch.setenv("BLIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(reading, "PAUSE", 0.001)
    monkeypatch.setattr(reading, "_POLL", 0.005)
    monkeypatch.setattr("data.remote.stager._POLL", 0.005)
    monkeypatch.setattr("data.remote.stage._POLL", 0.002)
    monkeypatch.setattr("data.remote.session._POLL", 0.002)
    monkeypatch.setattr(reading, "BLOCK", 8192)


@pytest.fixture
def server():
    with WebServer() as server:
        yield server


def jpeg(level):
    file = io.BytesIO()
    Image.new("RGB", (16, 16), (level,) * 3).save(file, "jpeg")
    return file.getvalue()


def level(picture, rng):
    """The picture's gray level and a number from the randomness of augmentation, in the place of the picture."""
    return torch.tensor([picture.read().getpixel((0, 0))[0], int(rng.integers(1000))])


@pytest.fixture
def folder(tmp_path):
    """00000.tar, ... with 00000_stats.json, ... as img2dataset writes them; sample n is of gray level n."""
    folder = tmp_path / "shards"
    folder.mkdir()
    for shard in range(COUNT):
        with webdataset.TarWriter(str(folder / f"{shard:05d}.tar")) as tar:
            for n in range(shard * SAMPLES, (shard + 1) * SAMPLES):
                tar.write({"__key__": f"{n:09d}", "jpg": jpeg(n), "txt": f"caption {n}"})
        stats = {
            "count": SAMPLES + 2,
            "successes": SAMPLES,
            "failed_to_download": 2,
            "status_dict": {"success": SAMPLES},
        }
        (folder / f"{shard:05d}_stats.json").write_text(json.dumps(stats))
    return folder


@pytest.fixture
def served(folder, server):
    """The same on the web server, which is returned."""
    server.files = {file.name: file.read_bytes() for file in folder.iterdir()}
    return server


@pytest.fixture
def loader(tmp_path, served):
    """`loader(pattern, ...)` -> a TrainLoader of these shards with batches of 4; its workers end with the test."""
    loaders = []

    def load(
        pattern=None, *, batch_size=4, staging=None, rank=0, world_size=1, num_workers=0, max_bad_images=1.0, **keys
    ):
        pattern = pattern or f"{served.address}/{{00000..{COUNT - 1:05d}}}.tar"
        staging = staging or Staging(str(tmp_path / "stage"))
        dataset = PretrainDataset(keys.pop("files", []), level, shards=shard_files([pattern]), staging=staging, **keys)
        loaders.append(
            TrainLoader(
                dataset,
                batch_size,
                rank=rank,
                world_size=world_size,
                num_workers=num_workers,
                max_bad_images=max_bad_images,
            )
        )
        return loaders[-1]

    yield load
    for one in loaders:
        if one.num_workers and one._batches._loader._iterator is not None:
            one._batches._loader._iterator._shutdown_workers()


def seen(loader, epoch=0, start=0):
    """What an epoch's batches hold."""
    loader.set_epoch(epoch, start)
    return [(batch["image"].tolist(), batch["caption"]) for batch in loader]


def levels(batches):
    return sorted(int(one[0]) for images, _ in batches for one in np.array(images).reshape(-1, 2))
