"""Pre-training starts from ImageNet's and BERT's weights, whatever names their files use."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from models.blip_pretrain import BLIPPretrain
from models.config import TextConfig
from models.med import TextDecoder, TextModel
from models.vit import VisionTransformer, create_vit, interpolate_pos_embed
from models.weights.download import DownloadError
from models.weights.imagenet_bert import initialize_pretraining, initialize_text, initialize_vit
from models.weights.load import CheckpointError

Golden = Callable[[str], Path]
VIT = {"embed_dim": 48, "depth": 2, "num_heads": 3, "patch_size": 16}
WORDS = 30522


def old_name(key: str) -> str:
    return key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")


@pytest.fixture(scope="module")
def config(golden: Golden) -> TextConfig:
    return TextConfig.read(golden("bert_config.json"))


@pytest.fixture(scope="module")
def bert(config: TextConfig) -> dict[str, Tensor]:
    """A masked language model as it was stored in 2018: `gamma` and `beta`, a pooler, segments, no tied head."""
    torch.manual_seed(0)
    decoder = TextDecoder(config, WORDS, source_width=8)
    state = {key: torch.randn_like(tensor) for key, tensor in decoder.state_dict().items() if "cross" not in key}
    state = {old_name(key): tensor for key, tensor in state.items() if "predictions.decoder" not in key}
    width = config.hidden_size
    return state | {
        "bert.embeddings.token_type_embeddings.weight": torch.randn(2, width),
        "bert.pooler.dense.weight": torch.randn(width, width),
        "bert.pooler.dense.bias": torch.randn(width),
        "cls.seq_relationship.weight": torch.randn(2, width),
        "cls.seq_relationship.bias": torch.randn(2),
    }


@pytest.fixture(scope="module")
def bert_folder(bert: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bert")
    save_file(bert, folder / "model.safetensors")
    (folder / "config.json").write_text("{}")
    return folder


@pytest.fixture(scope="module")
def vit_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ImageNet classifier of 32x32 pixels, stored as DeiT's are."""
    torch.manual_seed(0)
    state = {key: torch.randn_like(tensor) for key, tensor in create_vit(VIT, 32).state_dict().items()}
    path = tmp_path_factory.mktemp("vit") / "deit.pth"
    torch.save({"model": state | {"head.weight": torch.randn(5, 48), "head.bias": torch.randn(5)}}, path)
    return path


def test_the_image_encoder_takes_all_but_the_classifier(vit_file: Path) -> None:
    encoder: VisionTransformer = create_vit(VIT, 64)
    report = initialize_vit(encoder, vit_file)
    state = torch.load(vit_file, weights_only=True)["model"]
    assert report.missing == ()
    assert sorted(report.unexpected) == ["head.bias", "head.weight"]
    assert report.resized == ("pos_embed",)
    assert torch.equal(encoder.pos_embed, interpolate_pos_embed(state["pos_embed"], 16))
    assert torch.equal(encoder.blocks[1].mlp.fc2.weight, state["blocks.1.mlp.fc2.weight"])


def test_another_vit_is_refused(vit_file: Path) -> None:
    with pytest.raises(CheckpointError, match=r"blocks\.2\.norm1\.weight"):
        initialize_vit(create_vit(VIT | {"depth": 3}, 32), vit_file)


def test_a_text_encoder_takes_bert_and_keeps_its_added_words(
    config: TextConfig, bert: dict[str, Tensor], bert_folder: Path
) -> None:
    encoder = TextModel(config, WORDS + 2, source_width=48)
    before = {key: tensor.clone() for key, tensor in encoder.state_dict().items()}
    initialize_text(encoder, bert_folder)
    words = encoder.embeddings.word_embeddings.weight
    assert torch.equal(words[:WORDS], bert["bert.embeddings.word_embeddings.weight"])
    assert torch.equal(words[WORDS:], before["embeddings.word_embeddings.weight"][WORDS:])
    for key, tensor in encoder.state_dict().items():
        if "crossattention" in key:
            assert torch.equal(tensor, before[key]), key
        elif "word_embeddings" not in key:
            assert torch.equal(tensor, bert[old_name(f"bert.{key}")]), key


def test_a_text_decoder_takes_the_head_too(config: TextConfig, bert: dict[str, Tensor], bert_folder: Path) -> None:
    decoder = TextDecoder(config, WORDS + 2, source_width=48)
    initialize_text(decoder, bert_folder)
    head = decoder.cls.predictions
    assert head.decoder.weight is decoder.bert.embeddings.word_embeddings.weight
    assert torch.equal(head.bias[:WORDS], bert["cls.predictions.bias"])
    assert head.bias[WORDS:].tolist() == [0, 0]
    assert torch.equal(head.transform.LayerNorm.weight, bert["cls.predictions.transform.LayerNorm.gamma"])


def test_the_names_of_a_bare_bert_do_as_well(config: TextConfig, bert: dict[str, Tensor], tmp_path: Path) -> None:
    bare = {key.removeprefix("bert."): tensor for key, tensor in bert.items() if key.startswith("bert.")}
    torch.save(bare, tmp_path / "pytorch_model.bin")
    encoder = TextModel(config, WORDS + 2, source_width=48)
    initialize_text(encoder, tmp_path)
    assert torch.equal(encoder.embeddings.LayerNorm.bias, bert["bert.embeddings.LayerNorm.beta"])


def test_a_vocabulary_of_ones_own_does_not_start_from_bert(config: TextConfig, bert_folder: Path) -> None:
    with pytest.raises(CheckpointError, match="vocabulary has 30,522 entries and the model's 62"):
        initialize_text(TextModel(config, 62, source_width=48), bert_folder)


def test_a_model_to_pretrain_starts_as_a_whole(golden: Golden, vit_file: Path, bert_folder: Path) -> None:
    med_config = json.loads(golden("bert_config.json").read_text())
    model = BLIPPretrain(image_size=64, vit=VIT, med_config=med_config, embed_dim=16, queue_size=12)
    initialize_pretraining(model, vit_file, bert_folder)
    state = model.state_dict()
    for part in ("visual_encoder", "text_encoder"):
        for key in (key for key in state if key.startswith(f"{part}.")):
            assert torch.equal(state[key], state[key.replace(part, f"{part}_m", 1)]), key
    self_attention = "encoder.layer.1.attention.self.query.weight"
    assert torch.equal(state[f"text_encoder.{self_attention}"], state[f"text_decoder.bert.{self_attention}"])


@pytest.mark.parametrize("vit", ["base", "large"])
def test_offline_the_error_says_what_to_fetch(vit: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BLIP_CACHE", str(tmp_path))
    monkeypatch.setenv("BLIP_OFFLINE", "1")
    with pytest.raises(DownloadError, match="dl.fbaipublicfiles.com" if vit == "base" else "huggingface.co/timm/"):
        initialize_vit(create_vit(VIT, 64), vit)
