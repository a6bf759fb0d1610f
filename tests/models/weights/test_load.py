"""The loader: what it explains, what it refuses, and that it never loads a part in silence."""

import argparse
import json
import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from files import REPOSITORY
from models.blip_itm import BLIPMatcher
from models.blip_retrieval import blip_retrieval
from models.config import TextConfig
from models.med import TextDecoder
from models.weights import conversions
from models.weights.build import build_from_checkpoint
from models.weights.integrity import DamagedFile
from models.weights.load import CheckpointError, load_checkpoint, read_state
from models.weights.released import RELEASED, find_released, markdown_table

Golden = Callable[[str], Path]
VQA_REMADE = ["text_decoder.bert.encoder.layer.*.crossattention.self.key.*"]
VQA_REMADE += [pattern.replace("key", "value") for pattern in VQA_REMADE]
NLVR_REMADE = ["cls_head", "text_encoder.encoder.layer.*.crossattention.output.merge_layer"]


class StandIn(nn.Module):
    """A module with tensors of the given names and shapes, all -1; `tied` names share one."""

    def __init__(self, shapes: Mapping[str, list[int]], tied: list[list[str]] = ()) -> None:
        super().__init__()
        first = {name: group[0] for group in tied for name in group}
        tensors = {name: nn.Parameter(torch.full(shape, -1.0)) for name, shape in shapes.items()}
        for name in shapes:
            parent = self
            *path, leaf = name.split(".")
            for part in path:
                if part not in dict(parent.named_children()):
                    parent.add_module(part, nn.Module())
                parent = getattr(parent, part)
            parent.register_parameter(leaf, tensors[first.get(name, name)])
        self.momentum_resets = 0

    def reset_momentum(self) -> None:
        self.momentum_resets += 1


@pytest.fixture(scope="module")
def stand_in(golden: Golden) -> Callable[..., StandIn]:
    """`stand_in('vqa', key=shape, ...)`: the model of that fixture, with some shapes changed."""

    def build(task: str, changes: Mapping[str, list[int]] | None = None) -> StandIn:
        shapes = json.loads(golden(f"{task}/state_dict_keys.json").read_text())
        shapes = {key: shape for key, shape in shapes.items() if not key.endswith("position_ids")}
        tied = []
        if task == "pretrain":
            tied = json.loads(golden("pretrain/tied_keys.json").read_text())["shared_storage_groups"]
        return StandIn(shapes | dict(changes or {}), tied)

    return build


def weights(golden: Golden, task: str) -> dict[str, Tensor]:
    return torch.load(golden(f"{task}/checkpoint.pth"), weights_only=True)["model"]


@pytest.mark.parametrize("task", ["caption", "vqa", "nlvr", "retrieval", "pretrain"])
def test_every_tensor_of_a_checkpoint_reaches_its_own_model(task: str, stand_in: Callable, golden: Golden) -> None:
    model = stand_in(task)
    report = load_checkpoint(model, golden(f"{task}/checkpoint.pth"))
    expected = weights(golden, task)
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, expected[key].float()), key
    assert report.missing == ()
    assert all(key.endswith("position_ids") for key in report.unexpected)
    assert set(report.explained) == set(report.unexpected)
    assert model.momentum_resets == 0


def test_tied_tensors_stay_tied(stand_in: Callable, golden: Golden) -> None:
    model = stand_in("pretrain")
    load_checkpoint(model, golden("pretrain/checkpoint.pth"))
    embeddings = model.text_encoder.embeddings.word_embeddings.weight
    assert model.text_decoder.cls.predictions.decoder.weight is embeddings


def test_a_captioner_starts_from_a_pretrained_checkpoint(stand_in: Callable, golden: Golden) -> None:
    report = load_checkpoint(stand_in("caption"), golden("pretrain/checkpoint.pth"))
    facts = json.loads(golden("pretrain/loading_into_other_models.json").read_text())
    assert list(report.missing) == facts["caption_model_missing"]
    unexpected = {key for key in report.unexpected if not key.endswith("position_ids")}
    assert sorted({key.split(".")[0] for key in unexpected}) == facts["caption_model_unexpected_top"]
    assert report.explained["itm_head.weight"] == "this model has no such part"


