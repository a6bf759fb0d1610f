"""What servers and disks do wrong: retried, counted as bad images, or one clear line."""

import errno
import json
import os
import threading
import time

import pytest

from data.media.image_file import TooManyBadImages
from data.records.shards import shard_files
from data.remote import reading, session, stage
from data.remote.stage import Stage, Staging
from settings import ConfigError, MissingFile, UserError
from tests.data.remote.conftest import COUNT, SAMPLES, levels, seen


@pytest.mark.parametrize("fault", ["cut", "too short", 500, 503, 429, "drips", "ignores ranges"])
def test_a_broken_or_slow_read_goes_on_at_its_block(loader, folder, served, fault, monkeypatch, caplog):
    monkeypatch.setattr(reading, "PATIENCE", 0.2)
    monkeypatch.setattr(reading, "SLOWEST", 1 << 20)
    expected, remote = seen(loader(str(folder / "*.tar"))), loader()
    served.faults["00001.tar"] = [None, fault, fault]
    assert seen(remote) == expected
    starts = [first for name, first, _ in served.gets if name == "00001.tar"]
    if fault == "ignores ranges":  # then the whole file came, at the second block
        assert starts == [0, 8192]
    else:
        assert starts == [0, 8192, 8192, 8192, 16384, 24576]
        assert f"{served.address}/00001.tar: " in caplog.text
        assert "trying again in 0.002 s (3 of 6)" in caplog.text
    said = {500: "the server answers 500", 503: "answers 503", 429: "answers 429", "drips": "too slow"}.get(fault, "")
    assert said in caplog.text


