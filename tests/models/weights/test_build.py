"""A checkpoint alone tells which model it holds, whoever wrote it."""

import dataclasses
import inspect
import json

import pytest
import torch

from models.blip import BLIPDecoder, BLIPFeatureExtractor
from models.blip_itm import BLIPMatcher
from models.blip_nlvr import BLIPNLVR
from models.blip_pretrain import BLIPPretrain
from models.blip_retrieval import BLIPRetrieval
from models.blip_vqa import BLIPVQA
from models.config import TextConfig
from models.vit import create_vit
from models.weights.build import Architecture, build_from_checkpoint, read_architecture
from models.weights.files import CheckpointError
from models.weights.huggingface import save_huggingface
from settings.model import ModelSettings

VIT = {"embed_dim": 32, "depth": 2, "num_heads": 2, "patch_size": 16}
TEXT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "layer_norm_eps": 1e-5,
}


def written_by_a_script(path, model, **keys):
    """A checkpoint as the training scripts write it: beside the weights, all keys of the run's config."""
    torch.save({"model": model.state_dict(), "config": dataclasses.asdict(ModelSettings(**keys)), "epoch": 3}, path)
    return path


def test_a_checkpoint_of_a_training_script_tells_all(tmp_path):
    model = BLIPDecoder(image_size=32, vit=VIT, med_config=TEXT).eval()
    path = written_by_a_script(tmp_path / "checkpoint_best.pth", model, vit=VIT, med_config=TEXT)
    loaded = build_from_checkpoint(BLIPDecoder, path).eval()
    assert loaded.text_config == model.text_config  # what no shape tells too: heads, epsilon
    image = torch.randn(1, 3, 32, 32)
    assert loaded(image, "a picture of a dog").item() == model(image, "a picture of a dog").item()


def test_a_configuration_file_is_found_from_any_directory(tmp_path, monkeypatch):
    model = BLIPMatcher(image_size=32, embed_dim=8, vit=VIT, med_config="configs/demo/med_config.json")
    path = written_by_a_script(tmp_path / "a.pth", model, vit=VIT, med_config="configs/demo/med_config.json")
    monkeypatch.chdir(tmp_path)
    loaded = build_from_checkpoint(BLIPMatcher, path)
    assert loaded.text_config == model.text_config
    assert loaded.vision_proj.out_features == 8


def test_a_configuration_file_that_is_gone_is_asked_for(tmp_path):
    (tmp_path / "text.json").write_text(json.dumps(TEXT | {"hidden_size": 256}))
    keys = {"vit": VIT, "med_config": str(tmp_path / "text.json")}
    path = written_by_a_script(tmp_path / "a.pth", BLIPDecoder(image_size=32, **keys), **keys)
    (tmp_path / "text.json").unlink()
    with pytest.raises(
        CheckpointError, match=r"a.pth was trained with the text model of .*text.json, which is not here"
    ):
        build_from_checkpoint(BLIPDecoder, path)


def test_a_vocabulary_of_ones_own_is_used_again(tmp_path):
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text(
        "".join(f"{word}\n" for word in ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "ein", "hund"])
    )
    model = BLIPDecoder(image_size=32, vit=VIT, med_config=TEXT, vocab_file=vocabulary)
    keys = {"vit": VIT, "med_config": TEXT, "vocab_file": str(vocabulary)}
    path = written_by_a_script(tmp_path / "a.pth", model, **keys)
    assert len(build_from_checkpoint(BLIPDecoder, path).tokenizer) == 9
    vocabulary.unlink()
    with pytest.raises(FileNotFoundError, match="vocab.txt does not exist"):
        build_from_checkpoint(BLIPDecoder, path)


def test_a_file_saved_from_inside_a_wrapper_builds_its_model(tmp_path):
    model = BLIPDecoder(image_size=32, vit=VIT, med_config=TEXT)
    wrapped = {f"module.{key}": tensor for key, tensor in model.state_dict().items()}
    torch.save({"model": wrapped, "config": {"vit": VIT, "med_config": TEXT}}, tmp_path / "a.pth")
    loaded = build_from_checkpoint(BLIPDecoder, tmp_path / "a.pth").state_dict()
    assert all(torch.equal(tensor, loaded[key]) for key, tensor in model.state_dict().items())


def test_a_hugging_face_folder_tells_heads_and_epsilon(tmp_path):
    model = BLIPDecoder(image_size=32, vit=VIT, med_config=TEXT)
    loaded = build_from_checkpoint(BLIPDecoder, save_huggingface(model, tmp_path / "folder"))
    assert loaded.text_config.num_attention_heads == 4
    assert loaded.text_config.layer_norm_eps == 1e-5
    assert loaded.visual_encoder.blocks[0].attn.num_heads == 2


@pytest.mark.parametrize("vit", ["base", "large"])
def test_released_files_are_known_by_their_shapes(vit):
    with torch.device("meta"):
        state = {f"visual_encoder.{key}": value for key, value in create_vit(vit, 384).state_dict().items()}
        state["text_decoder.bert.embeddings.position_embeddings.weight"] = torch.empty(512, 768)
        for layer in range(12):
            state[f"text_decoder.bert.encoder.layer.{layer}.intermediate.dense.weight"] = torch.empty(3072, 768)
    config = {"vit": vit, "prompt": "a picture of ", "image_size": 384}
    assert read_architecture(state, config, "model_base") == Architecture(384, vit, TextConfig())


@pytest.mark.parametrize(
    "kind", [BLIPDecoder, BLIPFeatureExtractor, BLIPMatcher, BLIPVQA, BLIPNLVR, BLIPRetrieval, BLIPPretrain]
)
def test_each_network_is_built_as_large_as_its_checkpoint(tmp_path, kind):
    model = kind(image_size=32, vit=VIT, med_config=TEXT)
    loaded = build_from_checkpoint(kind, written_by_a_script(tmp_path / "a.pth", model, vit=VIT, med_config=TEXT))
    assert type(loaded) is kind
    shapes = {key: tensor.shape for key, tensor in model.state_dict().items()}
    assert {key: tensor.shape for key, tensor in loaded.state_dict().items()} == shapes


def test_what_a_checkpoint_tells_reaches_the_network_that_takes_it():
    architecture = Architecture(32, VIT, TextConfig(**TEXT), embed_dim=8, prompt="a drawing of ")
    assert architecture.build(BLIPDecoder).prompt == "a drawing of "
    assert architecture.build(BLIPMatcher).vision_proj.out_features == 8


@pytest.mark.parametrize(("kind", "name"), [(BLIPDecoder, "prompt"), (BLIPMatcher, "embed_dim")])
def test_what_a_checkpoint_does_not_tell_is_the_networks_own_default(kind, name):
    default = next(field.default for field in dataclasses.fields(Architecture) if field.name == name)
    assert inspect.signature(kind).parameters[name].default == default


def test_a_class_that_is_no_network_is_refused():
    with pytest.raises(TypeError, match="Linear is no network of models/"):
        Architecture(32, VIT, TextConfig(**TEXT)).build(torch.nn.Linear)


def test_what_is_no_checkpoint_of_blip_is_said(tmp_path):
    with pytest.raises(CheckpointError, match="holds no image encoder"):
        read_architecture({"bert.weight": torch.ones(1)}, {}, "bert.pth")
    (tmp_path / "config.json").write_text(json.dumps({}))
    with pytest.raises(CheckpointError, match="holds no weights"):
        build_from_checkpoint(BLIPDecoder, tmp_path)
