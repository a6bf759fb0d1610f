"""Stores in the cache: what is not as it was written is noticed, told, and made anew."""

import errno
import fcntl
import os
import pickle
import signal
import subprocess
import sys
import time

import pytest
from filelock import SoftFileLease

from data.records.annotations import Annotations
from data.records.formats import Format, path, texts
from data.records.shards import Shards
from data.records.table import DamagedStore, Store, store_once, store_path
from files import REPOSITORY
from settings import UserError
from tests.data.records.test_shards import read, wanted, write_shards

PAIR = Format("pair", (path("image"), texts("caption")))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BLIP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def emptied(file):
    file.write_bytes(b"")


def cut(file):
    file.write_bytes(file.read_bytes()[:-7])


def halved(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def one_bit_flipped(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def zeroed(file):
    file.write_bytes(bytes(file.stat().st_size))


def grown(file):
    file.write_bytes(file.read_bytes() + b"x")


def a_note(file):
    file.write_text("no store")


DAMAGES = [emptied, cut, halved, one_bit_flipped, zeroed, grown, a_note]


def files(cache, pattern):
    found = sorted(cache.glob(pattern))
    assert found
    return found


def two_splits(folder):
    for name in ("train", "val"):
        (folder / f"{name}.json").write_text(f'[{{"image": "{name}.png", "caption": "{name}"}}]')
    return [folder / "train.json", folder / "val.json"]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("pattern", ["annotations/*.arrow", "annotations/digests/*.arrow"])
def test_a_damaged_cache_of_annotations_is_made_anew_with_a_log_line(tmp_path, cache, caplog, damage, pattern):
    train, val = two_splits(tmp_path)
    for split in (train, val):
        Annotations([split], PAIR)
    for file in files(cache, pattern):
        damage(file)
    assert [record["image"] for record in Annotations([train, val], PAIR)] == ["train.png", "val.png"]
    assert caplog.text.count("is damaged: it is made anew") == 2
    caplog.clear()
    Annotations([train, val], PAIR)
    assert not caplog.text


@pytest.mark.parametrize("pattern", ["annotations/*.arrow", "annotations/digests/*.arrow"])
def test_a_split_never_reads_the_store_of_another(tmp_path, cache, pattern):
    train, val = two_splits(tmp_path)
    for split in (train, val):
        Annotations([split], PAIR)
    first, second = files(cache, pattern)
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)
    assert [record["image"] for record in Annotations([train, val], PAIR)] == ["train.png", "val.png"]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("pattern", ["shards/*.arrow", "shards/sizes/*.arrow"])
def test_a_damaged_index_of_shards_is_made_anew_with_a_log_line(tmp_path, cache, caplog, damage, pattern):
    shards = write_shards(tmp_path, 2)
    Shards(shards)
    for file in files(cache, pattern):
        damage(file)
    assert read(Shards(shards)) == wanted(2)
    assert "is damaged: it is made anew" in caplog.text


def test_a_store_that_is_damaged_after_it_was_opened_is_no_copys_rows(cache):
    store = store_once("kind", "0" * 32, {"n": "int64"}, lambda: ([i] for i in range(9)))
    copy = pickle.dumps(store)
    assert [pickle.loads(copy)[row]["n"] for row in range(9)] == list(range(9))
    os.replace(store_once("kind", "1" * 32, {"n": "int64"}, lambda: [[5]]).file, store.file)
    with pytest.raises(DamagedStore, match="is not as it was written"):
        pickle.loads(copy)


def test_what_killed_writers_left_is_deleted_and_what_is_being_written_is_not(cache):
    folder = store_path("kind", "0").parent
    folder.mkdir(parents=True)
    left, in_work = folder / ".01234567.dead.arrow", folder / ".89abcdef.alive.arrow"
    others = folder / ".notes.arrow"
    for file in (left, in_work, others):
        file.write_bytes(b"half")
    with SoftFileLease(folder / "alive.lease"):
        store_once("kind", "0", {"n": "int64"}, lambda: [[1]])
        assert not left.exists()
        assert in_work.exists()
        assert others.exists()


@pytest.mark.parametrize("answer", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, None])
def test_a_store_is_made_where_the_file_system_has_no_flock_or_does_not_answer(cache, monkeypatch, answer):
    def flock(*_):
        if answer is None:
            time.sleep(60)
        raise OSError(answer, os.strerror(answer))

    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr(fcntl, "lockf", flock)
    began = time.monotonic()
    assert store_once("kind", "0", {"n": "int64"}, lambda: [[7]])[0] == {"n": 7}
    assert time.monotonic() - began < 10
    assert [file.name for file in store_path("kind", "0").parent.iterdir()] == ["0.arrow"]


HOLDS = """
import sys
from data.records.table import store_once
def rows():
    print("making", flush=True)
    sys.stdin.read()
    yield [1]
store_once("kind", "0", {"n": "int64"}, rows)
"""


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGKILL,
        pytest.param(
            signal.SIGSTOP,
            marks=pytest.mark.faults(
                "a process stopped (SIGSTOP) while others wait for the file it makes", "they go on"
            ),
        ),
    ],
)
def test_a_store_whose_maker_is_dead_or_stands_still_is_made_by_the_next(cache, number):
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", HOLDS]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as maker:
        assert maker.stdout.readline() == b"making\n"
        maker.send_signal(number)
        if number == signal.SIGKILL:
            maker.wait()
        began = time.monotonic()
        assert store_once("kind", "0", {"n": "int64"}, lambda: [[2]])[0] == {"n": 2}
        assert time.monotonic() - began < (5 if number == signal.SIGKILL else 45)
        maker.kill()


def test_a_cache_that_cannot_be_written_is_an_error_that_names_blip_cache(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BLIP_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"the cache in .*file cannot be used \(Not a directory\): set BLIP_CACHE"):
        store_once("kind", "0", {"n": "int64"}, lambda: [[1]])


def test_a_full_disk_is_an_error_that_names_blip_cache_and_leaves_nothing(cache, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("data.records.table._write", full)
    with pytest.raises(UserError, match=r"\(No space left on device\): set BLIP_CACHE"):
        store_once("kind", "0", {"n": "int64"}, lambda: [[1]])
    assert not list(cache.rglob("*.arrow"))


def test_a_row_is_read_from_the_memory_map(cache):
    store = store_once("kind", "0", {"n": "int64"}, lambda: [[7]])
    assert isinstance(store, Store)
    assert store[0] == {"n": 7}
    assert len(store_once("kind", "empty", {"n": "int64"}, list)) == 0
