"""What a checkpoint tells of its task and its training."""

from pathlib import Path

import pytest
import torch

from evaluation.provenance import TrainedCheckpoint, provenance
from evaluation.report import EvaluatedSplit, compare
from models.weights.conversions import CONVERSIONS
from models.weights.released import RELEASED


@pytest.mark.parametrize("task", ["pretrain", "retrieval", "caption", "vqa", "nlvr"])
def test_the_task_is_told_by_the_models_parts(golden, task):
    assert provenance(str(golden(f"{task}/checkpoint.pth"))).task == task


@pytest.mark.parametrize(
    ("part", "config", "seen"),
    [
        ("cls_head", {"train_file": "own.json", "pretrained": "model_base"}, ["{here}/own.json"]),
        ("cls_head", {"train_file": "", "ann_root": "annotation"}, ["nlvr_train"]),
        ("itm_head", {"dataset": "flickr", "ann_root": ""}, ["flickr30k_train"]),
        ("itm_head", {"train_file": ["/a.json", "b.json"], "dataset": "coco"}, ["/a.json", "{here}/b.json"]),
        ("text_decoder", {"train_file": "", "ann_root": "annotation"}, ["coco_karpathy_train"]),
        (
            "text_decoder",
            {"train_file": "/a.json", "pretrained": "old/model_large_caption.pth"},
            ["/a.json", "coco_karpathy_train"],
        ),
        ("text_decoder", {}, []),
    ],
)
def test_what_was_trained_on_is_told_by_the_config(tmp_path, monkeypatch, part, config, seen):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": {f"{part}.weight": torch.zeros(1)}, "config": config}, "checkpoint_best.pth")
    assert provenance("checkpoint_best.pth").finetuned_on == tuple(one.format(here=tmp_path) for one in seen)


def test_vqas_files_are_told_by_their_names(tmp_path):
    state = {"text_encoder.x": torch.zeros(1), "text_decoder.x": torch.zeros(1)}
    config = {"train_files": ["vqa_train", "vg_qa", "mine"], "ann_root": str(tmp_path)}
    torch.save({"model": state, "config": config}, tmp_path / "best.pth")
    seen = ("vqa_train", "vg_qa", str(tmp_path / "mine.json"))
    assert provenance(str(tmp_path / "best.pth")) == TrainedCheckpoint("vqa", seen)


def test_released_checkpoints_are_known_by_name_address_and_hub_name():
    entry = RELEASED["model_vqa"]
    for source in ("model_vqa", "old/model_vqa.pth", entry.url):
        assert provenance(source) is entry
    assert provenance("Salesforce/blip-itm-base-coco") is RELEASED["model_base_retrieval_coco"]
    assert provenance("Salesforce/blip-image-captioning-base") is RELEASED["model_base_capfilt_large"]


@pytest.mark.parametrize("conversion", [entry for entry in CONVERSIONS.values() if not entry.source])
def test_no_published_score_stands_beside_a_conversion_of_an_unknown_file(conversion):
    known = provenance(conversion.name)
    assert known == TrainedCheckpoint(conversion.task, ())
    for file in ("coco_karpathy_test.json", "flickr30k_test.json", "vqa_test.json"):
        evaluated = EvaluatedSplit("test", [Path(file)], conversion.task, conversion.name, known)
        (line,) = compare(evaluated.named({"TR R@1": 80.0}), known.scores)
        assert line.published is None
        assert evaluated.warnings()[-1].startswith(f"which released file {conversion.name} holds is not known (its na")


def test_a_pretrained_file_is_named_as_such_under_its_hub_name():
    source = "Salesforce/blip-image-captioning-base"
    evaluated = EvaluatedSplit("test", [Path("coco_karpathy_test.json")], "caption", source, provenance(source))
    (warning,) = evaluated.warnings()
    assert "pre-trained only, not fine-tuned for caption" in warning
    assert evaluated.named({"CIDEr": 1.0}).keys() == {"test CIDEr"}


def test_where_nothing_is_told_nothing_is_known(tmp_path):
    torch.save({"model": {"visual_encoder.x": torch.zeros(1)}}, tmp_path / "vit.pth")
    for source in (None, "", "someone/else", str(tmp_path), str(tmp_path / "vit.pth")):
        assert provenance(source) is None
