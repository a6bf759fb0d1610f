"""Whatever a file of weights holds: its weights, bit for bit, or one short message that names it."""

import collections
import json
import os
import pickle
import random
import socket
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from models.errors import UserError
from models.weights.build import read_architecture
from models.weights.digest import file_digest, keep_digest
from models.weights.files import read_state
from models.weights.integrity import CheckpointError, DamagedFile, save_safetensors
from models.weights.load import load_state


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.setenv("BLIP_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def weights():
    torch.manual_seed(0)
    return {f"layer.{i}.weight": torch.randn(3, 5) for i in range(4)} | {"temp": torch.tensor(0.07)}


def write(name):
    state = weights()
    path = Path(name)
    if name == "own.safetensors":
        save_safetensors(state, path, {"format": "pt"})
        return path
    torch.save({"model": state, "config": {"vit": "base"}}, name, _use_new_zipfile_serialization=name != "old.pth")
    if name == "old.pth":  # this format has no checksums of its own
        keep_digest(path, file_digest(path))
    return path


def damaged(content, chance):
    """One of many kinds of damage."""
    content = bytearray(content)
    place, kind = chance.randrange(len(content)), chance.randrange(5)
    if kind < 2:
        content[place] ^= 1 << chance.randrange(8)
    elif kind == 2:
        del content[place:]
    elif kind == 3:
        content[place : place + 64] = bytes(len(content[place : place + 64]))
    else:
        other = chance.randrange(len(content))
        content[place : place + 16] = content[other : other + 16]
    return bytes(content)


def reason(path):
    """The message that reading a path ends with; it is short, and has no control characters but line ends."""
    with pytest.raises(UserError) as caught:
        read_state(path)
    message = str(caught.value)
    assert len(message) < 800
    assert message.replace("\n", "").isprintable()
    return message


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["new.pth", "old.pth", "own.safetensors"])
def test_damage_of_any_kind_is_refused_or_changes_no_weight(name):
    path, expected, chance = write(name), weights(), random.Random(7)
    content, messages = path.read_bytes(), []
    assert read_state(path)[0].keys() == expected.keys()
    for number in range(100):
        path.write_bytes(damaged(content, chance))
        try:
            state, _ = read_state(path)
        except UserError as error:
            messages.append(str(error))
        else:
            assert all(torch.equal(state[key], tensor) for key, tensor in expected.items()), number
    assert len(messages) > 40
    assert all(name in message for message in messages)


MISTAKEN = {
    "text": (b"hello: world\n", "it is text"),
    "nothing": (b"", "it is empty"),
    "web page": (b"<!DOCTYPE html><html>", "it is a web page"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    "zeros": (bytes(1000), "it starts with zeros"),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "fetch it again"),
    "ones": (b"\xff" * 1000, "fetch it again"),
}


@pytest.mark.parametrize("suffix", [".pth", ".bin", ".yaml", ".safetensors", ""])
@pytest.mark.parametrize("kind", MISTAKEN)
def test_a_file_of_another_kind_is_called_so(kind, suffix, here):
    content, said = MISTAKEN[kind]
    (here / f"file{suffix}").write_bytes(content)
    message = reason(f"file{suffix}")
    assert message.startswith(f"file{suffix} is not a ")
    assert said in message


def test_archives_of_other_kinds_are_refused(here):
    write("new.pth")
    with tarfile.open("a.pth", "w") as archive:
        archive.add("new.pth")
    assert "a.pth is not a PyTorch file" in reason("a.pth")
    with zipfile.ZipFile("b.pth", "w") as archive:
        archive.writestr("hello.txt", "x")
    assert "b.pth is not a PyTorch file" in reason("b.pth")
    with zipfile.ZipFile("c.pth", "w"):
        pass
    assert "c.pth is not a PyTorch file" in reason("c.pth")


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([1], "holds a list where"),
        (torch.ones(2), "holds a Tensor where"),
        (None, "holds a NoneType where"),
        ("text", "holds a str where"),
        ({}, "found nothing"),
        ({"model": {}}, "found nothing"),
        ({"model": {"model": {"a": torch.ones(1)}}}, "found 'model'"),
        (collections.Counter("ab"), "found 'a', 'b'"),
        ({3: torch.ones(1)}, "the name of a tensor is 3"),
        ({"model": {"a": torch.ones(1), (1, 2): torch.ones(1)}}, r"the name of a tensor is (1, 2)"),
    ],
)
def test_what_holds_no_weights_by_name_is_refused(content, said, old):
    torch.save(content, "file.pth", _use_new_zipfile_serialization=not old)
    assert said in reason("file.pth")


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("content", [[1, 2], {"a": 1}, None, "text", 10**4000], ids=range(5))
def test_pickles_of_anything_are_refused(content, protocol, here):
    (here / "file.pth").write_bytes(pickle.dumps(content, protocol))
    assert "file.pth" in reason("file.pth")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: torch.ones(3).to_sparse(), "sparse_coo"),
        (lambda: torch.ones(3, 3).to_sparse_csr(), "sparse_csr"),
        (lambda: torch.ones(3, device="meta"), "meta"),
        (lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8), "quantized"),
        (lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "nested"),
    ],
)
def test_tensors_of_odd_kinds_are_named(make, kind):
    torch.save({"model": {"good": torch.ones(1), "odd": make()}}, "file.pth")
    assert reason("file.pth") == f"file.pth: odd is a {kind} tensor, where plain numbers are expected"


