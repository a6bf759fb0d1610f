"""A checkpoint alone tells which model it holds, whoever wrote it."""

import dataclasses
import inspect
import json

import pytest
import torch

from models.blip import BLIPDecoder, BLIPFeatureExtractor, blip_decoder
from models.blip_itm import BLIPMatcher
from models.blip_nlvr import BLIPNLVR
from models.blip_pretrain import BLIPPretrain
from models.blip_retrieval import BLIPRetrieval
from models.blip_vqa import BLIPVQA
from models.config import TextConfig
from models.errors import ConfigError, UserError
from models.pixels import STANDARD, Pixels
from models.vit import create_vit
from models.vocabulary import BERT_BASE_UNCASED, SPECIAL_TOKENS
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


@pytest.fixture
def german(tmp_path):
    """A vocabulary of one's own."""
    return written(tmp_path / "words.txt", "ein", "hund")


def written(path, *words):
    path.write_text("".join(f"{word}\n" for word in [*SPECIAL_TOKENS.values(), *words]))
    return path


def of_an_older_run(path, vocabulary):
    """A model, and a checkpoint as runs wrote it that did not store the vocabulary yet."""
    model = BLIPDecoder(image_size=32, vit=VIT, med_config=TEXT, vocab_file=vocabulary).eval()
    return model, written_by_a_script(path, model, vit=VIT, med_config=TEXT, vocab_file=str(vocabulary))


def with_its_description(path, model, **keys):
    """A checkpoint as the engine writes it."""
    config = dataclasses.asdict(ModelSettings(**keys))
    torch.save({"model": model.state_dict(), "config": config, "architecture": model.describe()}, path)
    return path


def test_a_checkpoint_builds_its_model_where_no_other_file_of_the_run_is(tmp_path, german):
    sizes = tmp_path / "text.json"
    sizes.write_text(json.dumps(TEXT | {"num_attention_heads": 2}))
    keys = {"vit": VIT, "med_config": str(sizes), "vocab_file": str(german)}
    model = BLIPDecoder(image_size=32, **keys).eval()
    path = with_its_description(tmp_path / "a.pth", model, **keys)
    sizes.unlink()
    written(german, "hund", "ein")  # has changed since
    for _ in range(2):
        loaded = build_from_checkpoint(BLIPDecoder, path).eval()
        assert loaded.tokenizer("ein hund").input_ids == [2, 5, 6, 3]
        assert loaded.text_config == model.text_config
        image = torch.randn(1, 3, 32, 32)
        assert loaded(image, "ein hund").item() == model(image, "ein hund").item()
        german.unlink(missing_ok=True)  # is gone


def test_the_standard_vocabulary_is_named_and_not_stored(tmp_path):
    model = BLIPDecoder(image_size=32, vit=VIT, med_config=TEXT, vocab_file=BERT_BASE_UNCASED)
    assert model.describe()["vocabulary"] == "bert-base-uncased"
    path = with_its_description(tmp_path / "a.pth", model, vit=VIT, med_config=TEXT)
    assert len(build_from_checkpoint(BLIPDecoder, path).tokenizer) == 30524


def test_an_older_checkpoint_takes_its_vocabulary_from_the_file_of_its_run_or_as_told(tmp_path, german):
    _, path = of_an_older_run(tmp_path / "a.pth", german)
    assert build_from_checkpoint(BLIPDecoder, path).tokenizer("hund").input_ids == [2, 6, 3]
    moved = german.rename(tmp_path / "moved.txt")
    with pytest.raises(
        CheckpointError, match=r"a\.pth was trained with the vocabulary of .*words\.txt, which is not h"
    ):
        build_from_checkpoint(BLIPDecoder, path)
    assert build_from_checkpoint(BLIPDecoder, path, vocab_file=moved).tokenizer("hund").input_ids == [2, 6, 3]
    with pytest.raises(CheckpointError, match="vocabulary has 9 entries and the model's 30,524"):
        build_from_checkpoint(BLIPDecoder, path, vocab_file=BERT_BASE_UNCASED)


def test_weights_are_not_read_by_another_vocabulary_of_the_same_size(tmp_path, german):
    model = BLIPDecoder(image_size=32, vit=VIT, med_config=TEXT, vocab_file=german)
    path = with_its_description(tmp_path / "a.pth", model)
    other = written(tmp_path / "other.txt", "hund", "ein")
    message = r"a\.pth was trained with another vocabulary than .*other\.txt: token 5 is 'ein' there"
    for build in (build_from_checkpoint, lambda _, path, vocab_file: load(path, vocab_file)):
        with pytest.raises(ConfigError, match=message):
            build(BLIPDecoder, path, vocab_file=other)
    with pytest.raises(ConfigError, match=r"token 1 .*To use the checkpoint's own, give vocab_file=.*a\.pth"):
        load(path, None)
    assert load(path, path).tokenizer("hund").input_ids == [2, 6, 3]  # as the message says


def load(path, vocab_file):
    return blip_decoder(path, TEXT, 32, VIT, vocab_file=vocab_file)


def test_words_may_take_the_place_of_unused_tokens(tmp_path):
    before = written(tmp_path / "before.txt", "[unused0]", "hund")
    after = written(tmp_path / "after.txt", "ein", "hund")
    model = BLIPDecoder(image_size=32, vit=VIT, med_config=TEXT, vocab_file=before)
    path = with_its_description(tmp_path / "a.pth", model)
    assert load(path, after).tokenizer("ein").input_ids == [2, 5, 3]