def test_vqa_makes_what_reads_the_question_anew(stand_in: Callable, golden: Golden) -> None:
    model = stand_in("vqa")
    report = load_checkpoint(model, golden("pretrain/checkpoint.pth"), reinitialized=VQA_REMADE)
    facts = json.loads(golden("pretrain/loading_into_other_models.json").read_text())
    assert sorted(report.missing) == facts["vqa_model_missing"]
    attention = model.text_decoder.bert.encoder.layer.get_submodule("0").crossattention.self
    assert (attention.key.weight == -1).all()
    assert not (attention.key.bias == -1).any()  # of one size in both, so it is kept


def test_without_leave_another_width_is_an_error_that_names_the_keys(stand_in: Callable, golden: Golden) -> None:
    model = stand_in("vqa")
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(model, golden("pretrain/checkpoint.pth"))
    assert "[32, 48] in the checkpoint, but [32, 32] in the model" in str(caught.value)
    assert "text_decoder.bert.encoder.layer.*.crossattention.self.key.weight (8 keys)" in str(caught.value)
    assert all((tensor == -1).all() for tensor in model.state_dict().values()), "something was loaded all the same"


QUEUE_OF_8 = {"image_queue": [16, 8], "text_queue": [16, 8], "idx_queue": [1, 8]}


@pytest.mark.parametrize("source", ["pretrain", "retrieval"])
def test_a_queue_of_another_size_starts_anew_with_its_pointer(source: str, stand_in: Callable, golden: Golden) -> None:
    model = stand_in("retrieval", QUEUE_OF_8)
    report = load_checkpoint(model, golden(f"{source}/checkpoint.pth"))
    assert sorted(report.missing) == ["idx_queue", "image_queue", "ptr_queue", "text_queue"]
    assert model.ptr_queue.item() == -1
    copy = "text_encoder_m.embeddings.LayerNorm.bias"
    assert torch.equal(model.state_dict()[copy], weights(golden, source)[copy])
    assert model.momentum_resets == 0


def test_a_pretrained_queue_of_the_right_size_is_kept(stand_in: Callable, golden: Golden) -> None:
    model = stand_in("retrieval")
    report = load_checkpoint(model, golden("pretrain/checkpoint.pth"))
    assert sorted(report.missing) == ["idx_queue", "ptr_queue"]
    assert torch.equal(model.image_queue, weights(golden, "pretrain")["image_queue"])


def test_momentum_copies_restart_where_a_checkpoint_has_none(
    stand_in: Callable, golden: Golden, tmp_path: Path
) -> None:
    state = {key: value for key, value in weights(golden, "retrieval").items() if "_m." not in key}
    torch.save({"model": state}, tmp_path / "weights.pth")
    model = stand_in("retrieval")
    report = load_checkpoint(model, tmp_path / "weights.pth")
    assert model.momentum_resets == 1
    assert all("_m." in key for key in report.missing)


def test_nlvr_starts_both_cross_attentions_from_the_single_one(stand_in: Callable, golden: Golden) -> None:
    model = stand_in("nlvr")
    report = load_checkpoint(model, golden("pretrain/checkpoint.pth"), reinitialized=NLVR_REMADE)
    state, loaded = weights(golden, "pretrain"), model.state_dict()
    prefix = "text_encoder.encoder.layer.3.crossattention."
    for twin in "01":
        assert torch.equal(loaded[f"{prefix}self{twin}.value.weight"], state[f"{prefix}self.value.weight"])
        assert torch.equal(loaded[f"{prefix}output.dense{twin}.bias"], state[f"{prefix}output.dense.bias"])
    merging = [key for key in report.missing if "merge_layer" in key]
    assert len(merging) == 4  # weight and bias in layers 6 and 7
    assert set(report.missing) - set(merging) == {f"cls_head.{i}.{kind}" for i in (0, 2) for kind in ("weight", "bias")}


