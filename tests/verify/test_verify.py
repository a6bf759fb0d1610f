"""`python -m verify` on small stand-ins of the released files, from a server on this machine."""

import dataclasses
import functools
import http.server
import shutil
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from data.media.image_file import open_image
from models.blip import blip_decoder
from models.blip_itm import blip_itm
from models.blip_vqa import blip_vqa
from models.generation import SearchOptions
from models.weights.digest import file_digest
from models.weights.included import INCLUDED
from models.weights.load import load_state
from models.weights.released import RELEASED
from tests.small_model import TEXT, VIT
from transform.image import EvalTransform, normalize
from verify import __main__ as command
from verify.checks import KINDS, Checker
from verify.public import PICTURES, VECTORS
from verify.vectors import AnswerVector, CaptionVector, Finding, GreedyTokensVector, MatchVector, RankVector

SIZES = {"image_size": 32, "vit": VIT, "med_config": TEXT}
MATCHER, CAPTIONER, ANSWERER = "model_base_retrieval_coco", "model_large_caption", "model_vqa"
NO_VECTORS = "model_large_retrieval_coco"


def made(build):
    torch.manual_seed(0)
    model = build(**SIZES).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def save(model, path):
    torch.save({"model": model.state_dict(), "config": SIZES}, path)


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """A folder as the server has it: stand-ins of four checkpoints and a picture; and the models."""
    folder = tmp_path_factory.mktemp("released")
    models = {MATCHER: made(blip_itm), CAPTIONER: made(blip_decoder), ANSWERER: made(blip_vqa)}
    for name, model in models.items():
        save(model, folder / f"{name}.pth")
    shutil.copy(folder / f"{MATCHER}.pth", folder / f"{NO_VECTORS}.pth")
    pixels = np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "merlion.png")
    return folder, models


@pytest.fixture(scope="module")
def vectors(released):
    """Recorded by the models' own calls: a vector of each kind, at the checkpoint's size and at another."""
    folder, models = released
    image = normalize(EvalTransform(32)(open_image(folder / "merlion.png"))[None])
    match, caption, answer = models[MATCHER], models[CAPTIONER], models[ANSWERER]
    scores = match.score(image, ["a red dog"])
    with torch.inference_mode():
        cls = match(image, ["a red dog"]).softmax(dim=1)[0, 1].item()
    _, greedy = caption.generate_n_best(image, SearchOptions(num_beams=1, min_length=0, max_length=20), "")
    order, _ = answer.rank_answers(image, "what?", ["yes", "no", "red"])
    shared = {"picture": "merlion.png", "image_size": 32, "origin": "a recording"}
    text = {"text": "a red dog", "checkpoint": MATCHER}
    return (
        MatchVector(**shared, **text, match=scores.match.item(), cosine=scores.cosine.item()),
        MatchVector(**shared, **text, match=cls, first_token="[CLS]"),
        MatchVector(**{**shared, "image_size": 48}, **text, cosine=cosine_at_48_pixels(match, folder)),
        GreedyTokensVector(**shared, checkpoint=CAPTIONER, ids=" ".join(map(str, greedy.ids[0, 0].tolist()))),
        CaptionVector(
            **shared,
            checkpoint=CAPTIONER,
            caption=caption.generate(image, num_beams=3, min_length=10, max_length=30)[0],
            num_beams=3,
            min_length=10,
            max_length=30,
        ),
        AnswerVector(
            **shared, checkpoint=ANSWERER, question="what?", answer=answer.generate_answers(image, "what?")[0]
        ),
        RankVector(
            **shared,
            checkpoint=ANSWERER,
            question="what?",
            answers=("yes", "no", "red"),
            first=("yes", "no", "red")[int(order[0, 0])],
        ),
    )


def cosine_at_48_pixels(match, folder):
    larger = blip_itm(**{**SIZES, "image_size": 48}).eval()
    load_state(larger, match.state_dict(), source="the stand-in")
    return larger.score(
        normalize(EvalTransform(48)(open_image(folder / "merlion.png"))[None]), "a red dog"
    ).cosine.item()


