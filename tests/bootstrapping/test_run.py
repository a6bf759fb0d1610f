"""CapFilt's run: its result depends on neither processes, batches nor interruptions; what cannot be used is told."""

import io
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tarfile
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import capfilt
from bootstrapping.choice import select
from bootstrapping.scores import open_scores, read_columns
from data.media.image_file import open_image
from data.records.shards import Shards
from data.text import clean_caption
from files import REPOSITORY
from models.blip import BLIPDecoder
from models.blip_itm import BLIPMatcher
from models.weights.build import build_from_checkpoint
from tests.small_capfilt import command_line, score_files
from transform.image import EvalTransform, normalize


@pytest.fixture
def arguments(checkpoints, corpus):
    """The command line of a run, with keys replaced and added."""

    return lambda output, **keys: command_line(output, checkpoints, corpus, **keys)


@pytest.fixture
def run(arguments):
    """Run in this process."""
    return lambda output, **keys: capfilt.main(arguments(output, **keys))


def rows(folder):
    names = ("uid", "image", "source", "n", "text", "match", "cosine", "log_prob", "prompt", "seed")
    return list(zip(*read_columns(open_scores(folder), *names), strict=True))


def test_every_image_has_its_texts_with_the_scores_of_each_alone(run, checkpoints, corpus, tmp_path):
    run(tmp_path, captions_per_image=2, unit_size=30)
    pairs = json.loads(corpus[0].read_text())
    found = rows(tmp_path)
    assert [row[1] for row in found] == [pair["image"] for pair in pairs for _ in range(3)]
    assert [row[2:4] for row in found] == [("web", 0), ("synthetic", 0), ("synthetic", 1)] * len(pairs)
    assert [row[4] for row in found if row[2] == "web"] == [pair["caption"] for pair in pairs]

    matcher = build_from_checkpoint(BLIPMatcher, checkpoints[1]).eval()
    captioner = build_from_checkpoint(BLIPDecoder, checkpoints[0]).eval()
    for row in (*found[:6], *found[-3:]):
        picture = open_image(corpus[1] / row[1])
        image = normalize(EvalTransform(48)(picture)[None])
        scores = matcher.score(image, clean_caption(row[4]))
        assert row[5] == pytest.approx(scores.match.item(), abs=1e-5)
        assert row[6] == pytest.approx(scores.cosine.item(), abs=1e-5)
        if row[2] == "web":
            assert row[7:] == (None, None, None)
            continue
        assert row[8:] == ("a picture of ", 42)
        ids = torch.tensor([[*captioner.prompt_ids, *captioner.tokenizer(row[4]).input_ids[1:]]])
        memory = captioner.text_decoder.project(captioner.visual_encoder(normalize(EvalTransform(32)(picture)[None])))
        losses = captioner.text_decoder.token_losses(ids, ids, memory, label_smoothing=0.0)
        log_prob = -losses[0, captioner.prompt_length - 1 :].sum().item()
        if ids.shape[1] < 20:  # else it was cut off, without an end token
            assert row[7] == pytest.approx(log_prob, abs=1e-3)


