"""The indices of shards: one each, made once by however many processes, and opened when a sample is read."""

import bz2
import gzip
import io
import lzma
import multiprocessing
import os
import pickle
import tarfile
from concurrent.futures import ThreadPoolExecutor

import pytest

import data.records.shard_index
from data.records.shard_index import look_at
from data.records.shards import Shards, shard_files
from settings import ConfigError, UnreadableFile, UserError


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
    names, rows = [], data.records.shard_index.samples

    def noted(shard):
        names.append(os.path.basename(shard))
        return rows(shard)

    monkeypatch.setattr(data.records.shard_index, "samples", noted)
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
    files, rows = write_shards(tmp_path, 4), data.records.shard_index.samples

    def breaks(shard):
        if len(indexed) == 2:
            raise KeyboardInterrupt
        return rows(shard)

    with monkeypatch.context() as broken:
        broken.setattr(data.records.shard_index, "samples", breaks)
        with pytest.raises(KeyboardInterrupt):
            Shards(files)
    assert read(Shards(files)) == wanted(4)
    assert sorted(indexed) == ["0.tar", "1.tar", "2.tar", "3.tar"]


def test_a_later_start_opens_no_index_and_no_shard(tmp_path, monkeypatch):
    files = write_shards(tmp_path, 3)
    Shards(files)
    with monkeypatch.context() as later:
        later.setattr(data.records.shard_index, "shard_index", None)
        later.setattr("data.records.open_shards.shard_index", None)
        shards = Shards(files)
        assert shards.sizes.tolist() == [2, 2, 2]
    for file in (tmp_path / "cache" / "shards").glob("*.arrow"):  # a cache may be deleted at any time
        file.unlink()
    assert read(shards) == wanted(3)


def test_a_start_with_what_another_process_found_asks_nothing_of_the_shards(tmp_path, monkeypatch):
    files = write_shards(tmp_path, 3)
    found = pickle.loads(pickle.dumps(look_at(files)))
    assert read(Shards(found)) == wanted(3)
    asked, stat = [], os.stat
    monkeypatch.setattr(
        os, "stat", lambda path, *rest, **options: asked.append(str(path)) or stat(path, *rest, **options)
    )
    shards = Shards(found)
    assert not [path for path in asked if path.endswith(".tar")]
    monkeypatch.undo()
    monkeypatch.setenv("BLIP_CACHE", str(tmp_path / "cache"))
    assert read(shards) == wanted(3)
    write_shard(files[1], ("0.jpg", b"new"), ("0.txt", b"changed"))
    assert look_at(files).keys[::2] == found.keys[::2]
    assert read(Shards(look_at(files)))[2] == ("new", "changed")


def test_many_shards_are_indexed_by_a_pool_of_processes(tmp_path, indexed):
    count = data.records.shard_index._FEW + 2
    assert read(Shards(write_shards(tmp_path, count))) == wanted(count)
    assert not indexed  # in this process
    assert len(indices(tmp_path)) == count


def _start(files, barrier, walked, results):
    rows = data.records.shard_index.samples

    def counted(shard):
        with walked.get_lock():
            walked.value += 1
        return rows(shard)

    data.records.shard_index.samples = counted
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


def test_dots_in_names_belong_to_keys(tmp_path):
    for names in (["photo.0", "photo.1"], ["22.00", "22.01"], ["train.v1/0", "train.v1/1"]):
        members = [(f"{name}.{end}", name.encode()) for name in names for end in ("jpg", "txt")]
        shards = Shards([write_shard(tmp_path / f"{names[0].replace('/', '_')}.tar", *members)])
        assert read(shards) == [(name, name) for name in names]
        assert [shards[row]["name"].partition(".tar/")[2] for row in range(2)] == names


def test_parts_with_names_are_one_sample(tmp_path):
    members = [(f"{i}.{part}", b"%d" % i) for i in range(2) for part in ("input.jpg", "outputs.txt")]
    assert read(Shards([write_shard(tmp_path / "0.tar", *members)])) == [("0", "0"), ("1", "1")]
    members = [("a.jpg", b"1"), ("a.seg.png", b"no picture to caption"), ("a.txt", b"a")]
    assert read(Shards([write_shard(tmp_path / "1.tar", *members)])) == [("1", "a")]


def test_a_part_with_picture_and_caption_is_a_sample_beside_the_whole(tmp_path):
    samples = [(f"{name}.{end}", name.encode()) for name in ("photo", "photo.1", "photo.2") for end in ("jpg", "txt")]
    found = read(Shards([write_shard(tmp_path / "0.tar", *samples, ("photo.2.seg.png", b"no picture to caption"))]))
    assert sorted(found) == [(name, name) for name in ("photo", "photo.1", "photo.2")]