@pytest.mark.parametrize("lost", [1, 4])
@pytest.mark.parametrize("num_workers", [0, 1])
def test_of_a_shard_that_stays_unreadable_others_take_the_places(loader, served, lost, num_workers, caplog):
    remote = loader(num_workers=num_workers, batch_size=3)
    served.faults[f"{lost:05d}.tar"] = [500, ...]
    batches = seen(remote)
    assert len(batches) == COUNT * SAMPLES // 3
    gone = range(lost * SAMPLES, (lost + 1) * SAMPLES)
    kept = [n for n in range(COUNT * SAMPLES) if n not in gone]
    taken = levels(batches)
    for n in kept:
        taken.remove(n)
    assert len(taken) == SAMPLES  # in the places of the others
    assert len({n // SAMPLES for n in taken}) == 1  # all of one shard, which was staged for as long
    assert set(taken) <= set(kept)
    assert remote.state_dict() == {"tried": COUNT * SAMPLES + SAMPLES, "bad": SAMPLES}
    name = f"{served.address}/{lost:05d}.tar"
    assert f"{name} cannot be read (the server answers 500 Internal Server Error)" in caplog.text
    assert caplog.text.count(f"unreadable image replaced: {name}: the shard cannot be read") == 1
    served.faults.clear()
    assert levels(seen(remote, epoch=1)) == list(range(COUNT * SAMPLES))  # the next epoch asks again


def test_a_resumed_run_replaces_what_cannot_be_read_as_the_first_one(loader, served):
    served.faults["00002.tar"] = [403, ...]
    remote = loader(batch_size=3)
    whole = seen(remote)
    assert seen(loader(batch_size=3), start=4) == whole[4:]


def test_max_bad_images_ends_the_run_by_the_name_of_the_shard(loader, served):
    served.faults["00003.tar"] = [404, ...]
    with pytest.raises(TooManyBadImages, match=r"00003.tar: the shard cannot be read \(there is no such file\)"):
        seen(loader(max_bad_images=0.1))


def test_where_no_shard_can_be_read_the_run_ends(loader, served):
    remote = loader()
    for i in range(COUNT):
        served.faults[f"{i:05d}.tar"] = [404, ...]
    with pytest.raises(UserError, match=r"none of the shards of this epoch can be read; .*: there is no such file"):
        seen(remote)


def test_a_shard_that_changed_since_the_beginning_is_lost_and_named(loader, served, caplog):
    remote = loader()
    served.files["00002.tar"] = served.files["00000.tar"]
    batches = seen(remote)
    assert remote.state_dict()["bad"] == SAMPLES
    assert not {n for n in levels(batches) if n // SAMPLES == 2}
    assert "00002.tar cannot be read (it is another file than when the run began" in caplog.text


def test_parts_of_two_versions_are_never_joined(loader, served, caplog):
    remote, answer = loader(), served.answer

    def changes_meanwhile(handler, with_body):
        if "00002" in handler.path and len([get for get in served.gets if get[0] == "00002.tar"]) == 2:
            served.files["00002.tar"] = bytes(len(served.files["00002.tar"]))
        answer(handler, with_body)

    served.answer = changes_meanwhile
    assert not {n for n in levels(seen(remote)) if n // SAMPLES == 2}
    assert "00002.tar cannot be read (it is another file" in caplog.text


def test_a_shard_of_another_number_of_samples_is_an_error_with_both(loader, served):
    served.files["00004_stats.json"] = json.dumps({"successes": SAMPLES + 3}).encode()
    with pytest.raises(UserError, match=rf"00004.tar holds {SAMPLES} samples with a picture.* says {SAMPLES + 3}: "):
        seen(loader())


@pytest.mark.parametrize("content", [b"", b"[]", b'{"successes": "6"}', b'{"successes": -1}'])
def test_a_shard_without_a_number_of_samples_is_counted(loader, folder, served, content, caplog):
    served.files["00004_stats.json"] = content
    remote = loader()
    assert "00004.tar: its _stats.json does not tell `successes`: the shard is counted" in caplog.text
    assert served.reads_of("00004.tar") == 1
    assert seen(remote) == seen(loader(str(folder / "*.tar")))


def test_samples_that_were_counted_and_have_no_caption_are_bad_images(loader, served, tmp_path):
    import webdataset

    from tests.data.remote.conftest import jpeg

    with webdataset.TarWriter(str(tmp_path / "x.tar")) as tar:
        for n in range(SAMPLES):
            tar.write({"__key__": f"{n:09d}", "jpg": jpeg(n), "txt": "" if n == 2 else f"caption {n}"})
    served.files["00000.tar"] = (tmp_path / "x.tar").read_bytes()
    remote = loader(batch_size=3)
    batches = seen(remote)
    assert remote.state_dict()["bad"] >= 1
    assert 2 not in levels(batches)
    assert sum(n < SAMPLES for n in levels(batches)) == SAMPLES  # another of the same shard is in its place


def test_before_training_each_error_is_one_line(loader, served, monkeypatch):
    with pytest.raises(MissingFile, match=r"no shard http://127.*/00009.tar: the server answers 404"):
        loader(f"{served.address}/00009.tar")
    served.answer = lambda handler, with_body: served._send(handler, 403, b"", {}, None, with_body)
    with pytest.raises(ConfigError, match=r"00000.tar cannot be read: the server answers 403 .*docs/data.md"):
        loader()
    monkeypatch.setattr(reading, "ATTEMPTS", 2)
    with pytest.raises(ConfigError, match=r"http://nowhere.invalid/0.tar cannot be read: .*nowhere.invalid"):
        loader("http://nowhere.invalid/0.tar")
    with pytest.raises(ConfigError, match=r"shards: ftq://a is no address that fsspec knows"):
        loader("ftq://a/0.tar")
    with pytest.raises(MissingFile, match=r"no shard file:///.*/9.tar: its folder has no such file"):
        loader("file:///proc/self/9.tar")


def test_a_shard_that_must_be_counted_and_cannot_be_read_is_an_error(loader, served):
    del served.files["00003_stats.json"]
    served.faults["00003.tar"] = [500, ...]
    with pytest.raises(UserError, match=r"00003.tar cannot be read: .* 500 .*how many samples it holds is not known"):
        loader()


def test_passwords_and_signatures_are_not_shown(served, loader, caplog):
    secret = "X-Signature=" + "s3cr3t" * 3
    served.faults["00000.tar"] = [500]
    address = f"{served.address}/00000.tar?{secret}"
    remote = loader(address, batch_size=3)
    with pytest.raises(MissingFile) as error:
        loader(f"{served.address.replace('//', '//me:s3cr3t@')}/nothing.tar?{secret}")
    batch = next(iter(remote))
    assert batch["files"][0].startswith(f"{served.address}/00000.tar?.../")
    assert "s3cr3t" not in caplog.text + str(error.value) + str(batch["files"])
    assert "answers 500" in caplog.text


def test_too_little_room_for_the_shards_of_one_batch_is_told_before_the_first(loader, tmp_path, served):
    staging = Staging(str(tmp_path / "stage"), 2.5 * len(served.files["00000.tar"]) / 2**30)
    with pytest.raises(ConfigError, match=rf"stage_gib = .*: batches are drawn from up to {COUNT} shards at a time"):
        seen(loader(staging=staging))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_full_disk_ends_the_run_with_what_to_do(loader, monkeypatch, num_workers):
    def full(shard, file, requests):
        raise OSError(errno.ENOSPC, "No space left on device")

    remote = loader(num_workers=num_workers)
    monkeypatch.setattr(session, "_copy", full)
    with pytest.raises(UserError, match=r"stage_dir .*stage has no room for http:.*\.tar .*No space left.*stage_gib"):
        seen(remote)


def test_a_stage_that_is_no_folder_is_told(loader, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"stage_dir .*/file cannot be used .*name a folder on a local disk"):
        seen(loader(staging=Staging(str(tmp_path / "file"))))


def test_an_error_of_the_program_ends_the_run_and_does_not_hang_it(loader, monkeypatch):
    remote = loader(num_workers=1)
    monkeypatch.setattr(session, "_copy", lambda *_: [][1])
    with pytest.raises(UserError, match="(?s)staging shards ended by an error of the program: .*IndexError"):
        seen(remote)


def test_who_waits_for_a_silent_process_gives_up_by_the_name_of_the_shard(loader, monkeypatch):
    monkeypatch.setattr(stage, "SILENCE", 0.05)
    waiting = loader().dataset.shards._stage
    assert isinstance(waiting, Stage)
    with waiting.session, pytest.raises(UserError, match=r"00003.tar was not staged: no sign of life"):
        waiting.wait(3)
    with pytest.raises(UserError, match="while no shards are staged"):
        waiting.wait(3)


def test_a_run_that_stops_in_an_epoch_ends_a_read_at_once(loader, served, monkeypatch, tmp_path):
    monkeypatch.setattr("data.records.shards._WINDOW", 1)
    remote = loader(num_workers=1, batch_size=1)
    remote.set_epoch(0)
    first = int(next(remote._sampler.indices())[0]) // SAMPLES
    served.faults = {f"{i:05d}.tar": ["drips", ...] for i in range(COUNT) if i != first}
    batches = iter(remote)
    next(batches)
    begun = time.monotonic()
    batches.close()
    assert time.monotonic() - begun < 5
    assert not [thread for thread in threading.enumerate() if thread.name == "stager"]
    assert os.listdir(tmp_path / "stage") == ["lock"]


def test_a_pattern_without_a_match_says_so(served):
    served.files = {"": b"<html></html>"}
    with pytest.raises(MissingFile, match=r"no shard matches http.*/\*.tar; where files cannot be listed, write \{"):
        shard_files([f"{served.address}/*.tar"])