def test_samples_depend_on_seed_and_uid_not_on_batches_or_units(run, arguments, tmp_path):
    run(tmp_path / "a", unit_size=48, batch_size=48)
    run(tmp_path / "b", unit_size=5, batch_size=2)
    assert [row[:5] for row in rows(tmp_path / "a")] == [row[:5] for row in rows(tmp_path / "b")]
    capfilt.main([*arguments(tmp_path / "c"), "--seed", "7"])
    texts = [[row[4] for row in rows(tmp_path / name) if row[2] == "synthetic"] for name in ("a", "c")]
    assert texts[0] != texts[1]


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(run, arguments, tmp_path):
    run(tmp_path / "whole")
    expected = score_files(tmp_path / "whole")
    assert len(expected) == 5
    begun = tmp_path / "begun"
    process = subprocess.Popen(
        [sys.executable, str(REPOSITORY / "capfilt.py"), *arguments(begun)], env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    deadline = time.monotonic() + 120
    while not (begun / "scores").is_dir() or not list((begun / "scores").glob("[!.]*.parquet")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (begun / "scores" / ".0123abcd.pretrain-000004.parquet").write_bytes(b"half")
    kept = {path.name: path.stat().st_mtime_ns for path in (begun / "scores").glob("[!.]*.parquet")}
    run(begun)
    assert score_files(begun) == expected
    assert {name: (begun / "scores" / name).stat().st_mtime_ns for name in kept} == kept, "these were done"


def _one_of_several(rank, processes, port, arguments):
    """A process as torchrun starts it, but for importing torch anew."""
    launch = {"RANK": rank, "WORLD_SIZE": processes, "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in launch.items()})
    capfilt.main(arguments)


def _free_port():
    with socket.create_server(("localhost", 0)) as server:
        return server.getsockname()[1]


def test_several_processes_write_the_same_bytes_as_one(run, arguments, tmp_path):
    run(tmp_path / "1", unit_size=3)
    expected = score_files(tmp_path / "1")
    context = multiprocessing.get_context("fork")
    for processes in (2, 4):
        output, port = tmp_path / str(processes), _free_port()
        command = arguments(output, unit_size=3)
        started = [
            context.Process(target=_one_of_several, args=(rank, processes, port, command)) for rank in range(processes)
        ]
        for process in started:
            process.start()
        for process in started:
            process.join(120)
        assert [process.exitcode for process in started] == [0] * processes
        assert score_files(output) == expected
        assert (output / "capfilt.json").read_bytes() == (tmp_path / "1" / "capfilt.json").read_bytes()


def scored(folder):
    """(text, scores) of each row: what does not depend on how the corpus is stored."""
    return [(*row[2:5], *(round(score, 4) for score in row[5:7])) for row in rows(folder)]


def test_lists_shards_parquet_and_folders_give_the_same_scores(run, corpus, tmp_path, monkeypatch):
    pairs = json.loads(corpus[0].read_text())[:12]
    pictures = [(corpus[1] / pair["image"]).read_bytes() for pair in pairs]
    (tmp_path / "list.json").write_text(json.dumps(pairs))
    (tmp_path / "folder").mkdir()
    _write_shard(tmp_path / "00000.tar", pairs, corpus[1])
    for number, (pair, picture) in enumerate(zip(pairs, pictures, strict=True)):
        (tmp_path / "folder" / f"{number:05d}.jpg").write_bytes(picture)
        (tmp_path / "folder" / f"{number:05d}.txt").write_text(pair["caption"])
    table = pa.table({"image": pictures, "caption": [pair["caption"] for pair in pairs]})
    pq.write_table(table, tmp_path / "pictures.parquet")
    beam = {"decoding": "beam", "num_beams": 2}  # samples depend on the uid, which is another in each
    run(tmp_path / "expected", corpus=[str(tmp_path / "list.json")], **beam)
    monkeypatch.chdir(tmp_path)
    for source in ("00000.tar", "pictures.parquet", "folder"):
        output = tmp_path / "of" / source
        run(output, corpus=[source], image_root="", **beam)
        assert scored(output) == scored(tmp_path / "expected"), source
    monkeypatch.chdir("of")  # the corpus is found from anywhere
    for source, shards in ((".", False), ("00000.tar", True), ("pictures.parquet", True), ("folder", False)):
        output = tmp_path / ("expected" if source == "." else f"of/{source}")
        assert select([str(output), "threshold=0", f"shards={shards}", "gallery=2"]) == 0
        assert (output / "selected" / "capfilt.html").read_text().count("<img ") == 4, "two of the web, two synthetic"
        if shards:
            samples = Shards([output / "selected" / "shards" / source])
            assert [len(samples[row]["caption"]) for row in range(len(samples))] == [2] * 12


def test_a_corpus_that_was_moved_is_the_same(run, corpus, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = {"captions_per_image": 0, "image_root": ""}
    (tmp_path / "before").mkdir()
    _write_shard(tmp_path / "before" / "00000.tar", _pairs(corpus, 4), corpus[1])
    run(tmp_path / "out", corpus=["before/*.tar"], **options)
    expected = score_files(tmp_path / "out")
    (tmp_path / "before").rename(tmp_path / "after")
    assert select(["out", "shards=true"]) == 1
    assert "no file" in capsys.readouterr().err
    run(tmp_path / "out", corpus=["after/00000.tar"], **options)
    assert score_files(tmp_path / "out") == expected
    assert select(["out", "shards=true"]) == 0


def test_a_prompt_of_a_record_replaces_the_captioners(run, corpus, tmp_path):
    pairs = [{**pair, "prompt": "there are "} if i % 2 else pair for i, pair in enumerate(_pairs(corpus, 6))]
    (tmp_path / "list.json").write_text(json.dumps(pairs))
    run(tmp_path / "out", corpus=[str(tmp_path / "list.json")], decoding="beam")
    prompts = [row[8] for row in rows(tmp_path / "out") if row[2] == "synthetic"]
    assert prompts == ["a picture of ", "there are "] * 3


def test_what_cannot_be_used_is_listed_with_its_reason(run, corpus, tmp_path):
    pairs = _pairs(corpus, 8)
    pairs[2] = {"image": "missing.jpg", "caption": "a cat"}
    pairs[5] = {**pairs[5], "prompt": "word " * 30}
    (tmp_path / "list.json").write_text(json.dumps(pairs))
    options = {"corpus": [str(tmp_path / "list.json")], "decoding": "beam"}
    run(tmp_path / "out", **options, max_bad_images=0.3)
    unusable = json.loads((tmp_path / "out" / "unusable.json").read_text())
    assert [name.rpartition("/")[2] for name, _ in unusable] == ["missing.jpg", pairs[5]["image"].rpartition("/")[2]]
    assert unusable[0][1] == "No such file or directory"
    assert unusable[1][1] == "its prompt has 31 tokens, which leaves no room in max_length = 20"
    assert len({row[1] for row in rows(tmp_path / "out")}) == 6
    with pytest.raises(SystemExit, match=r"2 of 8 images cannot be used, more than max_bad_images = 0.1; the last one"):
        run(tmp_path / "out", **options, max_bad_images=0.1)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"captioner": ""}, "captioner: name a checkpoint that writes captions, or set captions_per_image: 0"),
        ({"captioner": "FILTER"}, "not in the checkpoint:\n    text_decoder (the whole part)"),
        (
            {"filter": "CAPTIONER"},
            "not in the checkpoint:\n    itm_head (the whole part)\n    text_encoder (the whole part)",
        ),
        ({"filter": ""}, "filter = '': must be a checkpoint with a matching head"),
        ({"decoding": "beam", "captions_per_image": 4}, "num_return_sequences=4 exceeds num_beams=3"),
        ({"captions_per_image": -1}, "captions_per_image = -1: must be from 0 to 1,000"),
        ({"batch_size": 0}, "batch_size = 0: must be from 1 to 100,000"),
        ({"batch_size": 10**9}, "batch_size = 1000000000: must be from 1 to 100,000"),
        ({"max_length": 10**9}, "max_length = 1000000000: must be from 2 to 1,000"),
        ({"max_length": 8, "min_length": 9}, "min_length = 9: must be from 0 to max_length = 8"),
        ({"prompt": "word " * 30}, "max_length=20 leaves no room after a prompt of 31 tokens"),
    ],
)
def test_what_cannot_work_is_said_in_a_line(run, checkpoints, tmp_path, keys, message):
    named = {"CAPTIONER": str(checkpoints[0]), "FILTER": str(checkpoints[1])}
    with pytest.raises(SystemExit) as ended:
        run(tmp_path, **{key: named.get(value, value) for key, value in keys.items()})
    assert message in str(ended.value)
    assert len(str(ended.value).splitlines()) <= 6