def test_a_head_that_nobody_said_is_new_is_an_error(stand_in: Callable, golden: Golden) -> None:
    with pytest.raises(
        CheckpointError, match=r"in the model, but not in the checkpoint:\n    cls_head \(the whole part\)"
    ):
        load_checkpoint(stand_in("nlvr"), golden("pretrain/checkpoint.pth"), reinitialized=NLVR_REMADE[1:])


@pytest.mark.parametrize(("source", "target"), [("caption", "retrieval"), ("nlvr", "vqa"), ("retrieval", "caption")])
def test_a_checkpoint_of_another_task_is_refused(source: str, target: str, stand_in: Callable, golden: Golden) -> None:
    with pytest.raises(CheckpointError, match="in the model, but not in the checkpoint"):
        load_checkpoint(stand_in(target), golden(f"{source}/checkpoint.pth"))


def test_a_key_of_no_known_part_is_refused(stand_in: Callable, golden: Golden, tmp_path: Path) -> None:
    state = weights(golden, "caption") | {
        "visual_encoder.blocks.0.extra": torch.ones(1),
        "adapter.weight": torch.ones(1),
    }
    torch.save({"model": state}, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(stand_in("caption"), tmp_path / "weights.pth")
    assert "in the checkpoint, but not in the model" in str(caught.value)
    assert "adapter.weight" in str(caught.value)
    assert "visual_encoder.blocks.0.extra" in str(caught.value)


def test_two_values_for_one_tensor_are_refused(stand_in: Callable, golden: Golden, tmp_path: Path) -> None:
    state = weights(golden, "pretrain")
    key = "text_decoder.bert.embeddings.LayerNorm.bias"
    torch.save({"model": state | {key: state[key] + 1}}, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match="both are one tensor in the model:\n    " + re.escape(key)):
        load_checkpoint(stand_in("pretrain"), tmp_path / "weights.pth")


def test_another_vocabulary_has_a_message_of_its_own(golden: Golden) -> None:
    config = TextConfig.read(golden("med_config.json"))
    model = nn.ModuleDict({"text_decoder": TextDecoder(config, vocabulary=62, source_width=48)})
    with pytest.raises(CheckpointError, match="vocabulary has 30,524 entries and the model's 62: .*vocab_file"):
        load_checkpoint(model, golden("caption/checkpoint.pth"))


def test_position_embeddings_follow_the_image_size(stand_in: Callable, golden: Golden) -> None:
    changes = {f"visual_encoder{copy}.pos_embed": [1, 37, 48] for copy in ("", "_m")}
    model = stand_in("pretrain", changes)
    report = load_checkpoint(model, golden("pretrain/checkpoint.pth"))
    assert sorted(report.resized) == sorted(changes)
    expected = np.load(golden("pos_embed/expected_big.npz"))["pos_embed_after_load"]
    np.testing.assert_allclose(model.visual_encoder.pos_embed.detach().numpy(), expected, rtol=0, atol=1e-6)
    assert "visual_encoder.pos_embed resized" in str(report)


def test_a_wider_image_encoder_is_no_matter_of_resizing(stand_in: Callable, golden: Golden) -> None:
    with pytest.raises(CheckpointError, match=r"\[1, 17, 48\] in the checkpoint, but \[1, 17, 64\] in the model"):
        load_checkpoint(
            stand_in("caption", {"visual_encoder.pos_embed": [1, 17, 64]}), golden("caption/checkpoint.pth")
        )


def test_the_head_may_be_stored_once(golden: Golden, tmp_path: Path) -> None:
    """Files that do not repeat tied tensors, such as safetensors, load too."""
    config = TextConfig.read(golden("med_config.json"))
    state = weights(golden, "caption")
    kept = {key: value for key, value in state.items() if "predictions.decoder" not in key and "visual" not in key}
    save_file(kept, tmp_path / "weights.safetensors")
    model = nn.ModuleDict({"text_decoder": TextDecoder(config, 30524, 48)})
    report = load_checkpoint(model, tmp_path / "weights.safetensors")
    head = model["text_decoder"].cls.predictions
    assert torch.equal(head.decoder.weight, state["text_decoder.cls.predictions.decoder.weight"])
    assert torch.equal(head.decoder.bias, state["text_decoder.cls.predictions.decoder.bias"])
    weight = "text_decoder.cls.predictions.decoder.weight"
    assert report.explained[weight].startswith("it is the same tensor as text_decoder.bert.embeddings")


def test_the_report_is_logged(golden: Golden, stand_in: Callable, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="blip.models"):
        load_checkpoint(stand_in("caption"), golden("pretrain/checkpoint.pth"))
    assert "left out: this model has no such part" in caplog.text


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_a_model_saved_from_inside_a_wrapper_loads(
    golden: Golden, stand_in: Callable, tmp_path: Path, prefix: str
) -> None:
    expected = weights(golden, "caption")
    torch.save({"model": {prefix + key: tensor for key, tensor in expected.items()}}, tmp_path / "wrapped.pth")
    model = stand_in("caption")
    report = load_checkpoint(model, tmp_path / "wrapped.pth")
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, expected[key].float()), key
    assert report.missing == ()
    assert report.wrappers[0] == {"m": "DistributedDataParallel", "_": "torch.compile"}[prefix[0]]
    assert len(report.wrappers) == prefix.count(".")
    assert f"saved from inside {report.wrappers[0]}, whose prefix was taken off every key" in str(report)


