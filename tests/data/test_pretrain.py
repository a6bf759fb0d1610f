"""Pre-training data from files, downloads, an epoch's further file, and WebDataset shards, alone and together."""

import io
import itertools
import json
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import webdataset
from PIL import Image

from data.loaders import TrainLoader
from data.pretrain import PretrainDataset, downloaded_name
from data.records.annotations import AnnotationError
from data.records.shards import Shards, shard_files
from data.records.uids import UidList, uid_of
from settings import ConfigError, UserError
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


def whole(dataset, epoch):
    """The indices of an epoch in their order."""
    order = dataset.order(epoch)
    (indices,) = order.share(len(order))
    return indices


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
        order = whole(dataset, epoch)
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
    assert "4 of 6 samples are left out: 1 without a caption (.txt or .json), only with .jpg; 1 without" in caplog.text


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
    levels = [int(dataset[2, int(i)]["image"]) for i in whole(dataset, 2)]
    assert sorted(levels) == [*range(15), *range(100, 106)]


def test_a_share_of_the_samples_may_come_from_shards(tmp_path):
    shards = shard_files([write_shards(tmp_path)])
    file = write_json(tmp_path / "a.json", 100, 85)
    dataset = PretrainDataset([file], level, image_root=tmp_path, shards=shards, shards_share=0.5)
    order = whole(dataset, 0)
    assert len(order) == 100
    rows = order % dataset.size(0)
    assert (rows < 15).sum() == 50
    assert np.bincount(rows[rows < 15]).min() >= 3


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


