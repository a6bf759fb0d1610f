"""Impossible sizes end with one line that names the file and the key, before any memory is taken for them."""

import json
import re

import pytest

import train_caption
import train_retrieval
from models import blip_decoder, blip_itm, blip_retrieval
from models.blip import MAX_CAPTION_LENGTH
from models.blip_vqa import MAX_ANSWER_LENGTH, MAX_QUESTION_LENGTH
from models.config import LONGEST_TEXT, TextConfig, check_image_size, vit_size
from models.errors import ConfigError, UserError
from models.image_text import MAX_TEXT_LENGTH
from models.vit import create_vit
from settings import load_config
from settings.model import ModelSettings

NAN, INF, HUGE = float("nan"), float("inf"), 10**12
VIT = {"embed_dim": 32, "depth": 2, "num_heads": 2, "patch_size": 16}
TEXT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}

SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "max_position_embeddings")
WRONG_SIZES = (0, -1, HUGE, "64", True, None, 64.0, NAN, [64], {"a": 1})
WRONG_TEXT = [
    *((name, value) for name in SIZES for value in WRONG_SIZES),
    *(
        (name, v)
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob")
        for v in (NAN, 2, 1, -0.1, "0", True)
    ),
    *(("layer_norm_eps", value) for value in (-1e-12, 0, NAN, INF, "1e-12", [])),
    *(("initializer_range", value) for value in (-0.02, NAN, INF, 1e30, None)),
    *(("pad_token_id", value) for value in (-1, 0.5, "0", False)),
    *(("hidden_act", value) for value in ("relu", "gelu_new", None, 3, ["gelu"])),
    ("position_embedding_type", "relative_key"),
    ("num_attention_heads", 5),
]


@pytest.mark.parametrize(("key", "value"), WRONG_TEXT)
def test_an_impossible_text_model_is_named_by_key_from_a_mapping_and_by_file_from_json(tmp_path, key, value):
    values = {**TEXT, key: value}
    named = r"(hidden_size|num_attention_heads)" if (key, value) == ("num_attention_heads", 5) else key
    with pytest.raises(ConfigError, match=rf"^med_config: {named} = [^\n]*: must be [^\n]*$"):
        TextConfig.read(values)
    file = tmp_path / "text.json"
    file.write_text(json.dumps(values))
    with pytest.raises(ConfigError, match=rf"^med_config {re.escape(str(file))}: {named} = [^\n]*: must be [^\n]*$"):
        blip_decoder(med_config=file, image_size=32, vit=VIT)


@pytest.mark.parametrize("med_config", [[768], 7, None, True, "", ".", "a\0b", "x" * 300])
def test_what_is_no_file_and_no_mapping_is_no_configuration(med_config):
    with pytest.raises(UserError, match="^med_config [^\n]*$"):
        blip_decoder(med_config=med_config, image_size=32, vit=VIT)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe{", "no UTF-8 text"),
        (b"", "is not JSON"),
        (b'{"hidden_size": ' + b"9" * 5000 + b"}", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"null", "holds a NoneType"),
        (b" " * 2**21, "more than 1,048,576 bytes"),
    ],
)
def test_a_file_that_holds_no_configuration_is_named(tmp_path, content, message):
    (tmp_path / "text.json").write_bytes(content)
    with pytest.raises(ConfigError, match=f"^med_config .*text.json.*{message}"):
        TextConfig.read(tmp_path / "text.json")


def test_a_byte_order_mark_before_a_configuration_is_skipped(tmp_path):
    (tmp_path / "text.json").write_text("\ufeff" + json.dumps(TEXT), encoding="utf-8")
    assert TextConfig.read(tmp_path / "text.json").hidden_size == 32


@pytest.mark.parametrize("value", WRONG_SIZES)
@pytest.mark.parametrize("key", VIT)
def test_an_impossible_image_encoder_is_named_by_its_key(key, value):
    with pytest.raises(ConfigError, match=rf"^vit: {key} = [^\n]*: must be [^\n]*$"):
        create_vit({**VIT, key: value}, 32)


@pytest.mark.parametrize("vit", [[32, 2, 2], 7, None, "huge", "", {}, {**VIT, 3: 4}, {**VIT, "num_heads": 5}])
def test_what_is_no_image_encoder_is_named(vit):
    with pytest.raises(ConfigError, match=r"^vit = .*: must be "):
        vit_size(vit)