def test_several_pictures_of_one_caption_are_one_sample_that_is_left_out(tmp_path, caplog):
    members = [("0.left.jpg", b"1"), ("0.right.jpg", b"2"), ("0.txt", b"a"), ("a.jpg", b"1"), ("a.txt", b"a")]
    assert read(Shards([write_shard(tmp_path / "0.tar", *members)])) == [("1", "a")]
    assert "1 of 2 samples are left out: 1 without a picture (" in caplog.text
    assert "only with .left.jpg, .right.jpg, .txt" in caplog.text


def test_files_of_a_sample_need_not_follow_each_other(tmp_path):
    members = [(f"{i}.{end}", b"%d" % i) for end in ("jpg", "txt") for i in range(3)]
    assert read(Shards([write_shard(tmp_path / "0.tar", *members)])) == [(str(i), str(i)) for i in range(3)]


@pytest.mark.parametrize(
    ("files", "captions"),
    [
        ({"json": b'{"caption": ["one", "", "two"]}'}, ["one", "two"]),
        ({"txt": b"one", "json": b'{"caption": ["one", "two"]}'}, ["one", "two"]),
        ({"txt": b"one", "json": b'{"caption": "two"}'}, ["one"]),
        ({"txt": b"one", "json": b'{"caption": ["!", 5]}'}, ["one"]),
        ({"txt": b"one", "json": b"{broken"}, ["one"]),
        ({"txt": b"", "json": b'{"caption": "good"}'}, ["good"]),
        ({"txt": b" \n", "json": b'{"caption": "good"}'}, ["good"]),
        ({"txt": "\ufeffgood".encode()}, ["good"]),
        ({"json": b"\xef\xbb\xbf" + b'{"caption": "good"}'}, ["good"]),
        ({"TXT": b"good"}, ["good"]),
        ({"txt": "good".encode("utf-16")}, ["good"]),
        ({"json": '{"caption": "good"}'.encode("utf-16")}, ["good"]),
    ],
)
def test_captions_are_read_however_they_are_written(tmp_path, files, captions):
    members = [(f"a.{suffix}", content) for suffix, content in files.items()]
    assert Shards([write_shard(tmp_path / "0.tar", ("a.jpg", b"1"), *members)])[0]["caption"] == captions


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"jpg": b"1", "txt": b" !\n"}, "1 whose caption is empty or holds no word"),
        ({"jpg": b"1", "json": b'{"caption": [""]}'}, "1 whose caption is empty or holds no word"),
        ({"jpg": b"1", "json": b'{"text": "x"}'}, "1 whose .json has no 'caption' that is text, or a list of it"),
        ({"jpg": b"1", "json": b'{"caption": [1]}'}, "1 whose .json has no 'caption' that is text, or a list of it"),
        ({"jpg": b"1", "json": b"[1]"}, "1 whose .json has no 'caption' that is text, or a list of it"),
        ({"jpg": b"1", "json": b"[" * 100_000}, "1 whose .json is not valid JSON"),
        ({"jpg": b"1", "json": b"\xff"}, "1 whose .json is not valid JSON"),
        ({"jpg": b"1", "txt": b"x" * (2 << 20)}, "1 whose caption has over 1,048,576 bytes"),
        ({"jpg": b"1"}, "1 without a caption (.txt or .json)"),
        ({"jpg": b"1", "text": b"a"}, "1 without a caption (.txt or .json), only with .jpg, .text"),
        ({"jpg": b"1", "txt": "a cat".encode("utf-16-le")}, "1 whose .txt is no text in UTF-8"),
        ({"img": b"1", "cap": b"x"}, "1 without a picture (.jpg, "),
        ({"img": b"1", "cap": b"x"}, "only with .cap, .img"),
    ],
)
def test_what_is_left_out_is_counted_with_the_reason(tmp_path, caplog, files, reason):
    members = [(f"b.{suffix}", content) for suffix, content in files.items()]
    file = write_shard(tmp_path / "0.tar", ("a.jpg", b"1"), ("a.txt", b"a"), *members)
    assert read(Shards([file])) == [("1", "a")]
    assert f"{file}: 1 of 2 samples are left out: " in caplog.text
    assert reason in caplog.text