@pytest.fixture
def verify(released, vectors, tmp_path, monkeypatch, capsys):
    """`verify(*arguments)` -> exit status and lines of `python -m verify`, with a server in place of the real ones."""
    folder, _ = released
    served = tmp_path / "served"
    shutil.copytree(folder, served)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(served))
    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    address = f"http://127.0.0.1:{server.server_address[1]}/"
    for name in RELEASED:
        entry = dataclasses.replace(RELEASED[name], folder=address, size=None, sha256=None)
        monkeypatch.setitem(RELEASED, name, entry)
    monkeypatch.setattr(command, "VECTORS", vectors)
    monkeypatch.setattr(command, "PICTURES", {"merlion.png": f"{address}merlion.png"})
    monkeypatch.setenv("BLIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("BLIP_OFFLINE", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("time.sleep", lambda _: None)

    def run(*arguments):
        status = command.main(["--device", "cpu", *map(str, arguments)])
        return status, capsys.readouterr().out.splitlines()

    run.served, run.cache = served, tmp_path / "cache"
    yield run
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_right_files_hold(verify):
    status, lines = verify(MATCHER, CAPTIONER, ANSWERER, NO_VECTORS)
    assert status == 0
    verdicts = [line.split()[0] for line in lines if line.startswith("  ")]
    assert verdicts == ["ok"] * (4 + 8) + ["loads;"], "four files and eight findings"
    assert sum("difference +0.00000" in line or "difference -0.00000" in line for line in lines) == 4
    assert file_digest(verify.served / f"{MATCHER}.pth") in lines[1]
    assert lines[-1] == f"as expected: {MATCHER}, {CAPTIONER}, {ANSWERER}, {NO_VECTORS}"


def test_wrong_weights_differ_and_by_how_much(verify, released):
    _, models = released
    wrong = made(blip_itm)
    with torch.no_grad():
        wrong.itm_head.weight.mul_(-1)
    save(wrong, verify.served / f"{MATCHER}.pth")
    status, lines = verify(MATCHER)
    assert status == 1
    (match,) = (line for line in lines if "match" in line and "[ENC]" in line)
    (cosine,) = (line for line in lines if "cosine" in line and "at 32 pixels" in line)
    got, expected = (float(match.split(f"{word} ")[1].split(",")[0]) for word in ("got", "expected"))
    assert match.startswith("  DIFFERS")
    assert f"difference {got - expected:+.5f}"[:-2] in match
    assert cosine.startswith("  ok"), "the matching head has no part in it"
    assert lines[-1] == f"not as expected: {MATCHER}"


def test_another_text_differs(verify):
    shutil.copy(verify.served / f"{CAPTIONER}.pth", verify.served / "kept.pth")
    wrong = made(blip_decoder)
    with torch.no_grad():
        wrong.text_decoder.cls.predictions.bias.copy_(torch.arange(len(wrong.tokenizer)) % 97.0)
    save(wrong, verify.served / f"{CAPTIONER}.pth")
    status, lines = verify(CAPTIONER)
    assert status == 1
    assert all("got '" in line and "expected '" in line for line in lines if "DIFFERS" in line)


def test_a_file_of_ones_own_is_checked_without_a_network(verify, monkeypatch):
    monkeypatch.setenv("BLIP_OFFLINE", "1")
    file = verify.served / f"{ANSWERER}.pth"
    status, lines = verify(ANSWERER, "--file", file, "--pictures", verify.served)
    assert (status, lines[-1]) == (0, f"as expected: {ANSWERER}")
    assert not verify.cache.exists()


def test_without_a_network_what_is_missing_is_named(verify, monkeypatch):
    verify(MATCHER)
    monkeypatch.setenv("BLIP_OFFLINE", "1")
    (verify.cache / "pictures" / "merlion.png").unlink()
    status, lines = verify(MATCHER, ANSWERER)
    assert status == 2
    missing = [line for line in lines if line.startswith("  MISSING")]
    assert [("merlion.png" in line, f"{ANSWERER}.pth" in line) for line in missing] == [(True, False)] * 3 + [
        (False, True)
    ]
    assert all("the environment forbids the network" in line for line in missing)
    assert lines[-1] == f"not checked whole, since something is missing: {MATCHER}, {ANSWERER}"
    status, lines = verify(ANSWERER, "--file", verify.served / "nowhere.pth")
    assert status == 2
    assert "there is no such file" in lines[1]


def test_what_the_server_lacks_is_missing(verify):
    (verify.served / f"{CAPTIONER}.pth").unlink()
    (verify.served / "merlion.png").write_bytes(b"<html>")
    status, lines = verify(CAPTIONER, ANSWERER)
    assert status == 2
    assert "404" in "".join(lines)
    assert sum("MISSING merlion.png" in line and "not a picture" in line for line in lines) == 2


def test_a_damaged_download_differs(verify):
    verify(MATCHER)
    path = verify.cache / f"{MATCHER}.pth"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    status, lines = verify(MATCHER)
    assert status == 1
    assert any("DIFFERS" in line and "is damaged" in line and "Delete" in line for line in lines)


def test_a_wrong_hash_differs_whether_sent_or_given(verify, monkeypatch):
    monkeypatch.setitem(RELEASED, ANSWERER, dataclasses.replace(RELEASED[ANSWERER], sha256="0" * 64))
    status, lines = verify(ANSWERER)
    assert status == 1
    assert "what was downloaded is not the expected file" in lines[1]
    status, lines = verify(ANSWERER, "--file", verify.served / f"{ANSWERER}.pth")
    assert status == 1
    assert lines[1].startswith("  DIFFERS")
    assert "000 is expected" in lines[1]
    assert lines[2].startswith("  ok answer"), "and what it answers is told all the same"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["model_of_no_one"],
            "model_of_no_one: no such checkpoint; there are demo_caption, demo_match, demo_vqa, model_base_14M",
        ),
        (["--file", "a.pth"], "--file is of one checkpoint: name it"),
        ([MATCHER, ANSWERER, "--file", "a.pth"], "--file is of one checkpoint: name it"),
    ],
)
def test_a_wrong_command_line_is_explained(arguments, said, capsys):
    with pytest.raises(SystemExit) as ended:
        command.main(arguments)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_the_models_that_come_along_hold_without_a_network_or_cache(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("BLIP_OFFLINE", "1")
    monkeypatch.setenv("BLIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    assert command.main([*INCLUDED, "--device", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "as expected: demo_caption, demo_match, demo_vqa"
    assert sum(line.startswith("  ok") for line in lines) == 3 + 8
    assert not (tmp_path / "cache").exists()


def test_the_vectors_are_of_checkpoints_and_pictures_that_there_are():
    for vector in VECTORS:
        assert vector.picture in PICTURES
        assert issubclass(KINDS["retrieval"], vector.kind) or vector.kind in KINDS.values()
        assert vector.checkpoint in {*RELEASED, *INCLUDED}
    assert INCLUDED.keys() < {vector.checkpoint for vector in VECTORS}


@pytest.mark.parametrize(
    ("got", "expected", "holds"),
    [
        (0.98613, 0.98613, True),
        (0.98622, 0.98613, True),
        (0.98624, 0.98613, False),
        (float("nan"), 0.98613, False),
        ("sunset", "sunset", True),
        ("a sunset", "sunset", False),
    ],
)
def test_numbers_have_a_tolerance_and_texts_none(got, expected, holds):
    assert Finding("x", got, expected).holds is holds


def test_a_picture_of_the_repository_needs_no_network(released, vectors, tmp_path):
    folder, _ = released
    lines = []
    checker = Checker(vectors, {"merlion.png": str(folder / "merlion.png")}, None, torch.device("cpu"), lines.append)
    assert checker.check(ANSWERER, folder / f"{ANSWERER}.pth") == 0
    assert all(line.startswith("  ok") for line in lines[1:])