@pytest.mark.parametrize("image_size", [0, -16, 30, HUGE, 16.0, "32", True, NAN, None, 10_000])
def test_an_impossible_image_size_is_named(image_size):
    with pytest.raises(ConfigError, match=r"^image_size = .*: must be "):
        blip_decoder(med_config=TEXT, vit=VIT, image_size=image_size)


def test_the_largest_image_is_one_whose_patches_attention_can_handle():
    check_image_size(4096, 16)
    with pytest.raises(ConfigError, match="image_size = 4112: must be at most 4,096, with patches of 16 pixels"):
        check_image_size(4112, 16)


@pytest.mark.parametrize("rate", [NAN, 1, -0.1, "0", True])
def test_an_impossible_stochastic_depth_is_named(rate):
    with pytest.raises(ConfigError, match="^drop_path_rate = "):
        create_vit(VIT, 32, drop_path_rate=rate)


def test_sizes_that_are_possible_one_by_one_and_not_together_are_refused():
    with pytest.raises(ConfigError, match="^med_config: hidden_size: these sizes make 3[0-9,]* numbers; more than 4,0"):
        TextConfig.read({"hidden_size": 60_000, "num_hidden_layers": 100, "intermediate_size": 10_000})
    with pytest.raises(ConfigError, match="^vit: these sizes make"):
        vit_size({"embed_dim": 16_384, "depth": 1000, "num_heads": 64})
    with pytest.raises(ConfigError, match="^queue_size: these sizes make"):
        blip_retrieval(med_config=TEXT, vit=VIT, image_size=32, embed_dim=10_000, queue_size=1_000_000)


@pytest.mark.parametrize("value", [0, -1, HUGE, "8", True, NAN])
def test_an_impossible_width_of_the_common_space_or_length_of_a_queue_is_named(value):
    with pytest.raises(ConfigError, match="^embed_dim = "):
        blip_itm(med_config=TEXT, vit=VIT, image_size=32, embed_dim=value)
    with pytest.raises(ConfigError, match="^queue_size = "):
        blip_retrieval(med_config=TEXT, vit=VIT, image_size=32, queue_size=value)


def test_padding_is_a_token_of_the_vocabulary():
    with pytest.raises(ConfigError, match="^med_config: pad_token_id = 30524: must be below 30524, the number of"):
        blip_decoder(med_config={**TEXT, "pad_token_id": 30524}, vit=VIT, image_size=32)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("med_config={hidden_size: 0}", "med_config: hidden_size = 0: must be at least 1"),
        ("med_config={hidden_dropout_prob: .nan}", "med_config hidden_dropout_prob|med_config"),
        ("med_config=[768]", "med_config is"),
        ("vit={embed_dim: 32, depth: 1000000, num_heads: 2}", "vit: depth = 1000000: must be at most 1,000"),
        ("vit={embed_dim: 32, depth: true, num_heads: 2}", "vit is"),
        ("image_size=0", "image_size = 0"),
        ("embed_dim=1000000000000", "embed_dim = 1000000000000: must be at most 65,536"),
        ("queue_size=1000000000000", "queue_size = 1000000000000: must be at most 10,000,000"),
    ],
)
def test_scripts_name_the_place_too(override, message):
    with pytest.raises(ConfigError, match=f"^command line: {message}"):
        load_config(train_retrieval.Config, "configs/retrieval_coco.yaml", [override])


def test_a_script_names_the_line_of_a_file_whose_sizes_are_impossible(tmp_path):
    (tmp_path / "text.json").write_text('{"hidden_size": -4}')
    (tmp_path / "run.yaml").write_text(f"init_lr: 1e-5\nmed_config: {tmp_path}/text.json\n")
    message = rf"run.yaml line 2: med_config {tmp_path}/text.json: hidden_size = -4: must be at least 1"
    with pytest.raises(ConfigError, match=message):
        load_config(train_retrieval.Config, tmp_path / "run.yaml")


def test_texts_find_room_in_the_positions():
    assert max(MAX_CAPTION_LENGTH, MAX_TEXT_LENGTH, MAX_QUESTION_LENGTH, MAX_ANSWER_LENGTH) == LONGEST_TEXT
    with pytest.raises(ConfigError, match="max_position_embeddings = 39: must be at least 40"):
        ModelSettings(med_config={**TEXT, "max_position_embeddings": 39})

    overrides = ["med_config={hidden_size: 32, num_attention_heads: 2, max_position_embeddings: 64}", "max_length=65"]
    with pytest.raises(ConfigError, match="max_position_embeddings = 64: must be at least 65, the tokens of the long"):
        load_config(train_caption.Config, "configs/caption_coco.yaml", overrides)
