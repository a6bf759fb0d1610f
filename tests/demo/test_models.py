"""The models that come along: found by name without a network, they say of their pictures what is written down."""

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import predict
from data.shapes import Scene, caption_is_right
from data.shapes.render import render
from demo.models import PICTURES, IncludedModels, picture_name, read_pictures, say, store
from files import REPOSITORY
from models import build_from_checkpoint, load_checkpoint
from models.blip import BLIPDecoder
from models.blip_retrieval import BLIPRetrieval
from models.vocabulary import Vocabulary
from models.weights import files
from models.weights.files import CheckpointError, find, read_state
from models.weights.included import FOLDER, INCLUDED


@pytest.fixture(scope="module")
def models():
    return IncludedModels.load()


@pytest.fixture(autouse=True)
def far_from_any_network(monkeypatch, tmp_path):
    monkeypatch.setenv("BLIP_OFFLINE", "1")
    monkeypatch.setenv("BLIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def test_the_models_say_what_is_written_down_and_most_of_it_is_right(models):
    pictures = read_pictures()
    right = Counter()
    for number, (picture, said) in enumerate(zip(pictures, say(models, PICTURES, pictures), strict=True)):
        assert said["caption"] == picture["said"]["caption"]
        assert said["answers"] == picture["said"]["answers"]
        assert said["match"] == pytest.approx(picture["said"]["match"], abs=0.005)
        right["captions"] += caption_is_right(said["caption"], Scene.from_json(picture["scene"]))
        right["answers"] += sum(a == q["answer"] for a, q in zip(said["answers"], picture["questions"], strict=True))
        right["texts found"] += int(np.argmax(said["match"])) == number
    assert right == {"captions": 7, "answers": 19, "texts found": 7}
    table = np.array([picture["said"]["match"] for picture in pictures])
    assert (table.argmax(axis=0) == np.arange(len(pictures))).all()  # each text finds its picture


def test_predict_names_what_the_pictures_show(capsys):
    assert predict.main(["caption", str(PICTURES), "--checkpoint", "demo_caption"]) == 0
    said = {picture["image"]: picture["said"]["caption"] for picture in read_pictures()}
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert {Path(image).name: caption for image, caption in lines} == said


def test_the_pictures_are_scenes_of_the_test_split_and_have_their_names():
    for picture in read_pictures():
        scene = Scene.from_json(picture["scene"])
        assert picture["image"] == picture_name(scene)
        shown, drawn = np.array(Image.open(PICTURES / picture["image"]), int), np.array(render(scene, 64), int)
        assert np.abs(shown - drawn).mean() < 4  # JPEG
        assert picture["of"].startswith("test/")
    assert {path.name for path in PICTURES.glob("*.jpg")} == {picture["image"] for picture in read_pictures()}


def test_their_files_are_small_and_hold_half_precision_and_words(models):
    assert {path.name for path in FOLDER.iterdir()} == {"README.md", *(file.name for file in INCLUDED.values())}
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 12e6
    for name, model in models.named():
        stored, metadata = read_state(name)
        assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
        assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.float32}
        assert Vocabulary.read(name).tokens == model.vocabulary.tokens
        assert tuple(metadata["architecture"]["vocabulary"]) == model.vocabulary.tokens
        assert "heart" in model.vocabulary.tokens


@pytest.mark.parametrize("name", list(INCLUDED))
def test_the_same_weights_give_the_same_bytes(models, name, tmp_path):
    model = getattr(models, name)
    weights = {key: tensor.float() for key, tensor in read_state(name)[0].items()}
    checkpoint = {"model": weights, "architecture": model.describe(), "config": {"prompt": "a picture of "}}
    torch.save(checkpoint, tmp_path / "checkpoint_last.pth")
    store(tmp_path / "checkpoint_last.pth", type(model), tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == INCLUDED[name].read_bytes()


def test_copies_and_queues_of_training_are_left_out(models, tmp_path):
    described = models.demo_match.describe()
    words = models.demo_match.vocabulary
    trained = BLIPRetrieval(described["med_config"], 40, described["vit"], embed_dim=64, queue_size=8, vocab_file=words)
    torch.save({"model": trained.state_dict(), "architecture": described}, tmp_path / "checkpoint_last.pth")
    kept = store(tmp_path / "checkpoint_last.pth", type(models.demo_match), tmp_path / "kept.safetensors")
    assert torch.equal(kept.itm_head.weight, trained.itm_head.weight.bfloat16().float())
    stored = read_state(tmp_path / "kept.safetensors")[0]
    assert stored.keys() == {*models.demo_match.state_dict(), "temp"}
    load_checkpoint(trained, "demo_match")  # which retrieval goes on with
    assert torch.equal(trained.temp, read_state("demo_match")[0]["temp"].float())


def test_a_copy_of_the_models_without_the_files_says_what_is_missing(monkeypatch, tmp_path):
    monkeypatch.setattr(files, "INCLUDED", {"demo_caption": tmp_path / "demo_caption.safetensors"})
    with pytest.raises(CheckpointError, match=r"demo_caption comes with the repository, as .* which is not here"):
        find("demo_caption")


def test_a_misspelt_name_leads_to_the_right_one():
    with pytest.raises(CheckpointError, match="did you mean demo_caption"):
        build_from_checkpoint(BLIPDecoder, "demo_captions")


def test_a_prediction_does_not_write_over_the_model(capsys, tmp_path):
    monkey = tmp_path / "model.safetensors"
    shutil.copy(INCLUDED["demo_match"], monkey)
    out = str(INCLUDED["demo_match"])
    command = ["features", str(PICTURES), "--checkpoint", "demo_match", "--out", out]
    assert predict.main(command) == 2
    assert INCLUDED["demo_match"].read_bytes() == monkey.read_bytes()


def test_the_card_names_every_model_and_pictures_of_the_page():
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in card for name in INCLUDED)
    assert json.loads((PICTURES / "answers.json").read_text())[:2] == ["yes", "no"]
    assert REPOSITORY in FOLDER.parents
