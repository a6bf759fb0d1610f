"""Our weights in Hugging Face's classes give what they give here, and come back unchanged."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from transformers import (
    BlipConfig,
    BlipForConditionalGeneration,
    BlipForImageTextRetrieval,
    BlipForQuestionAnswering,
    BlipProcessor,
)

from models.blip import BLIPDecoder, blip_decoder, blip_feature_extractor
from models.blip_itm import BLIPMatcher, blip_itm
from models.blip_vqa import blip_vqa
from models.generation import SearchOptions, generate
from models.tokenizer import tokenize
from models.weights.files import hub_folder
from models.weights.huggingface import save_huggingface
from models.weights.huggingface_names import from_huggingface, to_huggingface
from models.weights.load import load_checkpoint

Golden = Callable[[str], Path]
VIT = {"embed_dim": 48, "depth": 2, "num_heads": 3, "patch_size": 16}
NARROW_VIT = {"embed_dim": 32, "depth": 2, "num_heads": 2, "patch_size": 16}  # as wide as the text model
TOLERANCE = {"rtol": 0, "atol": 1e-5}  # with both sides in float64, so that only a difference of kind exceeds it


@pytest.fixture(scope="module")
def sizes(golden: Golden) -> dict:
    return {"image_size": 64, "vit": VIT, "med_config": json.loads(golden("med_config.json").read_text())}


@pytest.fixture(scope="module")
def captioner(golden: Golden, sizes: dict) -> BLIPDecoder:
    return blip_decoder(str(golden("caption/checkpoint.pth")), **sizes).double().eval()


@pytest.fixture(scope="module")
def matcher(golden: Golden, sizes: dict) -> BLIPMatcher:
    return blip_itm(str(golden("retrieval/checkpoint.pth")), embed_dim=16, **sizes).double().eval()


@pytest.fixture(scope="module")
def answerer(sizes: dict) -> nn.Module:
    torch.manual_seed(0)
    model = blip_vqa(**sizes | {"vit": NARROW_VIT}).double().eval()
    for parameter in model.parameters():  # weights large enough that answers depend on the picture
        nn.init.normal_(parameter, std=0.3)
    return model


@pytest.fixture(scope="module")
def images(golden: Golden) -> torch.Tensor:
    return torch.from_numpy(np.load(golden("caption/images.npy"))).double()


def load_theirs(theirs: type, folder: Path) -> nn.Module:
    model, info = theirs.from_pretrained(folder, dtype=torch.float64, output_loading_info=True)
    assert not any(info[problem] for problem in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    return model.eval()


@torch.no_grad()
def test_a_captioner_gives_the_same_states_logits_and_greedy_captions(
    captioner: BLIPDecoder, images: torch.Tensor, tmp_path: Path
) -> None:
    theirs = load_theirs(BlipForConditionalGeneration, save_huggingface(captioner, tmp_path / "captioner"))
    ours = captioner.visual_encoder(images)
    torch.testing.assert_close(theirs.vision_model(images).last_hidden_state, ours, **TOLERANCE)

    text = ["a picture of the red boat"] * len(images)
    ids, _ = tokenize(captioner.tokenizer, text, images.device, first_token=captioner.tokenizer.dec_token_id)
    decoder = captioner.text_decoder
    logits = decoder.logits(decoder.bert(ids, memory=decoder.project(ours), causal=True))
    torch.testing.assert_close(theirs(images, ids).logits.float(), logits, **TOLERANCE)

    prompt = torch.tensor([[*captioner.prompt_ids, captioner.tokenizer.sep_token_id]] * len(images))
    lengths = {"max_length": 16, "min_length": 8}
    expected = theirs.generate(images, prompt, num_beams=1, do_sample=False, **lengths)
    _, generated = captioner.generate_n_best(images, SearchOptions(num_beams=1, **lengths))
    assert without_padding(generated.ids[:, 0]) == without_padding(expected)


def without_padding(ids: torch.Tensor) -> list[list[int]]:
    return [[token for token in row if token != 0] for row in ids.tolist()]


@torch.no_grad()
def test_their_training_loss_is_ours(captioner: BLIPDecoder, images: torch.Tensor, tmp_path: Path) -> None:
    theirs = load_theirs(BlipForConditionalGeneration, save_huggingface(captioner, tmp_path / "captioner"))
    text = ["a picture of the red boat"] * len(images)
    ids, _ = tokenize(captioner.tokenizer, text, images.device, first_token=captioner.tokenizer.dec_token_id)
    labels = ids.clone()
    labels[:, : len(captioner.prompt_ids)] = -100
    torch.testing.assert_close(theirs(images, ids, labels=labels).loss.float(), captioner(images, text), **TOLERANCE)


@torch.no_grad()
def test_a_matcher_gives_the_same_logits_and_similarities(
    matcher: BLIPMatcher, images: torch.Tensor, tmp_path: Path
) -> None:
    theirs = load_theirs(BlipForImageTextRetrieval, save_huggingface(matcher, tmp_path / "matcher"))
    texts = ["a red boat", "two dogs on the green grass", "sky", "an old man reads"][: len(images)]
    ids, mask = tokenize(matcher.tokenizer, texts, images.device)
    inputs = {"input_ids": ids, "pixel_values": images, "attention_mask": mask}
    logits = theirs(**inputs).itm_score.float()
    torch.testing.assert_close(logits, matcher(images, texts, match_head="itm"), **TOLERANCE)
    similarities = theirs(**inputs, use_itm_head=False).itm_score.float()
    torch.testing.assert_close(similarities, matcher(images, texts, match_head="itc"), **TOLERANCE)


@torch.no_grad()
def test_an_answerer_gives_the_same_states_logits_and_greedy_answers(
    answerer: nn.Module, images: torch.Tensor, tmp_path: Path
) -> None:
    theirs = load_theirs(BlipForQuestionAnswering, save_huggingface(answerer, tmp_path / "answerer"))
    question = ["what is on the table"] * len(images)
    ids, mask = tokenize(answerer.tokenizer, question, images.device, first_token=answerer.tokenizer.enc_token_id)
    image_embeds = answerer.visual_encoder(images)
    states = answerer.text_encoder(ids, mask, answerer.text_encoder.project(image_embeds))
    their_states = theirs.text_encoder(ids, attention_mask=mask, encoder_hidden_states=image_embeds).last_hidden_state
    torch.testing.assert_close(their_states, states, **TOLERANCE)

    decoder = answerer.text_decoder
    answer = torch.tensor([[answerer.tokenizer.dec_token_id, 2417, 4049, 102]] * len(images))
    logits = decoder.logits(decoder.bert(answer, memory=decoder.project(states, mask), causal=True))
    their_logits = theirs.text_decoder(answer, encoder_hidden_states=states, encoder_attention_mask=mask).logits
    torch.testing.assert_close(their_logits.float(), logits, **TOLERANCE)

    tokens = {"end_token": answerer.tokenizer.sep_token_id, "pad_token": answerer.tokenizer.pad_token_id}
    options = SearchOptions(num_beams=1, max_length=10, min_length=1)
    generated = generate(decoder, decoder.project(states, mask), answer[:, :1], options, **tokens)
    expected = theirs.generate(ids, images, attention_mask=mask, num_beams=1, do_sample=False, max_length=10)
    assert without_padding(generated.ids[:, 0]) == without_padding(expected)


@pytest.mark.parametrize("fixture", ["captioner", "matcher", "answerer"])
def test_the_way_back_changes_no_weight(
    fixture: str, request: pytest.FixtureRequest, sizes: dict, tmp_path: Path
) -> None:
    model = request.getfixturevalue(fixture)  # float32 values, held in float64
    folder = save_huggingface(model, tmp_path / "folder")
    options = sizes | {"answerer": {"vit": NARROW_VIT}, "matcher": {"embed_dim": 16}}.get(fixture, {})
    back = {"captioner": blip_decoder, "matcher": blip_itm, "answerer": blip_vqa}[fixture](str(folder), **options)
    assert back.state_dict().keys() == model.state_dict().keys()
    for key, tensor in model.state_dict().items():
        assert torch.equal(back.state_dict()[key], tensor.float()), key


@torch.no_grad()
def test_a_model_made_by_transformers_loads(sizes: dict, images: torch.Tensor, tmp_path: Path) -> None:
    text = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 8, "intermediate_size": 64}
    vision = {"hidden_size": 48, "num_attention_heads": 3, "num_hidden_layers": 2, "intermediate_size": 192}
    config = BlipConfig(
        text_config=text | {"max_position_embeddings": 64},
        vision_config=vision | {"image_size": 64, "layer_norm_eps": 1e-6, "initializer_range": 0.02},
    )
    torch.manual_seed(0)
    theirs = BlipForConditionalGeneration(config).double().eval()
    theirs.save_pretrained(tmp_path / "one")
    theirs.save_pretrained(tmp_path / "several", max_shard_size="2MB")
    (tmp_path / "pickle").mkdir()
    torch.save(theirs.state_dict(), tmp_path / "pickle" / "pytorch_model.bin")
    assert len(list((tmp_path / "several").glob("*.safetensors"))) > 1
    for form in ("one", "several", "pickle"):
        ours = blip_decoder(str(tmp_path / form), **sizes).double().eval()
        torch.testing.assert_close(
            ours.visual_encoder(images), theirs.vision_model(images).last_hidden_state, **TOLERANCE
        )


def test_the_folder_holds_tokenizer_and_image_processor(matcher: BLIPMatcher, tmp_path: Path) -> None:
    processor = BlipProcessor.from_pretrained(save_huggingface(matcher, tmp_path / "matcher"))
    text = "Two dogs [ENC] on the [DEC] grass"
    assert processor.tokenizer(text).input_ids == matcher.tokenizer(text).input_ids
    assert len(processor.tokenizer) == len(matcher.tokenizer)
    assert processor(images=Image.new("RGB", (90, 70)), return_tensors="pt").pixel_values.shape == (1, 3, 64, 64)


def test_the_configuration_states_what_the_library_would_get_wrong(matcher: BLIPMatcher, tmp_path: Path) -> None:
    config = json.loads((save_huggingface(matcher, tmp_path / "matcher") / "config.json").read_text())
    assert config["architectures"] == ["BlipForImageTextRetrieval"]
    assert config["vision_config"]["layer_norm_eps"] == 1e-6
    assert config["text_config"]["layer_norm_eps"] == 1e-12
    assert config["text_config"]["label_smoothing"] == 0.1


def test_the_label_smoothing_is_the_models_own(sizes: dict, tmp_path: Path) -> None:
    folder = save_huggingface(blip_decoder(**sizes, label_smoothing=0.0), tmp_path / "captioner")
    config = json.loads((folder / "config.json").read_text())
    assert config["text_config"]["label_smoothing"] == config["label_smoothing"] == 0.0


def test_what_only_training_needs_stays_here(golden: Golden) -> None:
    state = torch.load(golden("retrieval/checkpoint.pth"), weights_only=True)["model"]
    theirs = to_huggingface(state)
    assert {key.split(".")[0] for key in theirs} == {
        "vision_model",
        "text_encoder",
        "vision_proj",
        "text_proj",
        "itm_head",
    }
    assert all(torch.equal(tensor, state[key]) for key, tensor in from_huggingface(theirs).items())


def test_a_resumed_export_replaces_its_files_only(captioner: BLIPDecoder, tmp_path: Path) -> None:
    folder = tmp_path / "captioner"
    folder.mkdir()
    (folder / "README.md").write_text("mine")
    (folder / "model.safetensors").write_text("old")
    save_huggingface(captioner, folder)
    assert (folder / "README.md").read_text() == "mine"
    assert load_checkpoint(captioner, folder).missing  # the tied head, stored once
    assert [path.name for path in tmp_path.iterdir()] == ["captioner"]
    assert {path.stat().st_mode for path in folder.iterdir()} == {(folder / "README.md").stat().st_mode}


def test_models_without_a_counterpart_are_refused(sizes: dict, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no BLIP class for BLIPFeatureExtractor"):
        save_huggingface(blip_feature_extractor(**sizes), tmp_path / "folder")
    with pytest.raises(ValueError, match="encoder is 48 wide and its text encoder 32"):
        save_huggingface(blip_vqa(**sizes), tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_a_repository_of_the_hub_is_fetched_with_its_fast_tokenizer(monkeypatch, tmp_path):
    hub, here = tmp_path / "hub", tmp_path / "here"
    hub.mkdir()
    here.mkdir()
    for name in ("config.json", "tokenizer.json", "vocab.txt", "model.safetensors", "flax_model.msgpack"):
        (hub / name).write_text(name)

    def fetch(name, allow_patterns, **_):
        for file in hub.iterdir():
            if any(file.match(pattern) for pattern in allow_patterns):
                shutil.copy(file, here)
        return str(here)

    monkeypatch.setattr("models.weights.files.huggingface_hub.snapshot_download", fetch)
    names = {file.name for file in hub_folder("owner/name").iterdir()}
    assert names == {"config.json", "tokenizer.json", "vocab.txt", "model.safetensors"}
