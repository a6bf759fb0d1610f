"""Training on remote shards is training on local ones: the same batches, and each shard is read once an epoch."""

import json
import multiprocessing
import shutil
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.check.__main__ import main as check
from data.corpus.sources import open_corpus
from data.records.uids import uid_of
from data.remote import reading
from data.remote.stage import Staging
from settings import ConfigError
from tests.data.remote.conftest import COUNT, SAMPLES, jpeg, levels, seen


@pytest.mark.parametrize("counts", ["from _stats.json", "from indices"])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_remote_batches_are_local_ones_and_each_shard_is_read_once_an_epoch(
    loader, folder, served, num_workers, counts, tmp_path
):
    if counts == "from indices":
        for name in list(served.files):
            if name.endswith(".json"):
                del served.files[name]
    local, remote = loader(str(folder / "*.tar")), loader(num_workers=num_workers)
    read = int(counts == "from indices")
    assert [served.reads_of(f"{i:05d}.tar") for i in range(COUNT)] == [read] * COUNT
    for epoch in range(2):
        assert seen(remote, epoch) == seen(local, epoch)
        assert [served.reads_of(f"{i:05d}.tar") for i in range(COUNT)] == [read + epoch + 1] * COUNT
    assert sorted(path.name for path in (tmp_path / "stage").iterdir()) == ["lock"]


def test_a_shard_is_read_in_blocks_one_after_the_other(loader, served):
    size = len(served.files["00000.tar"])
    assert size > 2 * reading.BLOCK
    seen(loader(batch_size=30))
    first = [get[1:] for get in served.gets if get[0] == "00000.tar"]
    starts = range(0, size, reading.BLOCK)
    assert first == [(start, min(start + reading.BLOCK, size) - 1) for start in starts]
    names = [name for name, *_ in served.gets if name.endswith(".tar")]
    assert len([1 for one, other in zip(names, names[1:], strict=False) if one != other]) == COUNT - 1