def test_tensors_that_claim_more_than_the_file_holds_are_refused_without_making_them():
    torch.save({"model": {"a": torch.ones(1).expand(10**6, 10**6)}}, "file.pth")
    assert "its tensors claim 4,000,000,000,000 bytes" in reason("file.pth")


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64, torch.uint8])
def test_other_numbers_than_a_models_are_named(dtype):
    model = torch.nn.Linear(2, 2)
    state = {"weight": torch.ones(2, 2, dtype=dtype), "bias": torch.ones(2)}
    with pytest.raises(
        CheckpointError, match=rf"- {dtype} in the checkpoint, but torch.float32 in the model:\n    weight"
    ):
        load_state(model, state, source="file.pth")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn])
def test_another_precision_is_the_same_kind_of_number(dtype):
    model = torch.nn.Linear(2, 2)
    load_state(model, {"weight": torch.full((2, 2), 0.5, dtype=dtype), "bias": torch.ones(2)}, source="file.pth")
    assert model.weight.tolist() == [[0.5, 0.5], [0.5, 0.5]]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
def test_weights_that_are_no_numbers_are_named_and_none_is_loaded(value):
    model = torch.nn.Sequential(*(torch.nn.Linear(2, 2) for _ in range(6)))
    state = {key: torch.full(old.shape, value, dtype=torch.float64) for key, old in model.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_state(model, state, source="file.pth")
    named = "0.weight, 0.bias, 1.weight, 1.bias, 2.weight, 2.bias, 3.weight, 3.bias and 4 others"
    assert str(caught.value) == f"the weights of file.pth are not finite: keys {named}"
    assert all(tensor.isfinite().all() for tensor in model.parameters())


def test_names_of_tensors_reach_the_message_escaped_and_cut():
    state = {"a\x1b[31m\nb": torch.ones(1)} | {f"key{i}" * 100: torch.ones(1) for i in range(300)}
    with pytest.raises(CheckpointError) as caught:
        load_state(torch.nn.Linear(1, 1), state, source="file.pth")
    assert "a\\x1b[31m\\nb" in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert "others" in str(caught.value)
    assert len(str(caught.value)) < 15_000


def header(here, content, data=bytes(64)):
    content = content if isinstance(content, bytes) else json.dumps(content).encode()
    (here / "file.safetensors").write_bytes(struct.pack("<Q", len(content)) + content + data)


def entry(dtype="F32", shape=(16,), offsets=(0, 64)):
    return {"a": {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}}


@pytest.mark.parametrize(
    "content",
    [
        entry(offsets=(0, 1 << 60)),
        entry(shape=(-16,)),
        entry(shape=(1 << 62, 4)),
        entry(dtype="F99"),
        entry(shape=(4,), offsets=(32, 48)),
        entry() | {"__metadata__": {"a": 3}},
        entry() | {"__metadata__": {"blip_sha256": "[["}},
        entry() | {"__metadata__": {"blip_sha256": '["a"]'}},
        entry() | {"__metadata__": {"blip_sha256": "3"}},
        entry() | {"__metadata__": {"blip_sha256": "{}"}},
        entry() | {"__metadata__": {"blip_sha256": "[" * 100_000}},
        b'{"a":' * 100_000,
        b"",
        b"[]",
        {},
    ],
    ids=range(15),
)
def test_crafted_safetensors_are_refused(here, content):
    header(here, content)
    assert reason("file.safetensors").startswith("file.safetensors is ")


def test_a_header_of_a_claimed_size_is_not_read(here):
    (here / "file.safetensors").write_bytes(struct.pack("<Q", 1 << 62) + b"{}")
    assert "not a whole safetensors file" in reason("file.safetensors")


@pytest.mark.parametrize("name", ["pipe.pth", "pipe.safetensors", "pipe"])
def test_what_is_no_file_is_refused_without_waiting(name, here):
    os.mkfifo(name)
    assert reason(name) == f"{name}: a named pipe, not a file"
    (here / "folder").mkdir()
    os.mkfifo("folder/model.safetensors")
    assert reason("folder") == "folder/model.safetensors: a named pipe, not a file"
    (here / "folder" / "model.safetensors").unlink()
    os.symlink("/dev/zero", "folder/pytorch_model.bin")
    assert reason("folder") == "folder/pytorch_model.bin: a device, not a file"
    os.mkfifo("folder/config.json")
    assert "folder/config.json: a named pipe" in reason("folder")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.pth")
        assert reason("socket.pth") == "socket.pth: a socket, not a file"


@pytest.mark.parametrize(
    "source",
    ["a\0b", "~nosuchuser/a.pth", "x" * 300, f"{'x' * 300}.pth", f"a/{'x' * 300}", "\udc80.pth", "/dev/full", " "],
)
def test_an_impossible_name_is_a_short_message(source):
    reason(source)


def folder_with(here, **files):
    (here / "hf").mkdir()
    save_file(weights(), here / "hf" / "model.safetensors")
    for name, content in files.items():
        (here / "hf" / name.replace("__", ".")).write_bytes(content)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"vision_config": {"num', "is not JSON"),
        (b"\xff{}", "is not JSON"),
        ('{"a": 1}'.encode("utf-16"), "is not JSON"),
        (b"", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b'{"a":' * 100_000, "is not JSON"),
        (b'{"a":' + b"1" * 6000 + b"}", "is not JSON"),
        (b"[]", "holds a list where"),
        (b"null", "holds a NoneType where"),
    ],
    ids=range(9),
)
def test_an_odd_config_of_a_hugging_face_folder_is_named(here, content, said):
    folder_with(here, config__json=content)
    assert f"hf/config.json {said}" in reason("hf")


