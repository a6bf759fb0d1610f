"""CapFilt's run: what is written does not depend on processes, batches or interruptions; what cannot be used is told."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest
import torch

import capfilt
from bootstrapping.scores import open_scores, read_columns
from files import REPOSITORY
from models.blip import BLIPDecoder
from models.blip_itm import BLIPMatcher
from models.weights.build import build_from_checkpoint
from transform.image import EvalTransform, normalize
from data.media.image_file import open_image
from data.text import clean_caption


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


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return tmp_path_factory.mktemp("whole")


def files(folder):
    """Name -> hash of each score file."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted((folder / "scores").iterdir())
    }


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