# Reading


def test_our_own_checkpoints_come_with_what_else_is_in_them(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint_last.pth"
    torch.save({"model": {"a": torch.ones(2)}, "optimizer": {"state": {}}, "epoch": 3}, path)
    state, metadata = read_state(path)
    assert list(state) == ["a"]
    assert metadata == {"optimizer": {"state": {}}, "epoch": 3}


def test_a_pickle_of_more_than_tensors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"model": {"a": torch.ones(2)}, "args": argparse.Namespace(lr=1)}, path)
    with pytest.raises(CheckpointError, match=r"is refused: its pickle holds argparse\.Namespace besides tensors"):
        read_state(path)


def test_a_refused_pickle_runs_nothing(tmp_path: Path) -> None:
    class Malicious:
        def __reduce__(self) -> tuple:
            return Path.touch, (tmp_path / "ran",)

    torch.save({"model": Malicious()}, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match="is refused"):
        read_state(tmp_path / "weights.pth")
    assert not (tmp_path / "ran").exists()


def test_damaged_files_are_called_so(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"model": {"a": torch.ones(1000)}}, path)
    whole = path.read_bytes()
    for content in (whole[:1000], b"", b"<html>Not found</html>"):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"weights\.pth is not a PyTorch file, or a damaged one"):
            read_state(path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"not safetensors")
    with pytest.raises(CheckpointError, match="is not a whole safetensors file"):
        read_state(path)


@pytest.mark.parametrize("content", [{"model": {"a": 1}}, {"epoch": 3}, {}, [torch.ones(1)]])
def test_a_file_without_weights_says_what_it_holds(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match="holds no weights|holds a list"):
        read_state(tmp_path / "weights.pth")


def test_an_output_folder_is_not_mistaken_for_one_of_its_files(tmp_path: Path) -> None:
    torch.save({"model": {"a": torch.ones(1)}}, tmp_path / "checkpoint_best.pth")
    with pytest.raises(CheckpointError, match="name that: checkpoint_best.pth"):
        read_state(tmp_path)


def test_an_unknown_source_lists_what_would_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLIP_OFFLINE", "1")
    with pytest.raises(CheckpointError, match="did you mean model_base_retrieval_coco"):
        read_state("model_base_retreival_coco")
    with pytest.raises(CheckpointError, match="no file or folder here"):
        read_state("output/checkpoint_best.pth")
    with pytest.raises(OSError, match=r"cannot fetch someone/blip from the Hugging Face hub.*\n.*model\.safetensors"):
        read_state("someone/blip")