def test_processes_split_the_batches_and_a_resumed_run_reads_what_is_still_needed(loader, folder, served, monkeypatch):
    monkeypatch.setattr("data.records.shards._WINDOW", 1)  # shards one after the other
    whole = seen(loader(str(folder / "*.tar"), batch_size=6))
    halves = [seen(loader(batch_size=3, rank=rank, world_size=2)) for rank in range(2)]
    for (images, captions), (one, one_captions), (other, other_captions) in zip(whole, *halves, strict=True):
        assert one + other == images
        assert one_captions + other_captions == captions
    served.gets.clear()
    resumed = loader(batch_size=6)
    assert seen(resumed, start=3) == whole[3:]
    needed = {n // SAMPLES for n in levels(whole[3:])}
    assert len(needed) == 2
    assert {name for name, *_ in served.gets if name.endswith(".tar")} == {f"{i:05d}.tar" for i in needed}


def _rank(load, rank, barrier, results):
    loaded = load(batch_size=3, rank=rank, world_size=2)
    barrier.wait()
    loaded.set_epoch(0)
    batches = []
    for batch in loaded:  # in step, as gradients keep processes
        batches.append((batch["image"].tolist(), batch["caption"]))
        barrier.wait()
    results.put((rank, batches))


def test_two_processes_of_a_machine_share_one_copy(loader, folder, served):
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(2), context.Queue()
    ranks = [context.Process(target=_rank, args=(loader, rank, barrier, results)) for rank in range(2)]
    for rank in ranks:
        rank.start()
    got = dict(results.get(timeout=60) for _ in ranks)
    for rank in ranks:
        rank.join()
    whole = seen(loader(str(folder / "*.tar"), batch_size=6))
    assert [one[0] + other[0] for one, other in zip(got[0], got[1], strict=True)] == [images for images, _ in whole]
    assert [served.reads_of(f"{i:05d}.tar") for i in range(COUNT)] == [1] * COUNT


def test_no_more_lies_on_the_disk_than_is_allowed(loader, served, tmp_path, monkeypatch):
    monkeypatch.setattr("data.records.shards._WINDOW", 2)
    size = max(len(content) for content in served.files.values())
    staging = Staging(str(tmp_path / "stage"), 4.5 * size / 2**30)
    loaded, most = loader(staging=staging), 0
    loaded.set_epoch(0)
    for _ in loaded:
        held = [path.stat().st_size for path in (tmp_path / "stage").glob("*-*.tar")]
        most = max(most, sum(held))
    assert 2 * size <= most <= 4.5 * size
    assert [served.reads_of(f"{i:05d}.tar") for i in range(COUNT)] == [1] * COUNT


def last_batch_after(remote, stage, copies):
    """Reads an epoch, its last batch when so many copies lie in the folder `stage`; returns what the batches hold."""
    batches, held = [], iter(remote)
    for number in range(len(remote)):
        deadline = time.monotonic() + 20
        while number == len(remote) - 1 and len(list(stage.glob("*-*.tar"))) < copies and time.monotonic() < deadline:
            time.sleep(0.005)
        batch = next(held)
        batches.append((batch["image"].tolist(), batch["caption"]))
    return batches  # as the training loop does, without asking for a batch after the last


@pytest.mark.parametrize("num_workers", [0, 1])
def test_the_first_shards_of_an_epoch_are_there_when_it_begins(
    loader, folder, served, tmp_path, monkeypatch, num_workers
):
    monkeypatch.setattr("data.records.shards._WINDOW", 1)  # shards one after the other: each is a batch
    monkeypatch.setattr(reading, "PATIENCE", 2.0)  # with the block that is asked for while nothing comes
    room = Staging(str(tmp_path / "stage"), 3.2 * len(served.files["00000.tar"]) / 2**30)
    local = loader(str(folder / "*.tar"), batch_size=SAMPLES, seed=3)
    remote = loader(batch_size=SAMPLES, num_workers=num_workers, staging=room, epochs=2, seed=3)
    first, second, *_ = [int(indices[0]) // SAMPLES for indices in remote._sampler.following()]
    *_, last = [int(indices[0]) // SAMPLES for indices in remote._sampler.indices()]
    assert last not in (first, second)
    remote.set_epoch(0)
    assert last_batch_after(remote, tmp_path / "stage", 3) == seen(local)
    served.gets.clear()
    served.faults = {f"{shard:05d}.tar": ["drips", ...] for shard in range(COUNT)}
    remote.set_epoch(1)
    batches = iter(remote)
    begun = [next(batches)["image"].tolist() for _ in range(2)]  # while nothing more comes
    served.faults.clear()
    assert begun + [batch["image"].tolist() for batch in batches] == [images for images, _ in seen(local, 1)]
    assert [served.reads_of(f"{shard:05d}.tar") for shard in (first, second)] == [0, 0]
    assert [path.name for path in (tmp_path / "stage").iterdir()] == ["lock"]  # no epoch follows


def test_what_is_there_for_an_epoch_that_never_begins_is_deleted(loader, served, tmp_path):
    remote = loader(epochs=9)
    remote.set_epoch(0)
    last_batch_after(remote, tmp_path / "stage", COUNT)
    assert list((tmp_path / "stage").glob("*-*.tar"))
    remote.dataset.shards._stage._end_session()  # as the end of the process does
    assert [path.name for path in (tmp_path / "stage").iterdir()] == ["lock"]


def test_another_epoch_than_the_next_drops_what_it_does_not_need(loader, folder, served, tmp_path, monkeypatch):
    monkeypatch.setattr("data.records.shards._WINDOW", 1)
    local, remote = loader(str(folder / "*.tar"), batch_size=SAMPLES), loader(batch_size=SAMPLES, epochs=9)
    remote.set_epoch(0)
    last_batch_after(remote, tmp_path / "stage", COUNT)
    assert seen(remote, 8, start=3) == seen(local, 8, start=3)
    assert [path.name for path in (tmp_path / "stage").iterdir()] == ["lock"]


def test_a_shard_that_could_not_be_read_ahead_is_asked_for_again(loader, folder, served, tmp_path):
    remote = loader(epochs=2, batch_size=3)
    served.faults["00001.tar"] = [500, ...]
    remote.set_epoch(0)
    batches = last_batch_after(remote, tmp_path / "stage", COUNT - 1)
    assert 1 not in {n // SAMPLES for n in levels(batches)}
    assert list((tmp_path / "stage").glob("run-*/*.tar"))  # the others are there
    served.faults.clear()
    assert seen(remote, 1) == seen(loader(str(folder / "*.tar"), batch_size=3), 1)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_shard_of_which_no_step_uses_a_sample_is_not_read(loader, served, monkeypatch, num_workers):
    monkeypatch.setattr("data.records.shards._WINDOW", 1)  # shards one after the other: each is a batch
    remote = loader(num_workers=num_workers, batch_size=SAMPLES)
    for epoch in range(2):
        served.gets.clear()
        remote.set_epoch(epoch, batches_per_step=2)
        used = {int(indices[0]) // SAMPLES for indices in remote._sampler.indices()}
        assert len(list(remote)) == len(remote) == len(used) == COUNT - 1
        assert {name for name, *_ in served.gets} == {f"{shard:05d}.tar" for shard in used}


def test_a_source_that_is_read_several_times_an_epoch_is_the_same_as_local(loader, folder, served, tmp_path):
    (tmp_path / "list").mkdir()
    for n in range(60, 90):
        (tmp_path / "list" / f"{n}.jpg").write_bytes(jpeg(n))
    records = [{"image": f"{n}.jpg", "caption": f"listed {n}"} for n in range(60, 90)]
    (tmp_path / "list.json").write_text(json.dumps(records))
    keys = {"files": [tmp_path / "list.json"], "image_root": str(tmp_path / "list"), "shards_share": 0.9}
    local, remote = loader(str(folder / "*.tar"), **keys), loader(**keys)
    assert seen(remote) == seen(local)


def test_shards_on_a_slow_mount_are_named_by_file_addresses(loader, folder, tmp_path):
    for pattern in ("*.tar", "{00000..00004}.tar"):
        assert seen(loader(f"file://{folder}/{pattern}")) == seen(loader(str(folder / "*.tar")))
    assert not [path for path in (tmp_path / "stage").iterdir() if path.name != "lock"]


def test_listed_samples_of_remote_shards_are_the_local_ones(loader, folder, tmp_path):
    chosen = sorted(uid_of(f"0000{n // SAMPLES}.tar/{n:09d}") for n in (1, 2, 7, 13, 20, 21, 28, 29))
    halves = [(int(uid[:16], 16), int(uid[16:], 16)) for uid in chosen]
    np.save(tmp_path / "uids.npy", np.array(halves, dtype=[("f0", "<u8"), ("f1", "<u8")]))
    keys = {"uids": tmp_path / "uids.npy"}
    assert seen(loader(**keys)) == seen(loader(str(folder / "*.tar"), **keys))


def test_what_a_killed_run_left_is_deleted_or_used(loader, served, tmp_path):
    stage = tmp_path / "stage"
    expected = seen(loader())
    dead = stage / "run-0000000000000000"
    dead.mkdir()
    (dead / "lock").touch()
    (dead / f"part-{'0' * 32}-00000.tar").write_bytes(b"half")
    (stage / f"{'0' * 32}-00009.tar").write_bytes(b"of another run")
    loaded = loader()
    shard = loaded.dataset.shards._stage.shards[2]
    shutil.copy(tmp_path / "shards" / "00002.tar", stage / f"{shard.digest}-00002.tar")
    served.gets.clear()
    assert seen(loaded) == expected
    assert [served.reads_of(f"{i:05d}.tar") for i in range(COUNT)] == [1, 1, 0, 1, 1]
    assert sorted(path.name for path in stage.iterdir()) == ["lock"]


def test_lanes_read_their_own_shards_only_and_give_the_same_batches(loader, folder, served):
    keys = {"shard_lanes": 2, "batch_size": 2, "world_size": 2}
    expected = [seen(loader(str(folder / "*.tar"), rank=rank, **keys)) for rank in range(2)]
    for rank in range(2):
        served.gets.clear()
        assert seen(loader(rank=rank, **keys)) == expected[rank]
        own = {n // SAMPLES for n in levels(expected[rank])}
        assert {name for name, *_ in served.gets if name.endswith(".tar")} == {f"{i:05d}.tar" for i in own}
        assert len(own) < COUNT


def test_a_bad_picture_is_replaced_by_the_same_one_as_in_a_local_shard(loader, folder, served):
    content = (folder / "00002.tar").read_bytes()
    for place in (content.index(jpeg(13)), content.index(jpeg(15))):
        content = content[:place] + b"broken" + content[place + 6 :]
    (folder / "00002.tar").write_bytes(content)
    served.files["00002.tar"] = content
    local, remote = loader(str(folder / "*.tar"), batch_size=3), loader(batch_size=3, num_workers=1)
    batches = seen(local)
    assert seen(remote) == batches
    assert remote.state_dict() == local.state_dict()
    assert local.state_dict()["bad"] >= 2
    assert sum(n // SAMPLES == 2 for n in levels(batches)) == SAMPLES  # by others of the same shard
    assert not {13, 15} & set(levels(batches))


def test_a_local_shard_of_bad_pictures_ends_no_run(loader, folder):
    content = (folder / "00002.tar").read_bytes()
    for n in range(2 * SAMPLES, 3 * SAMPLES):
        content = content.replace(jpeg(n), b"broken" + jpeg(n)[6:])
    (folder / "00002.tar").write_bytes(content)
    local = loader(str(folder / "*.tar"))
    assert not {n for n in levels(seen(local)) if n // SAMPLES == 2}


def test_parquet_files_are_counted_once_and_read_as_local_ones(loader, folder, served, tmp_path):
    for part in range(3):
        columns = {
            "image": [jpeg(n) for n in range(part * 10, part * 10 + 10)],
            "caption": [f"caption {n}" for n in range(part * 10, part * 10 + 10)],
        }
        pq.write_table(pa.table(columns), folder / f"{part}.parquet", row_group_size=4)
        served.files[f"{part}.parquet"] = (folder / f"{part}.parquet").read_bytes()
    local, remote = loader(str(folder / "{0..2}.parquet")), loader(f"{served.address}/{{0..2}}.parquet", num_workers=1)
    assert remote.dataset.shards.sizes.tolist() == [4, 4, 2] * 3
    assert [served.reads_of(f"{part}.parquet") for part in range(3)] == [1] * 3
    assert seen(remote) == seen(local)
    again = loader(f"{served.address}/{{0..1}}.parquet")  # other ones together: their own tables are still known
    assert again.dataset.shards.sizes.tolist() == [4, 4, 2] * 2
    assert [served.reads_of(f"{part}.parquet") for part in range(3)] == [2] * 3


def test_the_check_of_a_config_reads_remote_shards_and_counts_them(served, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    served.files["00001_stats.json"] = b'{"successes": 7}'
    config = tmp_path / "pretrain.yaml"
    shards = f"shards: ['{served.address}/{{00000..00004}}.tar']\nstage_dir: stage\n"
    config.write_text(f"train_file: []\n{shards}")
    assert check([str(config)]) == 1
    assert "00001.tar holds 6 samples with a picture, but the _stats.json beside it says 7" in capsys.readouterr().out
    served.files["00001_stats.json"] = b'{"successes": 6}'
    assert check([str(config)]) == 0
    assert "5 shards, 30 samples in shards" in capsys.readouterr().out


def test_capfilt_refuses_addresses(served):
    with pytest.raises(
        ConfigError, match=r"corpus: http://.*/00000.tar is an address, and CapFilt reads files of a local"
    ):
        open_corpus([f"{served.address}/00000.tar"])
