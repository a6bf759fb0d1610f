"""Files of tests/cases, which once ended badly or were silently read wrong: each gives its values, or one line."""

from pathlib import Path

import pytest
import torch

from data.caption import CaptionEval, CaptionTrain
from data.dataset import EvalDataset
from data.loaders import TrainLoader, eval_loader
from data.nlvr import NLVREval
from data.records.annotations import AnnotationError
from data.vqa import VQAEval, VQATrain
from metrics.caption import read_references
from metrics.ground_truth import GroundTruthError
from settings import ConfigError
from transform.image import EvalTransform

CASES = Path(__file__).parents[1] / "cases"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BLIP_CACHE", str(tmp_path / "cache"))


def plain(picture, rng) -> torch.Tensor:
    raise AssertionError("no picture is read here")


def evaluated(name) -> CaptionEval:
    return CaptionEval([CASES / name], "", EvalTransform(8))


def test_cocos_own_layout_is_read():
    dataset = CaptionTrain([CASES / "coco_format.json"], "", plain)
    assert len(dataset) == 48
    assert dataset.annotations[0] == {
        "image": "train/shapes_train_000000000000.jpg",
        "caption": ["there are two green triangles"],
        "image_id": 0,
    }


def test_training_on_captions_without_a_word_is_an_error():
    with pytest.raises(
        AnnotationError, match=r"empty_captions_train.json, record 1, and all others: 'caption' is empty"
    ):
        CaptionTrain([CASES / "empty_captions_train.json"], "", plain)


def test_references_without_a_word_are_an_error_before_the_epoch():
    dataset = evaluated("empty_captions_val.json")
    with pytest.raises(GroundTruthError, match="the references of all 6 captioned images are empty, or hold no word"):
        read_references(dataset.ground_truth(), dataset.image_ids)


def test_where_some_images_have_references_these_are_scored():
    dataset = evaluated("some_empty_refs.json")
    references = read_references(dataset.ground_truth(), dataset.image_ids)
    assert [len(references[image]) for image in dataset.image_ids] == [5, 0, 3, 0, 5, 0]


def test_an_empty_file_and_an_empty_list_are_named():
    with pytest.raises(AnnotationError, match=r"empty_file.json is empty$"):
        CaptionTrain([CASES / "empty_file.json"], "", plain)
    with pytest.raises(ConfigError, match=r"nothing to train on: no sample in .*empty_list.json$"):
        TrainLoader(CaptionTrain([CASES / "empty_list.json"], "", plain), batch_size=2)
    with pytest.raises(ConfigError, match=r"nothing to evaluate: no record in .*empty_list.json$"):
        eval_loader(evaluated("empty_list.json"), 2)


def test_a_ground_truth_with_a_byte_order_mark_is_read():
    images = evaluated("gt_bom_val.json").image_ids
    assert sorted(read_references(CASES / "gt_bom.json", images)) == images


def test_a_ground_truth_in_utf_16_is_read(tmp_path):
    images = evaluated("gt_bom_val.json").image_ids
    text = (CASES / "gt_bom.json").read_text("utf-8-sig")
    (tmp_path / "gt.json").write_text(text, "utf-16")
    assert read_references(tmp_path / "gt.json", images) == read_references(CASES / "gt_bom.json", images)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gt_null_caption", r"gt_null_caption.json: annotation 0 \(image_id 0\) has the caption None, expected text"),
        ("gt_str_ids", "ids of the captioned images are text, those of the ground truth a number; write both alike"),
    ],
)
def test_a_ground_truth_of_other_types_is_an_error(name, message):
    with pytest.raises(GroundTruthError, match=message):
        read_references(CASES / f"{name}.json", evaluated(f"{name}_val.json").image_ids)


@pytest.mark.parametrize("name", ["nlvr_bool", "nlvr_lower"])
def test_truth_values_are_taken_as_they_are_meant(name):
    dataset: EvalDataset = NLVREval([CASES / f"{name}.json"], "", EvalTransform(8))
    assert dataset.annotations.values("label") == [True, True, False, False, True, True, False]


def test_blank_answers_are_an_error():
    with pytest.raises(
        AnnotationError, match=r"vqa_empty_answer_train.json, record 1, and all others: 'answer' is empty"
    ):
        VQATrain([CASES / "vqa_empty_answer_train.json"], plain)
    with pytest.raises(
        AnnotationError, match=r"vqa_empty_answer_val.json, record 1, and all others: 'answer' is blank"
    ):
        VQAEval([CASES / "vqa_empty_answer_val.json"], EvalTransform(8)).ground_truth()