def test_an_older_checkpoint_of_the_standard_vocabulary_is_known_by_its_config(tmp_path):
    tokens = BERT_BASE_UNCASED.read_text().splitlines()
    (tmp_path / "other.txt").write_text("\n".join([*tokens[:-2], tokens[-1], tokens[-2]]))
    model = BLIPDecoder(image_size=32, vit=VIT, med_config=TEXT)
    path = written_by_a_script(tmp_path / "a.pth", model, vit=VIT, med_config=TEXT)
    assert load(path, None).vocabulary == model.vocabulary
    with pytest.raises(ConfigError, match="token 30520 is .* To use the checkpoint's own, leave vocab_file out"):
        load(path, tmp_path / "other.txt")


@pytest.mark.parametrize("vocabulary", [7, ["[PAD]", 3], "bert-large", {"a": 1}, ["[PAD]"], ["[PAD]"] * 9])
def test_a_vocabulary_that_is_none_is_named(tmp_path, vocabulary):
    model = BLIPDecoder(image_size=32, vit=VIT, med_config=TEXT)
    content = {"model": model.state_dict(), "architecture": {**model.describe(), "vocabulary": vocabulary}}
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(ConfigError, match=r"a\.pth"):
        build_from_checkpoint(BLIPDecoder, tmp_path / "a.pth")


OTHER = Pixels((0.5, 0.4, 0.3), (0.2, 0.25, 0.3))


@pytest.mark.parametrize("form", ["file", "folder", "folder of an older transformers"])
def test_a_checkpoint_carries_mean_and_deviation_of_its_pixels(tmp_path, form):
    model = BLIPDecoder(image_size=32, vit=VIT, med_config=TEXT)
    assert model.pixels == STANDARD
    model.pixels = OTHER
    if form == "file":
        source = with_its_description(tmp_path / "a.pth", model)
    else:
        source = save_huggingface(model, tmp_path / "folder")
    if form == "folder of an older transformers":
        processor = json.loads((source / "processor_config.json").read_text())["image_processor"]
        (source / "processor_config.json").unlink()
        (source / "preprocessor_config.json").write_text(json.dumps(processor))
    built = build_from_checkpoint(BLIPDecoder, source)
    assert built.pixels == OTHER
    assert built.describe()["pixels"] == {"image_size": 32, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3]}
    with pytest.raises(ConfigError, match=r"was trained on Pixels\(mean=\(0\.5, .* and this model gets Pixels"):
        load(source, None)


@pytest.mark.parametrize(
    "pixels",
    [7, {}, {"mean": [0, 0, 0]}, {"mean": [0, 0], "std": [1, 1]}, {"mean": [0, 0, 0], "std": [1, 1, 0]}]
    + [{"mean": ["0", 0, 0], "std": [1, 1, 1]}, {"mean": [float("nan"), 0, 0], "std": [1, 1, 1]}],
)
def test_pixels_that_are_none_are_named(tmp_path, pixels):
    model = BLIPDecoder(image_size=32, vit=VIT, med_config=TEXT)
    content = {"model": model.state_dict(), "architecture": {**model.describe(), "pixels": pixels}}
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"a\.pth"):
        build_from_checkpoint(BLIPDecoder, tmp_path / "a.pth")


def test_an_image_size_that_contradicts_the_weights_is_named(tmp_path):
    model = BLIPDecoder(image_size=32, vit=VIT, med_config=TEXT)
    content = {"model": model.state_dict(), "architecture": model.describe()}
    content["architecture"]["pixels"]["image_size"] = 48
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(
        CheckpointError, match="`pixels` say 48 for the image size, and its position .* are of 32 pixels"
    ):
        build_from_checkpoint(BLIPDecoder, tmp_path / "a.pth")


@pytest.mark.parametrize("left", ["vocab.txt", "tokenizer.json"])
def test_a_hugging_face_folder_carries_its_vocabulary(tmp_path, german, left):
    model = BLIPDecoder(image_size=32, vit=VIT, med_config=TEXT, vocab_file=german)
    folder = save_huggingface(model, tmp_path / "folder")
    german.unlink()
    (folder / {"vocab.txt": "tokenizer.json", "tokenizer.json": "vocab.txt"}[left]).unlink()
    assert build_from_checkpoint(BLIPDecoder, folder).tokenizer("ein hund").input_ids == [2, 5, 6, 3]
    assert load(folder, folder).vocabulary == model.vocabulary
    with pytest.raises(ConfigError, match="folder was trained with another vocabulary"):
        load(folder, written(tmp_path / "other.txt", "hund", "ein"))


def test_a_tokenizer_whose_ids_have_a_gap_is_refused(tmp_path, german):
    model = BLIPDecoder(image_size=32, vit=VIT, med_config=TEXT, vocab_file=german)
    folder = save_huggingface(model, tmp_path / "folder")
    (folder / "vocab.txt").unlink()
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["hund"] += 1
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ConfigError, match="tokenizer.json holds no WordPiece vocabulary .*ids are not 0 to"):
        build_from_checkpoint(BLIPDecoder, folder)


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
