"""Batches are the same for any number of workers and after a resume; bad images are counted and limited."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from data.caption import CaptionEval, CaptionTrain
from data.loaders import TooManyBadImages, TrainLoader, eval_loader, listed_loader
from data.media.image_file import BadImage
from files import REPOSITORY
from settings import ConfigError
from transform.image import EvalTransform, TrainTransform


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """23 pictures of noise with a caption each."""
    monkeypatch.setenv("BLIP_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for i in range(23):
        Image.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8)).save(tmp_path / f"{i}.jpg")
    records = [{"image": f"{i}.jpg", "caption": [f"caption {i} {j}" for j in range(3)]} for i in range(23)]
    (tmp_path / "train.json").write_text(json.dumps(records))
    return tmp_path


def dataset(folder, seed=3):
    return CaptionTrain([folder / "train.json"], folder, TrainTransform(32, min_scale=0.5), seed=seed)


def test_a_split_without_a_record_is_refused(folder):
    (folder / "val.json").write_text("[]")
    images = CaptionEval([folder / "val.json"], folder, EvalTransform(32))
    with pytest.raises(ConfigError, match="nothing to evaluate: no record in .*val.json"):
        eval_loader(images, 4)


def same(first, second):
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert torch.equal(value, second[key]) if isinstance(value, torch.Tensor) else value == second[key], key


def epochs(loader, count=2):
    batches = []
    for epoch in range(count):
        loader.set_epoch(epoch)
        batches += list(loader)
    return batches


def test_batches_are_the_same_for_any_number_of_workers(folder):
    (folder / "5.jpg").write_bytes(b"broken")
    wanted = epochs(TrainLoader(dataset(folder), 4, max_bad_images=1))
    assert len(wanted) == 10
    assert sum(len(batch["bad_images"]) for batch in wanted) >= 1
    for num_workers in (1, 2):
        loader = TrainLoader(dataset(folder), 4, num_workers=num_workers, max_bad_images=1)
        for batch, other in zip(wanted, epochs(loader), strict=True):
            same(batch, other)


def test_neither_the_global_random_state_nor_its_use_matters(folder):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    loader = TrainLoader(dataset(folder), 4, num_workers=1)
    first = list(loader)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    for batch, again in zip(first, loader, strict=True):
        same(batch, again)
    assert not torch.equal(first[0]["image"], next(iter(TrainLoader(dataset(folder, seed=4), 4)))["image"])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_resumed_epoch_goes_on_with_the_same_batches_and_reads_no_others(folder, num_workers):
    whole = TrainLoader(dataset(folder), 4)
    whole.set_epoch(1)
    wanted = list(whole)[3:]
    resumed = TrainLoader(dataset(folder), 4, num_workers=num_workers)
    resumed.set_epoch(1, start_batch=3)
    needed = {file for batch in wanted for file in batch["files"]}
    for file in folder.glob("*.jpg"):
        if str(file) not in needed:
            file.unlink()
    for batch, other in zip(wanted, resumed, strict=True):
        same(batch, other)


def test_a_loader_left_in_the_middle_starts_anew(folder):
    loader = TrainLoader(dataset(folder), 4, num_workers=2)
    next(iter(loader))
    loader.set_epoch(1)
    wanted = TrainLoader(dataset(folder), 4)
    wanted.set_epoch(1)
    for batch, other in zip(wanted, loader, strict=True):
        same(batch, other)


def test_two_processes_share_the_global_batches_of_one(folder):
    one = epochs(TrainLoader(dataset(folder), 6))
    two = [epochs(TrainLoader(dataset(folder), 3, rank=rank, world_size=2)) for rank in range(2)]
    for whole, first, second in zip(one, *two, strict=True):
        assert torch.equal(whole["image"], torch.cat([first["image"], second["image"]]))
        assert whole["caption"] == first["caption"] + second["caption"]


def test_bad_images_are_logged_with_path_and_reason_and_end_the_run_past_the_limit(folder, caplog):
    (folder / "7.jpg").write_bytes(b"")
    (folder / "8.jpg").write_bytes(b"no picture")
    list(TrainLoader(dataset(folder), 23, max_bad_images=0.5))
    assert f"unreadable image replaced: {folder / '7.jpg'}: an empty file" in caplog.text
    with pytest.raises(TooManyBadImages, match=r"2 unreadable images among the 25 that .* = 0.05 of 25"):
        list(TrainLoader(dataset(folder), 23, max_bad_images=0.05))


def test_a_share_of_dead_downloads_that_is_allowed_ends_no_run(folder):
    for i in range(18):
        (folder / f"{i}.jpg").unlink()
    loader = TrainLoader(dataset(folder), 4, max_bad_images=0.9)  # 18 of 23 are 0.78
    batches = epochs(loader, 4)
    tried = sum(4 + len(batch["bad_images"]) for batch in batches)
    assert sum(len(batch["bad_images"]) for batch in batches) / tried == pytest.approx(18 / 23, abs=0.05)
    with pytest.raises(TooManyBadImages, match=r"max_bad_images = 0.5 of"):
        epochs(TrainLoader(dataset(folder), 4, max_bad_images=0.5), 4)


def test_bad_images_are_counted_over_the_whole_run_and_through_a_resume(folder):
    (folder / "7.jpg").write_bytes(b"")
    whole = TrainLoader(dataset(folder), 23, max_bad_images=1)
    epochs(whole, 2)
    assert whole.state_dict()["bad"] >= 2
    assert whole.state_dict()["tried"] == 2 * 23 + whole.state_dict()["bad"]
    resumed = TrainLoader(dataset(folder), 23, max_bad_images=1)
    resumed.load_state_dicts([whole.state_dict()])
    for loader in (whole, resumed):
        loader.set_epoch(2)
        list(loader)
    assert resumed.state_dict() == whole.state_dict()


def test_a_resumed_run_is_near_its_limit_where_the_interrupted_one_was(folder):
    (folder / "7.jpg").write_bytes(b"")
    first = TrainLoader(dataset(folder), 23, max_bad_images=0.1)
    list(first)  # 1 of 24 is allowed
    resumed = TrainLoader(dataset(folder), 23, max_bad_images=0.1)
    resumed.load_state_dicts([{"tried": 24, "bad": 6}])
    with pytest.raises(TooManyBadImages, match="7 unreadable images among the 48 that"):
        list(resumed)


def test_other_processes_share_out_what_was_counted(folder):
    states = [{"tried": 100, "bad": 3}, {"tried": 101, "bad": 0}]
    loaders = [TrainLoader(dataset(folder), 4, rank=rank, world_size=3) for rank in range(3)]
    for loader in loaders:
        loader.load_state_dicts(states)
    assert [loader.state_dict() for loader in loaders] == [{"tried": 67, "bad": 1}] * 3
    for rank, state in enumerate(states):
        same_number = TrainLoader(dataset(folder), 4, rank=rank, world_size=2)
        same_number.load_state_dicts(states)
        assert same_number.state_dict() == state


@pytest.mark.parametrize("num_workers", [0, 2])
def test_evaluation_sees_each_image_once_over_two_processes(folder, num_workers):
    dataset = CaptionEval([folder / "train.json"], folder, EvalTransform(32))
    loaders = [eval_loader(dataset, 4, rank=rank, world_size=2, num_workers=num_workers) for rank in range(2)]
    batches = [batch for loader in loaders for batch in loader]
    assert [len(loader) for loader in loaders] == [3, 3]
    assert [image_id for batch in batches for image_id in batch["image_id"]] == list(range(23))
    assert torch.cat([batch["index"] for batch in batches]).tolist() == list(range(23))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_listed_batches_are_read_in_their_order(folder, num_workers):
    dataset = CaptionEval([folder / "train.json"], folder, EvalTransform(32))
    loader = listed_loader(dataset, [range(8, 12), [3, 1]], num_workers=num_workers)
    assert len(loader) == 2
    assert [batch["index"].tolist() for batch in loader] == [[8, 9, 10, 11], [3, 1]]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_bad_image_ends_an_evaluation_with_its_name(folder, num_workers):
    (folder / "9.jpg").write_bytes(b"")
    loader = eval_loader(CaptionEval([folder / "train.json"], folder, EvalTransform(32)), 4, num_workers=num_workers)
    with pytest.raises(BadImage) as caught:
        list(loader)
    assert str(caught.value) == f"{folder / '9.jpg'}: an empty file"  # not a worker's traceback as text


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_folder_without_its_images_ends_a_training_with_the_same_words(folder, num_workers):
    for file in folder.glob("*.jpg"):
        file.unlink()
    with pytest.raises(TooManyBadImages) as caught:
        list(TrainLoader(dataset(folder), 4, num_workers=num_workers))
    assert str(caught.value).startswith("100 images in a row could not be read; is the folder of images right?")


def test_a_run_that_an_error_ends_does_not_wait_for_its_workers(folder):
    """Workers ignore the SIGTERM that a scheduler sends to all processes, and must not ignore the run's own."""
    script = folder / "script.py"
    script.write_text(
        "from data.caption import CaptionTrain\n"
        "from data.loaders import TrainLoader\n"
        "from transform.image import TrainTransform\n"
        f"data = CaptionTrain([{str(folder / 'train.json')!r}], {str(folder)!r}, TrainTransform(32, min_scale=0.5))\n"
        "batches = iter(TrainLoader(data, 4, num_workers=2))\n"
        "next(batches)\n"
        "raise ZeroDivisionError\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    ended = subprocess.run([sys.executable, script], env=environment, capture_output=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert ended.stderr.endswith(b"ZeroDivisionError\n")


def test_an_empty_training_set_names_its_file(tmp_path, monkeypatch):
    monkeypatch.setenv("BLIP_CACHE", str(tmp_path / "cache"))
    (tmp_path / "train.json").write_text("[]")
    dataset = CaptionTrain([tmp_path / "train.json"], tmp_path, lambda *_: torch.zeros(3, 1, 1))
    with pytest.raises(ConfigError, match=r"nothing to train on: no sample in .*train.json$"):
        TrainLoader(dataset, batch_size=2)