def test_what_macs_and_windows_leave_is_no_sample(tmp_path, caplog):
    caplog.set_level("WARNING", "blip")  # a run in this process may have set another
    names = ("./._0", "./0", "__MACOSX/._0", "__MACOSX/0", "a/._0", "a/__MACOSX/0", "./__MACOSX/1")
    members = [(f"{name}.{end}", b"0") for name in names for end in ("jpg", "txt")]
    stray = [(name, b"") for name in (".DS_Store", "a/.DS_Store", "a/Thumbs.db", "desktop.ini")]
    assert read(Shards([write_shard(tmp_path / "0.tar", *members, *stray)])) == [("0", "0")]
    assert not caplog.text


@pytest.mark.parametrize(("open_file", "program"), [(gzip.open, "gunzip"), (bz2.open, "bunzip2"), (lzma.open, "unxz")])
def test_a_compressed_shard_is_left_out_with_what_unpacks_it(tmp_path, caplog, open_file, program):
    content = write_shards(tmp_path, 1)[0].read_bytes()
    with open_file(tmp_path / "a.tar.x", "wb") as file:
        file.write(content)
    assert len(Shards([tmp_path / "a.tar.x"])) == 0
    assert f"a.tar.x: it is compressed; the shard is left out: unpack it ({program})" in caplog.text


def header(**fields):
    info = tarfile.TarInfo(fields.pop("name", "b.jpg"))
    for name, value in fields.items():
        setattr(info, name, value)
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    "garbage",
    [
        header(size=-512),
        header(size=-(2**40)),
        header(size=2**60),
        header(type=tarfile.GNUTYPE_LONGNAME, size=2**60),
        header(type=tarfile.GNUTYPE_LONGNAME, size=-5),
        header(type=tarfile.XHDTYPE, size=2**60),
        header(type=tarfile.XHDTYPE, size=512) + b"30 path=\n" * 51 + b"\0\0",
        header(type=tarfile.XHDTYPE, size=512) + b"99999999999999999999 path=a\n".ljust(512, b"\0"),
        header(type=tarfile.XHDTYPE, size=512) + b"13 size=-512\n".ljust(512, b"\0") + header(size=0),
        header(type=tarfile.XHDTYPE, size=512) + b"12 size=abc\n".ljust(512, b"\0") + header(size=0),
        header(type=tarfile.GNUTYPE_SPARSE, size=512) + b"\xff" * 512,
        header(type=tarfile.XHDTYPE, size=0) * 3_000,
    ],
)
def test_headers_of_garbage_end_a_shard_and_nothing_else(tmp_path, garbage):
    file = write_shard(tmp_path / "0.tar", ("a.jpg", b"1"), ("a.txt", b"a"))
    whole = file.read_bytes()
    file.write_bytes(whole[:2048] + garbage + whole[2048:])
    assert read(Shards([file])) == [("1", "a")]


def test_brackets_of_a_folder_and_a_tilde_are_no_pattern(tmp_path, monkeypatch):
    folder = tmp_path / "shards [v1]"
    folder.mkdir()
    files = write_shards(folder, 3)
    monkeypatch.setenv("HOME", str(tmp_path))
    for pattern in ("/*.tar", "/{0..2}.tar", "/[0-2].tar"):
        if pattern != "/[0-2].tar":
            assert shard_files([f"{folder}{pattern}"]) == files
        (tmp_path / "plain").mkdir(exist_ok=True)
        plain = write_shards(tmp_path / "plain", 3)
        assert shard_files([f"~/plain{pattern}"]) == plain
    assert shard_files([str(files[1])]) == [files[1]]


@pytest.mark.parametrize(
    "pattern",
    ["{0..99999999}.tar", "{0..999}{0..9999}.tar", f"{{0..{'9' * 5_000}}}.tar", "{a,b}" * 40, "{-99999999..0}"],
)
def test_a_pattern_of_very_many_names_is_an_error(pattern):
    with pytest.raises(ConfigError, match="stands for over 1,000,000 files") as error:
        shard_files([pattern])
    assert len(str(error.value)) < 400


@pytest.mark.parametrize(
    "pattern", ["{0..9", "nothing.tar", "~nosuchuser/a.tar", "a\0.tar", "x" * 300, "", "[", "*.tar"]
)
def test_a_pattern_of_nothing_is_one_line(tmp_path, monkeypatch, pattern):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"no shard|is no pattern"):
        shard_files([pattern])


def test_a_folder_in_place_of_a_shard_is_named(tmp_path):
    (tmp_path / "a.tar").mkdir()
    with pytest.raises(UnreadableFile, match=r"a.tar: a folder, not a file"):
        Shards(shard_files([str(tmp_path / "*.tar")]))