def test_a_config_that_begins_with_a_byte_order_mark_is_read(here):
    folder_with(here, config__json=b'\xef\xbb\xbf{"a": 1}')
    assert read_state("hf")[1] == {"config": {"a": 1}}


def shards(here, last=3):
    (here / "hf").mkdir()
    for number, (key, tensor) in enumerate(list(weights().items())[:last], 1):
        save_file({key: tensor}, here / "hf" / f"model-{number:05}-of-00003.safetensors")


def test_several_files_are_read_as_one(here):
    shards(here)
    assert list(read_state("hf")[0]) == ["layer.0.weight", "layer.1.weight", "layer.2.weight"]


def test_a_missing_file_of_several_is_named_with_and_without_an_index(here):
    shards(here, last=2)
    assert "hf lacks model-00003-of-00003.safetensors" in reason("hf")
    index = {"weight_map": {"a": "model-00001-of-00003.safetensors", "b": "part.safetensors"}}
    (here / "hf" / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "hf lacks part.safetensors" in reason("hf")


def test_a_damaged_file_of_several_is_named(here):
    shards(here)
    path = here / "hf" / "model-00002-of-00003.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    assert "hf/model-00002-of-00003.safetensors is not a whole safetensors file" in reason("hf")


def test_files_of_two_saves_are_not_mixed(here):
    shards(here)
    save_file({"layer.0.weight": torch.ones(1)}, here / "hf" / "model-00003-of-00003.safetensors")
    assert "both hold layer.0.weight" in reason("hf")
    save_file({"only": torch.ones(1)}, here / "hf" / "model.safetensors")  # as transformers does, the one file is taken
    assert list(read_state("hf")[0]) == ["only"]


@pytest.mark.parametrize(
    "index",
    ["[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 3}}', '{"weight_map": {"a": "../b.safetensors"}}', "\xff"],
)
def test_an_odd_index_is_named(here, index):
    shards(here)
    (here / "hf" / "model.safetensors.index.json").write_text(index)
    assert "hf/model.safetensors.index.json" in reason("hf")


# The sizes of a model, from shapes and config

TEXT = {"hidden_size": 32, "num_attention_heads": 4}
VIT = {"num_heads": 2}


def shapes(**changes):
    state = {
        "visual_encoder.pos_embed": torch.zeros(1, 5, 32),
        "visual_encoder.patch_embed.proj.weight": torch.zeros(32, 3, 16, 16),
        "visual_encoder.blocks.0.norm1.weight": torch.zeros(32),
        "text_encoder.embeddings.position_embeddings.weight": torch.zeros(64, 32),
        "text_encoder.encoder.layer.0.intermediate.dense.weight": torch.zeros(64, 32),
        "vision_proj.weight": torch.zeros(8, 32),
    }
    state |= {key.replace("__", "."): value for key, value in changes.items()}
    return {key: value for key, value in state.items() if value is not None}


def test_the_shapes_and_the_config_give_the_sizes():
    found = read_architecture(shapes(), {"vit": VIT, "med_config": TEXT}, "a.pth")
    assert (found.image_size, found.embed_dim, found.text.num_attention_heads) == (32, 8, 4)
    assert found.vit == {"embed_dim": 32, "depth": 1, "num_heads": 2, "patch_size": 16}


@pytest.mark.parametrize("value", [[1, 2], 3.5, 7, True, b"a", torch.ones(2), {1, 2}])
@pytest.mark.parametrize("key", ["vit", "med_config", "vision_config", "text_config", "prompt", "vocab_file"])
def test_a_value_of_another_kind_in_the_config_is_named(key, value):
    with pytest.raises(CheckpointError, match=rf"^a.pth: its config's {key} is of type {type(value).__name__}, not "):
        read_architecture(shapes(), {"vit": VIT, "med_config": TEXT, key: value}, "a.pth")


@pytest.mark.parametrize("config", [[1], "text", 5, True, torch.ones(2)])
def test_a_config_of_another_kind_is_named(config):
    with pytest.raises(CheckpointError, match="^a.pth: its config is of type"):
        read_architecture(shapes(), config, "a.pth")


@pytest.mark.parametrize("heads", [0, 3, -4, "4", 2.0, True, [2], float("nan"), 10**30])
@pytest.mark.parametrize(
    "where", [lambda n: {"vit": {"num_heads": n}}, lambda n: {"vision_config": {"num_attention_heads": n}}]
)
def test_impossible_heads_of_the_image_encoder_are_named(where, heads):
    with pytest.raises(CheckpointError, match="must be a whole number that divides the width, 32"):
        read_architecture(shapes(), {"med_config": TEXT, **where(heads)}, "a.pth")


@pytest.mark.parametrize("heads", [0, 3, -4, "4", 2.5, True, [2], None, 10**30])
def test_impossible_heads_of_the_text_model_are_named(heads):
    with pytest.raises(CheckpointError, match=r"^a\.pth: .*num_attention_heads"):
        read_architecture(shapes(), {"vit": VIT, "med_config": TEXT | {"num_attention_heads": heads}}, "a.pth")


@pytest.mark.parametrize("file", ["a\0b", "x" * 300, "~nosuchuser/x", "/dev/zero", "no.json"])
def test_a_text_configuration_that_is_no_file_is_asked_for(file):
    with pytest.raises(CheckpointError, match=r"^a\.pth was trained with the text model of"):
        read_architecture(shapes(), {"vit": VIT, "med_config": file}, "a.pth")


@pytest.mark.parametrize(
    "shape", [(), (5,), (0,), (5, 32), (1, 0, 32), (1, 5, 0), (1, 5, 32, 1), (1, 4, 32), (1, 1, 32)]
)
def test_position_embeddings_of_an_odd_shape_are_named(shape):
    with pytest.raises(CheckpointError, match=r"^a\.pth: visual_encoder\.pos_embed has"):
        read_architecture(
            shapes(visual_encoder__pos_embed=torch.zeros(shape)), {"vit": VIT, "med_config": TEXT}, "a.pth"
        )


@pytest.mark.parametrize("key", shapes())
def test_a_missing_tensor_that_tells_a_size_is_named(key):
    config = {"vit": VIT, "med_config": TEXT}
    state = {name: tensor for name, tensor in shapes().items() if name != key}
    if key == "vision_proj.weight":
        assert read_architecture(state, config, "a.pth").embed_dim == 256
        return
    with pytest.raises(CheckpointError, match=r"^a\.pth(:| lacks| holds no)"):
        read_architecture(state, config, "a.pth")


def test_a_model_larger_than_its_checkpoint_is_not_built():
    wide = torch.zeros(1).expand(1, 2, 1 << 20)  # a ViT of this width needs 12 TB a block
    with pytest.raises(CheckpointError, match="a model of its sizes needs at least 13,"):
        read_architecture(shapes(visual_encoder__pos_embed=wide), {"med_config": TEXT}, "a.pth")
    many = {f"visual_encoder__blocks__{number}__norm1__weight": torch.zeros(1) for number in range(2000)}
    with pytest.raises(CheckpointError, match="are not numbered from 0 to at most 999"):
        read_architecture(shapes(**many), {"vit": VIT, "med_config": TEXT}, "a.pth")


def test_records_that_overlap_are_refused_before_they_are_read(here):
    with zipfile.ZipFile("file.pth", "w") as archive:
        archive.writestr("a/data.pkl", bytes(1000))
        archive.filelist *= 1000
    with pytest.raises(DamagedFile, match="its records are larger than the file"):
        read_state("file.pth")