def test_the_samples_before_the_damage_of_a_shard_are_used_and_the_rest_is_counted(run, corpus, tmp_path):
    pairs = _pairs(corpus, 16)
    for shard, members in (("00000", pairs[:8]), ("00001", pairs[8:])):
        _write_shard(tmp_path / f"{shard}.tar", members, corpus[1])
    whole = (tmp_path / "00001.tar").read_bytes()
    (tmp_path / "00001.tar").write_bytes(whole[: len(whole) // 2])
    options = {"corpus": [str(tmp_path / "*.tar")], "image_root": ""}
    run(tmp_path / "out", **options, max_bad_images=0.2)
    found = sorted({row[1] for row in rows(tmp_path / "out")})
    assert len(found) in range(8 + 2, 8 + 6)
    assert found == [f"{number // 8:05d}.tar/{number:05d}" for number in range(len(found))]
    ((name, reason),) = json.loads((tmp_path / "out" / "unusable.json").read_text())
    assert name == "00001.tar"
    assert reason.endswith("only the samples before are used")
    with pytest.raises(SystemExit, match=r"1 of \d+ images cannot be used.*the last one is 00001.tar: ") as ended:
        run(tmp_path / "out", **options, max_bad_images=0.01)
    assert "What was scored stays" in str(ended.value)
    assert sorted({row[1] for row in rows(tmp_path / "out")}) == found


def test_a_synthetic_text_without_a_word_is_left_out_and_counted(run, corpus, tmp_path, monkeypatch, caplog):
    (tmp_path / "list.json").write_text(json.dumps(_pairs(corpus, 3)))
    generate_from = BLIPDecoder.generate_from

    def with_marks_alone(*arguments):
        captions, generated = generate_from(*arguments)
        return [["?! ...", *texts[1:]] for texts in captions], generated

    options = {"corpus": [str(tmp_path / "list.json")], "captions_per_image": 2}
    run(tmp_path / "all", **options)
    expected = [row for row in rows(tmp_path / "all") if row[2:4] != ("synthetic", 0)]
    monkeypatch.setattr(BLIPDecoder, "generate_from", with_marks_alone)
    run(tmp_path / "out", **options)
    found = rows(tmp_path / "out")
    assert [(*row[:3], *row[4:5], row[7]) for row in found] == [(*row[:3], *row[4:5], row[7]) for row in expected]
    assert [row[3] for row in found] == [0] * 6, "the second text of each is its first now"
    assert "3 synthetic texts hold no word" in caplog.text


def test_a_folder_of_another_run_is_refused_with_what_differs(run, corpus, tmp_path):
    (tmp_path / "list.json").write_text(json.dumps(_pairs(corpus, 3)))
    options = {"corpus": [str(tmp_path / "list.json")], "captions_per_image": 0}
    run(tmp_path / "out", **options)
    before = score_files(tmp_path / "out")
    with pytest.raises(SystemExit, match=r"another run \(corpus.unit_size was 10, is 5 now\)"):
        run(tmp_path / "out", **{**options, "unit_size": 5})
    with pytest.raises(SystemExit, match=r"captioner was null, is .*config.captions_per_image was 0, is 1 now"):
        run(tmp_path / "out", **{**options, "captions_per_image": 1})
    (tmp_path / "list.json").write_text(json.dumps(_pairs(corpus, 4)))
    with pytest.raises(SystemExit, match=r"another run \(corpus\."):
        run(tmp_path / "out", **options)
    assert score_files(tmp_path / "out") == before


def _write_shard(file, pairs, images):
    """A tar of these pairs, whose keys count from its own number times 8."""
    with tarfile.open(file, "w") as tar:
        for number, pair in enumerate(pairs, 8 * int(file.stem)):
            for suffix, content in (
                (".jpg", (images / pair["image"]).read_bytes()),
                (".txt", pair["caption"].encode()),
            ):
                member = tarfile.TarInfo(f"{number:05d}{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def _pairs(corpus, number):
    return json.loads(corpus[0].read_text())[:number]
