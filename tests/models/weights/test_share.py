"""A folder that is saved, or pushed to a stand-in of the hub, is the model again; its card tells what is known."""

import json
from pathlib import Path

import pytest
import torch

from models.blip import BLIPDecoder, BLIPFeatureExtractor
from models.blip_itm import BLIPMatcher
from models.blip_nlvr import BLIPNLVR
from models.blip_pretrain import BLIPPretrain
from models.blip_vqa import BLIPVQA
from models.errors import UserError
from models.pixels import Pixels
from models.vocabulary import SPECIAL_TOKENS
from models.weights.build import build_from_checkpoint
from models.weights.share import UploadError
from tests.hub import running_hub
from tests.small_model import TEXT, VIT

SIZES = {"image_size": 32, "vit": VIT, "med_config": TEXT}


@pytest.fixture
def words(tmp_path):
    """A vocabulary of one's own."""
    path = tmp_path / "words.txt"
    path.write_text("".join(f"{word}\n" for word in [*SPECIAL_TOKENS.values(), "ein", "hund"]))
    return path


@pytest.fixture
def hub(monkeypatch, tmp_path):
    monkeypatch.delenv("BLIP_OFFLINE", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with running_hub(monkeypatch, str(tmp_path / "hub_cache")) as hub:
        yield hub


def assert_same(built, model):
    assert built.vocabulary == model.vocabulary
    assert built.describe() == model.describe()
    weights = model.state_dict()
    assert built.state_dict().keys() == weights.keys()
    assert all(torch.equal(tensor, weights[key]) for key, tensor in built.state_dict().items())


@pytest.mark.parametrize("kind", [BLIPDecoder, BLIPMatcher, BLIPVQA, BLIPNLVR, BLIPFeatureExtractor])
def test_a_folder_is_the_model_again(kind, words, tmp_path):
    options = {"prompt": "ein"} if kind is BLIPDecoder else {}
    model = kind(**SIZES, vocab_file=words, **options)
    model.pixels = Pixels((0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
    folder = model.save_pretrained(tmp_path / "folder")
    words.unlink()
    built = build_from_checkpoint(kind, folder)
    assert_same(built, model)
    assert getattr(built, "prompt", "") == getattr(model, "prompt", "")


def test_one_folder_is_read_by_transformers_too(words, tmp_path):
    from transformers import BlipForConditionalGeneration

    model = BLIPDecoder(**SIZES, vocab_file=words).eval()
    theirs = BlipForConditionalGeneration.from_pretrained(model.save_pretrained(tmp_path / "folder")).eval()
    image = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        states = theirs.vision_model(image).last_hidden_state
        torch.testing.assert_close(states, model.visual_encoder(image), rtol=0, atol=1e-5)


def test_models_that_transformers_cannot_hold_are_saved_all_the_same(tmp_path):
    wide = BLIPVQA(image_size=32, vit={**VIT, "embed_dim": 48, "num_heads": 3}, med_config=TEXT)
    assert_same(build_from_checkpoint(BLIPVQA, wide.save_pretrained(tmp_path / "wide")), wide)
    pretrained = BLIPPretrain(**SIZES, queue_size=8).save_pretrained(tmp_path / "pretrained")
    captioner = build_from_checkpoint(BLIPDecoder, pretrained)
    assert captioner.visual_encoder.image_size == 32


CONFIG = {
    "train_file": ["/home/me/secret/train.json"],
    "pretrained": "https://h/model.pth?token=secret",
    "max_epoch": 5,
    "val_file": "",
}


def run_folder(tmp_path, model, **content):
    folder = tmp_path / "run"
    folder.mkdir()
    torch.save({"model": model.state_dict(), "config": CONFIG, **content}, folder / "checkpoint_best.pth")
    compared = {"got": 70.5, "published": 78.25, "difference": -7.75}
    (folder / "evaluate.txt").write_text(json.dumps({"val_CIDEr": 123.456, "VQA test-dev": compared, "note": "x"}))
    return folder


def test_the_card_tells_what_is_known_and_leaves_the_license_to_fill_in(tmp_path):
    model = BLIPDecoder(**SIZES)
    run = run_folder(tmp_path, model)
    card = (
        model.save_pretrained(tmp_path / "my-captioner", checkpoint=run / "checkpoint_best.pth") / "README.md"
    ).read_text()
    assert card.startswith("---\n# license: fill in")
    for line in (
        "pipeline_tag: image-to-text",
        "library_name: transformers",
        "# my-captioner",
        "that captions images.",
        "by `BlipForConditionalGeneration` of `transformers` and by `build_from_checkpoint(BLIPDecoder,",
        f"| parameters | {sum(p.numel() for p in model.parameters()):,} |",
        "| image | 32 x 32 pixels, mean (0.48145466, 0.4578275, 0.40821073)",
        "| train_file | train.json |",
        "| pretrained | model.pth",
        "| max_epoch | 5 |",
        "| val_CIDEr | 123.5 |",
        "| VQA test-dev | 70.5 |",
        "*Fill in: under which license",
    ):
        assert line in card
    assert "secret" not in card
    assert "val_file" not in card


def test_scores_are_those_of_the_saved_weights_or_of_the_file_that_is_named(tmp_path):
    model = BLIPNLVR(**SIZES)
    run = run_folder(tmp_path, model, metrics={"val_accuracy": 81.25}, epoch=3)
    checkpoint = run / "checkpoint_best.pth"
    card = (model.save_pretrained(tmp_path / "best", checkpoint=checkpoint) / "README.md").read_text()
    assert "| val_accuracy | 81.25 |" in card, "those of its epoch, where evaluate.txt is of the last"
    assert "val_CIDEr" not in card
    named = model.save_pretrained(tmp_path / "named", checkpoint=checkpoint, scores=run / "evaluate.txt")
    assert "| val_CIDEr | 123.5 |" in (named / "README.md").read_text()
    bare = (model.save_pretrained(tmp_path / "bare") / "README.md").read_text()
    assert "*Fill in: what it was trained on.*" in bare
    assert "*Fill in: how well it does, and on which data.*" in bare
    assert "transformers" not in bare


def test_a_card_that_its_owner_filled_in_is_kept(tmp_path):
    model = BLIPDecoder(**SIZES)
    folder = model.save_pretrained(tmp_path / "folder")
    (folder / "README.md").write_text("license: mit")
    model.save_pretrained(folder)
    assert (folder / "README.md").read_text() == "license: mit"


def test_what_is_pushed_is_the_model_under_its_hub_name(hub, words, tmp_path):
    model = BLIPDecoder(**SIZES, vocab_file=words)
    run = run_folder(tmp_path, model)
    hub.token = "right"
    url = model.push_to_hub("me/mine", private=True, token="right", checkpoint=run / "checkpoint_best.pth")
    assert url == f"{hub.url}/me/mine/commit/{'1' * 40}"
    assert hub.private == {"me/mine"}
    assert {"README.md", "config.json", "model.safetensors", "vocab.txt"} <= hub.files["me/mine"].keys()
    assert b"# mine" in hub.files["me/mine"]["README.md"]
    words.unlink()
    assert_same(build_from_checkpoint(BLIPDecoder, "me/mine"), model)

    hub.files["me/mine"]["README.md"] = b"license: mit"
    model.push_to_hub("me/mine", token="right")
    assert hub.files["me/mine"]["README.md"] == b"license: mit", "its owner's card is kept"


def test_a_push_that_cannot_be_gets_one_line(hub, tmp_path, monkeypatch):
    model = BLIPDecoder(**SIZES)
    hub.token = "right"
    with pytest.raises(UploadError, match=r"cannot push to me/mine: .*401.*log in with `hf auth login`") as error:
        model.push_to_hub("me/mine", token="wrong")
    assert "\n" not in str(error.value)
    with pytest.raises(UploadError, match=r"cannot push to a/b/c: Repo id must be") as error:
        model.push_to_hub("a/b/c", token="right")
    assert "\n" not in str(error.value)
    monkeypatch.setenv("BLIP_OFFLINE", "1")
    with pytest.raises(UploadError, match="the environment forbids the network"):
        model.push_to_hub("me/mine", token="right")


def test_what_cannot_be_saved_gets_one_line(tmp_path):
    model = BLIPDecoder(**SIZES)
    (tmp_path / "file").write_text("text")
    with pytest.raises(UserError, match=r"file: the model cannot be written there"):
        model.save_pretrained(tmp_path / "file")
    with pytest.raises(UserError, match="file holds no scores: it is not JSON"):
        model.save_pretrained(tmp_path / "folder", scores=tmp_path / "file")
    with pytest.raises(UserError, match=r"no checkpoint '.*nowhere.pth'"):
        model.save_pretrained(tmp_path / "folder", checkpoint=Path("nowhere.pth"))
    assert not (tmp_path / "folder").exists()
