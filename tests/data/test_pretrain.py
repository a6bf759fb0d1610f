"""Pre-training data from files, downloads, an epoch's further file, and WebDataset shards, alone and together."""

import io
import json
import tarfile

import numpy as np
import pytest
import torch
import webdataset
from PIL import Image

from data.loaders import TrainLoader
from data.pretrain import PretrainDataset, downloaded_name
from data.records.annotations import AnnotationError
from data.records.shards import Shards, shard_files
from transform.image import TrainTransform


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BLIP_CACHE", str(tmp_path / "cache"))


def jpeg(level):
    file = io.BytesIO()
    Image.new("RGB", (16, 16), (level,) * 3).save(file, "jpeg")
    return file.getvalue()


def level(picture, rng):
    """The picture's gray level, in the place of the augmentation."""
    del rng
    return torch.tensor(picture.read().getpixel((0, 0))[0])


def write_shards(folder, count=3, samples=5):
    """00000.tar, ... as img2dataset writes them: key.jpg, key.txt, key.json."""
    for shard in range(count):
        with webdataset.TarWriter(str(folder / f"{shard:05d}.tar")) as tar:
            for i in range(samples):
                n = shard * samples + i
                meta = {"caption": f"Shard caption {n}", "url": f"http://x/{n}", "key": f"{n:09d}", "status": "success"}
                tar.write({"__key__": f"{n:09d}", "jpg": jpeg(n), "txt": meta["caption"], "json": meta})
    return str(folder / f"{{00000..{count - 1:05d}}}.tar")


def write_json(file, first, count):
    for n in range(first, first + count):
        (file.parent / f"{n}.jpg").write_bytes(jpeg(n))
    file.write_text(
        json.dumps([{"image": f"{n}.jpg", "caption": f"file caption {n}"} for n in range(first, first + count)])
    )
    return file


def test_a_record_with_url_is_read_from_the_folder_of_downloads(tmp_path):
    url = "https://example.org/a cat.jpg?size=1"
    assert downloaded_name(url) == "82/8223713ae5513443811873e4edadfc67.jpg"
    place = tmp_path / "downloads" / downloaded_name(url)
    place.parent.mkdir(parents=True)
    place.write_bytes(jpeg(77))
    (tmp_path / "a.json").write_text(json.dumps([{"url": url, "caption": "A cat."}]))
    sample = PretrainDataset([tmp_path / "a.json"], level, url_root=tmp_path / "downloads")[0]
    assert (int(sample["image"]), sample["caption"], sample["files"]) == (77, "a cat", [str(place)])
    with pytest.raises(ValueError, match=r"a.json: there are records with `url` .* but no url_root"):
        PretrainDataset([tmp_path / "a.json"], level, image_root=tmp_path)
    (tmp_path / "b.json").write_text(json.dumps([{"caption": "A cat."}]))
    with pytest.raises(AnnotationError, match="record 1: has none of image, url"):
        PretrainDataset([tmp_path / "b.json"], level)


def test_each_epoch_reads_the_next_further_file(tmp_path):
    base = write_json(tmp_path / "base.json", 0, 4)
    further = [write_json(tmp_path / "f0.json", 10, 3), write_json(tmp_path / "f1.json", 20, 5)]
    dataset = PretrainDataset([base], level, image_root=tmp_path, laion_files=further)
    for epoch, levels in enumerate([{10, 11, 12}, {20, 21, 22, 23, 24}, {10, 11, 12}]):
        order = dataset.order(epoch)
        assert {int(dataset[epoch, int(i)]["image"]) for i in order} == {0, 1, 2, 3} | levels
        assert len(order) == dataset.size(epoch) == 4 + len(levels)
    loader = TrainLoader(dataset, 3, num_workers=1)
    assert len(loader) == 2
    loader.set_epoch(1)
    assert len(loader) == 3
    assert len({int(i) for batch in loader for i in batch["image"]}) == 9


def test_shards_hold_what_webdataset_reads_from_them(tmp_path):
    pattern = write_shards(tmp_path)
    shards = Shards(shard_files([pattern]))
    assert shards.sizes.tolist() == [5, 5, 5]
    wanted = list(webdataset.WebDataset(pattern, shardshuffle=False))
    assert len(shards) == len(wanted) == 15
    for row, sample in enumerate(wanted):
        assert shards[row]["image"] == sample["jpg"]
        assert shards[row]["caption"] == [sample["txt"].decode()]
        assert shards[row]["name"].endswith(f"{row // 5:05d}.tar/{sample['__key__']}")


def test_a_caption_may_stand_in_the_json_only_and_samples_without_are_left_out(tmp_path, caplog):
    with webdataset.TarWriter(str(tmp_path / "a.tar")) as tar:
        tar.write({"__key__": "a", "png": jpeg(1), "json": {"caption": "from json"}})
        tar.write({"__key__": "b", "jpg": jpeg(2)})
        tar.write({"__key__": "c", "txt": "no picture"})
        tar.write({"__key__": "cc", "jpg": jpeg(3), "json": b"{broken"})
        tar.write({"__key__": "d", "jpg": jpeg(4), "txt": "from txt", "json": {"caption": "other"}})
        tar.write({"__key__": "e", "jpg": jpeg(5), "txt": ""})  # as img2dataset writes a missing caption
    shards = Shards([tmp_path / "a.tar"])
    assert [shards[row]["caption"] for row in range(len(shards))] == [["from json"], ["from txt"]]
    assert (
        "4 of 6 samples are left out: 1 without a caption (.txt or .json); 1 without a picture (.jpg, " in caplog.text
    )


