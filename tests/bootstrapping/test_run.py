"""CapFilt's run: its result depends on neither processes, batches nor interruptions; what cannot be used is told."""

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import capfilt
from bootstrapping.scores import open_scores, read_columns
from data.media.image_file import open_image
from data.text import clean_caption
from files import REPOSITORY
from models.blip import BLIPDecoder
from models.blip_itm import BLIPMatcher
from models.weights.build import build_from_checkpoint
from transform.image import EvalTransform, normalize


@pytest.fixture
def arguments(checkpoints, corpus):
    """The command line of a run, with keys replaced and added."""

    def build(output, **keys):
        given = {
            "corpus": [str(corpus[0])],
            "image_root": str(corpus[1]),
            "captioner": str(checkpoints[0]),
            "filter": str(checkpoints[1]),
            "unit_size": 10,
            "batch_size": 4,
            "num_workers": 1,
            **keys,
        }
        overrides = [f"{key}={json.dumps(value)}" for key, value in given.items()]
        config = str(REPOSITORY / "configs/capfilt.yaml")
        return ["--config", config, "--output_dir", str(output), "--device", "cpu", *overrides]

    return build


@pytest.fixture
def run(arguments):
    """Run in this process."""
    return lambda output, **keys: capfilt.main(arguments(output, **keys))


def files(folder):
    """Name -> hash of each score file."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted((folder / "scores").iterdir())}


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
    expected = files(tmp_path / "whole")
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
    assert files(begun) == expected
    assert {name: (begun / "scores" / name).stat().st_mtime_ns for name in kept} == kept, "these were done"


def test_several_processes_write_the_same_bytes_as_one(run, arguments, torchrun_script, tmp_path):
    run(tmp_path / "one")
    torchrun_script(2, "capfilt.py", *arguments(tmp_path / "two"))
    assert files(tmp_path / "two") == files(tmp_path / "one")
    assert (tmp_path / "two" / "capfilt.json").read_bytes() == (tmp_path / "one" / "capfilt.json").read_bytes()


def scored(folder):
    """(text, scores) of each row: what does not depend on how the corpus is stored."""
    return [(*row[2:5], *(round(score, 4) for score in row[5:7])) for row in rows(folder)]


def test_lists_shards_parquet_and_folders_give_the_same_scores(run, corpus, tmp_path):
    pairs = json.loads(corpus[0].read_text())[:12]
    pictures = [(corpus[1] / pair["image"]).read_bytes() for pair in pairs]
    (tmp_path / "list.json").write_text(json.dumps(pairs))
    (tmp_path / "folder").mkdir()
    with tarfile.open(tmp_path / "00000.tar", "w") as tar:
        for number, (pair, picture) in enumerate(zip(pairs, pictures, strict=True)):
            for suffix, content in ((".jpg", picture), (".txt", pair["caption"].encode())):
                member = tarfile.TarInfo(f"{number:05d}{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
                (tmp_path / "folder" / f"{number:05d}{suffix}").write_bytes(content)
    table = pa.table({"image": pictures, "caption": [pair["caption"] for pair in pairs]})
    pq.write_table(table, tmp_path / "pictures.parquet")
    beam = {"decoding": "beam", "num_beams": 2}  # samples depend on the uid, which is another in each
    run(tmp_path / "expected", corpus=[str(tmp_path / "list.json")], **beam)
    for source in ("00000.tar", "pictures.parquet", "folder"):
        output = tmp_path / "of" / source
        run(output, corpus=[str(tmp_path / source)], image_root="", **beam)
        assert scored(output) == scored(tmp_path / "expected"), source


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


def test_a_folder_of_another_run_is_refused_with_what_differs(run, corpus, tmp_path):
    (tmp_path / "list.json").write_text(json.dumps(_pairs(corpus, 3)))
    options = {"corpus": [str(tmp_path / "list.json")], "captions_per_image": 0}
    run(tmp_path / "out", **options)
    before = files(tmp_path / "out")
    with pytest.raises(SystemExit, match=r"another run \(corpus.unit_size was 10, is 5 now\)"):
        run(tmp_path / "out", **{**options, "unit_size": 5})
    with pytest.raises(SystemExit, match=r"captioner was null, is .*config.captions_per_image was 0, is 1 now"):
        run(tmp_path / "out", **{**options, "captions_per_image": 1})
    (tmp_path / "list.json").write_text(json.dumps(_pairs(corpus, 4)))
    with pytest.raises(SystemExit, match=r"another run \(corpus\."):
        run(tmp_path / "out", **options)
    assert files(tmp_path / "out") == before


def _pairs(corpus, number):
    return json.loads(corpus[0].read_text())[:number]