def write_everything(folder, count=12):
    """Images 0, ..., with the captions "caption n", as a list, shards, and Parquet files with paths and with bytes."""
    rows = [{"image": f"{n}.jpg", "caption": f"caption {n}"} for n in range(count)]
    for n in range(count):
        (folder / f"{n}.jpg").write_bytes(jpeg(n))
    (folder / "list.json").write_text(json.dumps(rows))
    table = pa.Table.from_pylist(rows)
    pq.write_table(table.rename_columns(["path", "TEXT"]), folder / "list.parquet")
    for shard in range(3):
        part = range(shard * count // 3, (shard + 1) * count // 3)
        with webdataset.TarWriter(str(folder / f"{shard}.tar")) as tar:
            for n in part:
                tar.write({"__key__": f"{n:04d}", "jpg": jpeg(n), "txt": f"caption {n}"})
        columns = {"jpg": [jpeg(n) for n in part], "caption": [f"caption {n}" for n in part]}
        pq.write_table(pa.table(columns), folder / f"bytes{shard}.parquet")
    in_shards = [{"image": f"{n * 3 // count}.tar/{n:04d}", "caption": f"caption {n}"} for n in range(count)]
    (folder / "in_shards.json").write_text(json.dumps(in_shards))
    return {
        "list": {"files": [folder / "list.json"], "image_root": folder},
        "Parquet list": {"files": [folder / "list.parquet"], "image_root": folder},
        "list of samples in shards": {"files": [folder / "in_shards.json"], "image_root": folder},
        "shards": {"files": [], "shards": shard_files([str(folder / "{0..2}.tar")])},
        "Parquet shards": {"files": [], "shards": shard_files([str(folder / "bytes{0..2}.parquet")])},
    }


def epoch(arguments, workers=0, start=0, **process):
    """(gray levels, captions, bad images) of each batch of an epoch."""
    dataset = PretrainDataset(**arguments, transform=level, seed=3)
    loader = TrainLoader(dataset, process.pop("batch_size", 2), num_workers=workers, max_bad_images=1, **process)
    loader.set_epoch(1, start_batch=start)
    return [(batch["image"].tolist(), batch["caption"], batch["bad_images"]) for batch in loader]


def test_tars_and_parquet_shards_and_all_lists_give_the_same_samples_in_the_same_order(tmp_path):
    kinds = write_everything(tmp_path)
    assert epoch(kinds["Parquet shards"]) == epoch(kinds["shards"])
    assert epoch(kinds["Parquet list"]) == epoch(kinds["list of samples in shards"]) == epoch(kinds["list"])
    for arguments in kinds.values():
        pairs = [pair for levels, captions, _ in epoch(arguments) for pair in zip(levels, captions, strict=True)]
        assert sorted(pairs) == [(n, f"caption {n}") for n in range(12)]


@pytest.mark.parametrize("kind", ["Parquet list", "Parquet shards", "list of samples in shards"])
def test_parquet_gives_two_processes_any_workers_and_a_resumed_run_the_same_batches(tmp_path, kind):
    arguments = write_everything(tmp_path)[kind]
    one = epoch(arguments, batch_size=4)
    assert epoch(arguments, batch_size=4, workers=2) == one
    assert epoch(arguments, batch_size=4, workers=2, start=1) == one[1:]
    both = [epoch(arguments, rank=rank, world_size=2) for rank in range(2)]
    joined = [(first[0] + second[0], first[1] + second[1], []) for first, second in zip(*both, strict=True)]
    assert joined == one


def test_bad_rows_of_a_parquet_shard_are_replaced_and_named(tmp_path):
    columns = {"jpg": [jpeg(0), b"<html>", jpeg(2), jpeg(3)], "caption": [f"caption {n}" for n in range(4)]}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    batches = epoch({"files": [], "shards": [tmp_path / "a.parquet"]}, batch_size=4)
    assert {one for _, _, bad in batches for one in bad} == {(f"{tmp_path}/a.parquet/row 2", "not a picture")}
    assert 1 not in batches[0][0]


def test_a_list_names_samples_that_a_shard_does_not_have(tmp_path):
    write_everything(tmp_path)
    rows = [{"image": "0.tar/0001", "caption": "a"}, {"image": "0.tar/9", "caption": "b"}]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    ((levels, _, bad),) = epoch({"files": [tmp_path / "a.json"], "image_root": tmp_path})
    assert levels == [1, 1]
    assert set(bad) == {(f"{tmp_path}/0.tar/9", "the shard has no such sample with a picture")}


def uid_list(file, uids):
    numbers = sorted((int(uid[:16], 16), int(uid[16:], 16)) for uid in uids)
    np.save(file, np.array(numbers, np.dtype("u8,u8")))
    return file


@pytest.mark.parametrize("kind", ["shards", "Parquet shards"])
def test_a_list_of_uids_restricts_the_shards_and_nothing_else_changes(tmp_path, kind):
    arguments = write_everything(tmp_path)[kind]
    key, name = {
        "shards": (lambda n: f"{n:04d}", "{}.tar"),
        "Parquet shards": (lambda n: f"row {n % 4 + 1}", "bytes{}.parquet"),
    }[kind]
    kept = [0, 3, 4, 9, 10]
    uids = uid_list(tmp_path / "uids.npy", [uid_of(f"{name.format(n // 4)}/{key(n)}") for n in kept] + ["f" * 32])
    arguments["uids"] = uids
    batches = epoch(arguments, batch_size=1)
    assert sorted(levels[0] for levels, _, _ in batches) == kept
    assert epoch(arguments, batch_size=1, workers=1, start=2) == batches[2:]
    both = [epoch(arguments, batch_size=1, rank=rank, world_size=2) for rank in range(2)]
    assert [batch for pair in zip(*both, strict=True) for batch in pair] == batches[:4]


def test_uids_are_those_of_the_samples_own_json_if_there_are_any(tmp_path):
    with webdataset.TarWriter(str(tmp_path / "a.tar")) as tar:
        for n in range(6):
            tar.write({"__key__": f"{n}", "jpg": jpeg(n), "txt": "a", "json": {"uid": f"{n // 3:016x}{n % 3:016x}"}})
    listed = [f"{0:016x}{1:016x}", f"{1:016x}{0:016x}", f"{1:016x}{2:016x}", f"{2:016x}{0:016x}"]
    shards = Shards([tmp_path / "a.tar"], UidList(uid_list(tmp_path / "uids.npy", listed)))
    assert [shards[row]["name"].rpartition("/")[2] for row in range(len(shards))] == ["1", "3", "5"]


def test_a_list_of_uids_of_other_shards_is_one_line(tmp_path):
    arguments = write_everything(tmp_path)["shards"]
    with pytest.raises(ConfigError, match=r"uids.npy lists 1, but none of the 12 samples of the shards") as error:
        PretrainDataset(**arguments, transform=level, uids=uid_list(tmp_path / "uids.npy", ["0" * 32]))
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it cannot be read"),
        (b"text", "it cannot be read"),
        (np.array([(2, 0), (1, 0)], "u8,u8"), "it is not sorted"),
        (np.array([(1, 2), (1, 0)], "u8,u8"), "it is not sorted"),
        (np.array([(1, 2)], "i8,i8"), "its type is "),
        (np.array([(1, 2)], ">u8,>u8"), "its type is "),
        (np.array([1, 2], "u8"), "its type is uint64"),
        (np.array([["a"]], object), "it cannot be read"),
        (np.zeros((1, 1), "u8,u8"), "it is no array of one dimension"),
        (np.zeros(0, "u8,u8"), "it is empty|it cannot be read"),
        (None, "there is no such file"),
    ],
)
def test_a_file_that_is_no_list_of_uids_is_one_line(tmp_path, content, message):
    file = tmp_path / "uids.npy"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        np.save(file, content)
    arguments = write_everything(tmp_path)["shards"]
    with pytest.raises(UserError, match=message) as error:
        PretrainDataset(**arguments, transform=level, uids=file)
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_sample_that_an_epoch_reads_again_gets_another_crop_flip_and_caption(tmp_path):
    """4 samples of a list beside 16 of shards; only the first pass draws as if there were no other."""
    texts = ["one", "two", "three"]
    rng = np.random.default_rng(0)
    for n in range(4):
        Image.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8)).save(tmp_path / f"{n}.jpg")
    records = [{"image": f"{n}.jpg", "caption": [f"{text} {n}" for text in texts]} for n in range(4)]
    (tmp_path / "a.json").write_text(json.dumps(records))
    shards = shard_files([write_shards(tmp_path, count=2, samples=8)])

    def read(start=0, rank=0, world_size=1):
        dataset = PretrainDataset(
            [tmp_path / "a.json"],
            TrainTransform(16, min_scale=0.2),
            image_root=tmp_path,
            shards=shards,
            shards_share=0.1,
            seed=1,
        )
        loader = TrainLoader(dataset, 4 // world_size, rank=rank, world_size=world_size)
        loader.set_epoch(2, start_batch=start)
        samples = [
            list(zip(batch["files"], batch["image"].unbind(), batch["caption"], strict=True)) for batch in loader
        ]
        return dataset, samples

    def same(first, second):
        return first[::2] == second[::2] and torch.equal(first[1], second[1])

    dataset, one = read()
    for n in range(4):
        file = str(tmp_path / f"{n}.jpg")
        seen = [sample for batch in one for sample in batch if sample[0] == file]
        assert len(seen) in (4, 5)  # 18 of 20 samples are from the list
        assert not any(same(*pair) for pair in itertools.combinations(seen, 2))
        assert not any(torch.equal(a[1], b[1]) for a, b in itertools.combinations(seen, 2))
        first = dataset.sample(dataset.annotations[n], np.random.default_rng((1, 2, 16 + n)))
        assert same(seen[0], (file, first["image"], first["caption"]))
    captions = [caption for batch in one for file, _, caption in batch if not file.startswith(f"{tmp_path}/0000")]
    assert {caption.split()[0] for caption in captions} == set(texts)
    shares = [read(rank=rank, world_size=2)[1] for rank in range(2)]
    both = [first + second for first, second in zip(*shares, strict=True)]
    for whole, other in [*zip(one, both, strict=True), *zip(one[3:], read(start=3)[1], strict=True)]:
        assert all(same(*pair) for pair in zip(whole, other, strict=True))


@pytest.mark.parametrize("kind", ["shards", "Parquet shards"])
@pytest.mark.parametrize("beside", ["nothing", "lists"])
def test_lanes_give_two_processes_any_workers_and_a_resumed_run_the_batches_of_one(tmp_path, kind, beside):
    """And no shard is read by both."""
    arguments = write_everything(tmp_path)[kind] | {"shard_lanes": 2}
    if beside == "lists":
        arguments |= {"files": [write_json(tmp_path / "a.json", 100, 5)], "image_root": tmp_path, "shards_share": 0.7}
        arguments["laion_files"] = [write_json(tmp_path / f"{n}.json", 110 + 10 * n, 3 + n) for n in range(2)]
    one = epoch(arguments, batch_size=4)
    assert epoch(arguments, batch_size=4, workers=2) == one
    assert epoch(arguments, batch_size=4, workers=2, start=1) == one[1:]
    shares = [epoch(arguments, rank=rank, world_size=2, workers=rank) for rank in range(2)]
    joined = [(first[0] + second[0], first[1] + second[1], []) for first, second in zip(*shares, strict=True)]
    assert joined == one
    of_shards = [{level // 4 for levels, _, _ in share for level in levels if level < 100} for share in shares]
    assert not of_shards[0] & of_shards[1]


def test_lanes_are_dealt_what_a_list_of_uids_leaves_of_the_shards(tmp_path):
    arguments = write_everything(tmp_path)["shards"]
    uids = uid_list(tmp_path / "uids.npy", [uid_of(f"{n // 4}.tar/{n:04d}") for n in (0, 1, 2, 8, 9)])
    batches = epoch(arguments | {"uids": uids, "shard_lanes": 2}, batch_size=2)
    assert len(batches) == 2  # of the shard with 3 samples, one is left out
    levels = {level for levels, _, _ in batches for level in levels}
    assert len(levels) == 4
    assert levels <= {0, 1, 2, 8, 9}
    with pytest.raises(ConfigError, match="shard_lanes = 3: .* there are 2 with samples: at most 2 lanes"):
        epoch(arguments | {"uids": uids, "shard_lanes": 3}, batch_size=3)