def test_a_truncated_shard_gives_the_samples_before_its_end(tmp_path, caplog):
    write_shards(tmp_path, count=1)
    whole = (tmp_path / "00000.tar").read_bytes()
    (tmp_path / "00000.tar").write_bytes(whole[: len(whole) * 7 // 10])
    shards = Shards([tmp_path / "00000.tar"])
    assert 0 < len(shards) < 5
    assert "unexpected end of data" in caplog.text
    dataset = PretrainDataset([], level, shards=[tmp_path / "00000.tar"])
    assert [int(dataset[row]["image"]) for row in range(len(shards))] == list(range(len(shards)))


@pytest.mark.parametrize("damage", ["cut at a header", "cut in a header", "hole of zeros", "garbage", "never filled"])
def test_a_tar_that_ends_without_its_mark_is_named(tmp_path, caplog, damage):
    write_shards(tmp_path, count=1)
    with tarfile.open(tmp_path / "00000.tar") as tar:
        place = tar.getmember("000000002.jpg").offset
    whole = (tmp_path / "00000.tar").read_bytes()
    rest = {
        "cut at a header": b"",
        "cut in a header": whole[place : place + 100],
        "hole of zeros": bytes(1024) + whole[place + 1024 :],
        "garbage": b"?" * 1024 + whole[place + 1024 :],
        "never filled": bytes(2 << 20),
    }[damage]
    (tmp_path / "00000.tar").write_bytes(whole[:place] + rest)
    assert len(Shards([tmp_path / "00000.tar"])) == 2
    assert f"at byte {place}" in caplog.text
    assert "only the samples before are used" in caplog.text


@pytest.mark.parametrize("content", [b"", b"no tar" * 1000])
def test_a_file_that_is_no_shard_is_left_out_by_name(tmp_path, caplog, content):
    write_shards(tmp_path, count=1)
    (tmp_path / "00001.tar").write_bytes(content)
    shards = Shards([tmp_path / "00000.tar", tmp_path / "00001.tar"])
    assert shards.sizes.tolist() == [5, 0]
    assert f"{tmp_path / '00001.tar'}: " in caplog.text
    assert "the shard is left out" in caplog.text


def test_a_missing_shard_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no shard .*00000.tar"):
        shard_files([str(tmp_path / "{00000..00002}.tar")])


def test_a_broken_picture_in_a_shard_is_replaced_and_named(tmp_path):
    with webdataset.TarWriter(str(tmp_path / "a.tar")) as tar:
        tar.write({"__key__": "bad", "jpg": b"nothing", "txt": "x"})
        for n in range(20):
            tar.write({"__key__": f"good{n}", "jpg": jpeg(n), "txt": "x"})
    sample = PretrainDataset([], level, shards=[tmp_path / "a.tar"])[0, 0]
    assert sample["bad_images"][0][0] == f"{tmp_path / 'a.tar'}/bad"


def test_an_epoch_of_shards_and_files_passes_over_both_once(tmp_path):
    pattern = write_shards(tmp_path)
    dataset = PretrainDataset(
        [write_json(tmp_path / "a.json", 100, 6)], level, image_root=tmp_path, shards=shard_files([pattern])
    )
    levels = [int(dataset[2, int(i)]["image"]) for i in dataset.order(2)]
    assert sorted(levels) == [*range(15), *range(100, 106)]


def test_a_share_of_the_samples_may_come_from_shards(tmp_path):
    shards = shard_files([write_shards(tmp_path)])
    file = write_json(tmp_path / "a.json", 100, 85)
    dataset = PretrainDataset([file], level, image_root=tmp_path, shards=shards, shards_share=0.5)
    order = dataset.order(0)
    assert len(order) == 100
    assert (order < 15).sum() == 50
    assert np.bincount(order[order < 15].astype(int)).min() >= 3


@pytest.mark.parametrize("num_workers", [1, 2])
def test_shards_feed_processes_and_workers_without_overlap_and_resume(tmp_path, num_workers):
    shards = shard_files([write_shards(tmp_path, count=4, samples=6)])

    def batches(workers, start=0, **process):
        dataset = PretrainDataset([], TrainTransform(16, min_scale=0.2), shards=shards, seed=1)
        loader = TrainLoader(dataset, process.pop("batch_size", 3), num_workers=workers, **process)
        loader.set_epoch(2, start_batch=start)
        return list(loader)

    one = batches(0)
    for batch, other in zip(one[3:], batches(num_workers, start=3), strict=True):
        assert torch.equal(batch["image"], other["image"])
        assert batch["caption"] == other["caption"]
    both = [batches(num_workers, rank=rank, world_size=2) for rank in range(2)]
    captions = [caption for share in both for batch in share for caption in batch["caption"]]
    assert sorted(captions) == sorted(f"shard caption {n}" for n in range(24))