@pytest.mark.parametrize("form", ["{name}", "{name}.pth", "{url}"])
def test_released_names_and_addresses_share_the_cache(
    form: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BLIP_CACHE", str(tmp_path))
    monkeypatch.setenv("BLIP_OFFLINE", "1")
    entry = RELEASED["model_vqa"]
    source = form.format(name=entry.name, url=entry.url)
    with pytest.raises(OSError, match=re.escape(str(tmp_path / "model_vqa.pth"))):
        read_state(source)
    torch.save({"model": {"a": torch.ones(1)}}, tmp_path / "model_vqa.pth")
    assert list(read_state(source)[0]) == ["a"]


def test_other_addresses_of_one_file_name_are_kept_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BLIP_CACHE", str(tmp_path))
    monkeypatch.setenv("BLIP_OFFLINE", "1")
    places = set()
    for url in ("https://a.org/model.pth", "https://b.org/model.pth"):
        with pytest.raises(OSError, match=r"-model\.pth") as caught:
            read_state(url)
        places.add(re.search(r"wanted at: (.*)", str(caught.value))[1])
    assert len(places) == 2


def test_a_flipped_bit_in_a_tensor_is_refused(tmp_path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"model": {"temp": torch.arange(1000.0)}}, path)
    content = bytearray(path.read_bytes())
    content[content.index(torch.tensor(500.0).numpy().tobytes()) + 1] ^= 1
    path.write_bytes(content)
    assert not torch.load(path, weights_only=True)["model"]["temp"].equal(torch.arange(1000.0))  # torch takes it
    with pytest.raises(DamagedFile, match=r"weights\.pth is damaged: its record .*the checksum differs"):
        read_state(path)


# The table of released checkpoints


def test_the_documentation_has_the_tables_of_the_code() -> None:
    page = (REPOSITORY / "docs" / "checkpoints.md").read_text(encoding="utf-8")
    assert markdown_table() in page
    assert conversions.markdown_table() in page


def test_a_released_file_is_known_by_its_name() -> None:
    assert find_released("/data/model_base_nlvr.pth") is RELEASED["model_base_nlvr"]
    assert find_released("output/checkpoint_best.pth") is None


@pytest.mark.parametrize("entry", RELEASED.values(), ids=lambda entry: entry.name)
def test_each_released_checkpoint_is_described(entry) -> None:
    assert entry.task in {"pretrain", "retrieval", "caption", "vqa", "nlvr"}
    assert entry.url.endswith((f"/BLIP/models/{entry.name}.pth", f"/LAVIS/models/BLIP/{entry.name}.pth"))
    assert bool(entry.finetuned_on) == (entry.task != "pretrain")
    assert bool(entry.scores) == (entry.task != "pretrain" and entry.name not in {"blip_okvqa", "blip_aokvqa"})


@pytest.mark.parametrize("entry", conversions.CONVERSIONS.values(), ids=lambda entry: entry.name)
def test_a_conversion_is_known_to_hold_a_released_file_or_none(entry) -> None:
    assert find_released(entry.name) is (RELEASED[entry.source] if entry.source else None)


def test_a_file_in_the_layout_of_lavis_loads_whole(tmp_path: Path) -> None:
    text = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 64}
    sizes = {"vit": {"embed_dim": 64, "depth": 1, "num_heads": 1}, "med_config": text, "image_size": 32}
    torch.manual_seed(0)
    trained = blip_retrieval(**sizes, queue_size=8).state_dict()
    encoders = ("text_encoder", "text_encoder_m")
    positions = {f"{encoder}.embeddings.position_ids": torch.arange(512)[None] for encoder in encoders}
    config = {"run": {"task": "retrieval"}, "model": {"arch": "blip_retrieval", "vit_type": "base"}, "datasets": {}}
    content = {"model": trained | positions, "optimizer": {}, "scaler": None, "config": config, "epoch": 5}
    torch.save(content, tmp_path / "blip_coco_retrieval.pth")
    models = (
        build_from_checkpoint(BLIPMatcher, tmp_path / "blip_coco_retrieval.pth"),
        blip_retrieval(tmp_path / "blip_coco_retrieval.pth", **sizes, queue_size=8),
    )
    for model in models:
        assert all(torch.equal(tensor, trained[key]) for key, tensor in model.state_dict().items())
