"""The indices of shards: one each, made once by however many processes, and opened when a sample is read."""

import io
import multiprocessing
import os
import pickle
import tarfile
from concurrent.futures import ThreadPoolExecutor

import pytest

import data.records.shard_index
from data.records.shards import Shards


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BLIP_CACHE", str(tmp_path / "cache"))


def write_shard(file, *members):
    with tarfile.open(file, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return file


def write_shards(folder, count, samples=2):
    """0.tar, ...: sample j of shard i is the "picture" b"i/j" with the caption "i j"."""
    return [
        write_shard(
            folder / f"{i}.tar",
            *((f"{j}.{suffix}", text.encode()) for j in range(samples) for suffix, text in _sample(i, j)),
        )
        for i in range(count)
    ]


def _sample(i, j):
    return ("jpg", f"{i}/{j}"), ("txt", f"{i} {j}")


def read(shards):
    return [(sample["image"].decode(), sample["caption"][0]) for sample in (shards[i] for i in range(len(shards)))]


def wanted(count, samples=2):
    return [(f"{i}/{j}", f"{i} {j}") for i in range(count) for j in range(samples)]


def indices(tmp_path):
    return {file.name for file in (tmp_path / "cache" / "shards").glob("*.arrow")}


@pytest.fixture
def indexed(monkeypatch):
    """The names of the shards that are walked through."""
    names, rows = [], data.records.shard_index._rows

    def noted(shard):
        names.append(os.path.basename(shard))
        return rows(shard)

    monkeypatch.setattr(data.records.shard_index, "_rows", noted)
    return names


def test_a_new_or_changed_shard_costs_only_itself(tmp_path, indexed):
    files = write_shards(tmp_path, 3)
    Shards(files[:2])
    assert sorted(indexed) == ["0.tar", "1.tar"]
    Shards(files)
    assert indexed[2:] == ["2.tar"]
    write_shard(files[1], ("x.jpg", b"new"), ("x.txt", b"newer"))
    assert read(Shards(files)) == [*wanted(1), ("new", "newer"), ("2/0", "2 0"), ("2/1", "2 1")]
    assert indexed[3:] == ["1.tar"]


def test_indexing_that_broke_off_goes_on_where_it_stopped(tmp_path, monkeypatch, indexed):
    files, rows = write_shards(tmp_path, 4), data.records.shard_index._rows

    def breaks(shard):
        if len(indexed) == 2:
            raise KeyboardInterrupt
        return rows(shard)

    with monkeypatch.context() as broken:
        broken.setattr(data.records.shard_index, "_rows", breaks)
        with pytest.raises(KeyboardInterrupt):
            Shards(files)
    assert read(Shards(files)) == wanted(4)
    assert sorted(indexed) == ["0.tar", "1.tar", "2.tar", "3.tar"]


def test_a_later_start_opens_no_index_and_no_shard(tmp_path, monkeypatch):
    files = write_shards(tmp_path, 3)
    Shards(files)
    with monkeypatch.context() as later:
        later.setattr(data.records.shard_index, "shard_index", None)
        later.setattr("data.records.shards.shard_index", None)
        shards = Shards(files)
        assert shards.sizes.tolist() == [2, 2, 2]
    for file in (tmp_path / "cache" / "shards").glob("*.arrow"):  # a cache may be deleted at any time
        file.unlink()
    assert read(shards) == wanted(3)


def test_many_shards_are_indexed_by_a_pool_of_processes(tmp_path, indexed):
    count = data.records.shard_index._FEW + 2
    assert read(Shards(write_shards(tmp_path, count))) == wanted(count)
    assert not indexed  # in this process
    assert len(indices(tmp_path)) == count


def _start(files, barrier, walked, results):
    rows = data.records.shard_index._rows

    def counted(shard):
        with walked.get_lock():
            walked.value += 1
        return rows(shard)

    data.records.shard_index._rows = counted
    barrier.wait()
    results.put(read(Shards(files)))


def test_processes_that_start_at_once_share_the_work(tmp_path):
    files = write_shards(tmp_path, 8)
    context = multiprocessing.get_context("fork")
    barrier, walked, results = context.Barrier(4), context.Value("i", 0), context.Queue()
    processes = [context.Process(target=_start, args=(files, barrier, walked, results)) for _ in range(4)]
    for process in processes:
        process.start()
    assert [results.get(timeout=60) for _ in processes] == [wanted(8)] * 4
    for process in processes:
        process.join()
    assert walked.value == 8


def test_rows_outside_and_shards_without_samples(tmp_path):
    files = write_shards(tmp_path, 2)
    empty = [write_shard(tmp_path / f"empty{i}.tar") for i in range(3)]
    shards = Shards([empty[0], files[0], empty[1], files[1], empty[2]])
    assert read(shards) == wanted(2)
    for row in (-1, 4):
        with pytest.raises(IndexError, match=f"row {row} of 4"):
            shards[row]
    assert len(Shards([])) == 0


def test_of_a_name_that_comes_twice_the_first_is_used_and_shard_and_name_are_told(tmp_path, caplog):
    pairs = [("a.jpg", b"1"), ("a.JPG", b"2"), ("a.txt", b"a"), ("b.jpg", b"3"), ("b.txt", b"b"), ("a.jpg", b"4")]
    file = write_shard(tmp_path / "0.tar", *pairs, ("a.txt", b"later"))
    assert read(Shards([file])) == [("1", "a"), ("3", "b")]
    assert f"{file}: 3 files have the name of an earlier one, which is used; the first is a.JPG" in caplog.text


def test_half_of_a_character_is_marked_and_not_an_error(tmp_path):
    file = write_shard(tmp_path / "0.tar", ("a.jpg", b"1"), ("a.json", rb'{"caption": "cut \ud83d"}'))
    assert read(Shards([file])) == [("1", "cut \ufffd")]


def test_threads_read_alike_without_pread(tmp_path, monkeypatch):
    shards = Shards(write_shards(tmp_path, 2, samples=50))
    monkeypatch.delattr(os, "pread", raising=False)
    with ThreadPoolExecutor(4) as pool:
        assert [sample["image"].decode() for sample in pool.map(shards.__getitem__, range(100))] == [
            image for image, _ in wanted(2, 50)
        ]


def test_a_pickled_copy_reads_the_same_and_holds_no_samples(tmp_path):
    shards = Shards(write_shards(tmp_path, 2, samples=500))
    copy = pickle.dumps(shards)
    assert len(copy) < 1500
    assert read(pickle.loads(copy)) == wanted(2, 500)
