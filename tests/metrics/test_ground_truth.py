"""Ground truth that cannot be used is an error for its owner: it says which file, and what is wrong with it."""

import json
import os

import pytest

from metrics.caption import read_references
from metrics.ground_truth import GroundTruthError, MissingGroundTruth, read_json
from metrics.vqa import read_annotations


def test_what_is_missing_or_broken_is_named(tmp_path):
    assert read_json(_file(tmp_path, '{"annotations": []}')) == {"annotations": []}
    with pytest.raises(MissingGroundTruth, match=r"none\.json is not there"):
        read_json(tmp_path / "none.json")
    with pytest.raises(MissingGroundTruth, match=rf"{tmp_path.name} cannot be read: Is a directory"):
        read_json(tmp_path)
    with pytest.raises(GroundTruthError, match=r"truth\.json is not JSON: Expecting"):
        read_json(_file(tmp_path, '{"annotations": '))


def test_other_formats_are_refused(tmp_path):
    with pytest.raises(GroundTruthError, match=r"truth\.json is not in COCO format"):
        read_references(_file(tmp_path, "[]"))
    with pytest.raises(GroundTruthError, match=r"annotation 0 \(question_id 7\) has no answers"):
        read_annotations(_file(tmp_path, '[{"question_id": 7, "answer": []}]'))
    with pytest.raises(GroundTruthError, match=r"annotation 1 has the question_id of an earlier one, 7"):
        read_annotations([{"question_id": 7, "answer": "red"}, {"question_id": 7, "answer": "blue"}])


def test_a_byte_order_mark_is_passed_over(tmp_path):
    assert read_json(_file(tmp_path, "\ufeff[1]")) == [1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not JSON: Expecting value"),
        (b"\xff[]", "is not UTF-8 text"),
        (b"[" * 100_000, "nested too deep"),
        (b'{"a": ' + b"1" * 5_000 + b"}", "is not JSON: Exceeds the limit"),
    ],
)
def test_what_is_no_json_is_one_line(tmp_path, content, message):
    (tmp_path / "truth.json").write_bytes(content)
    with pytest.raises(GroundTruthError, match=rf"truth\.json {message}|truth\.json .*{message}"):
        read_json(tmp_path / "truth.json")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_named_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "truth.json")
    with pytest.raises(MissingGroundTruth, match="cannot be read: Is a pipe or a device"):
        read_json(tmp_path / "truth.json")


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        ({"annotations": None}, "it has no 'annotations' list"),
        ({"annotations": "ab"}, "it has no 'annotations' list"),
        ({"annotations": [3]}, "entry 0 of 'annotations' is 3, expected an object"),
        ({"annotations": [{"image_id": 1, "caption": None}]}, r"annotation 0 \(image_id 1\) has the caption None, exp"),
        ({"annotations": [{"image_id": 1, "caption": 5}]}, "has the caption 5, expected text"),
        ({"annotations": [{"image_id": 1, "caption": ["a"]}]}, "has the caption .*, expected text"),
        ({"annotations": [{"image_id": [1], "caption": "a"}]}, r"has the image_id \[1\], expected a number or text"),
        ({"annotations": [{"image_id": None, "caption": "a"}]}, "has the image_id None"),
    ],
)
def test_a_wrong_reference_is_named_with_its_file(tmp_path, truth, message):
    with pytest.raises(GroundTruthError, match=rf"truth\.json.*{message}"):
        read_references(_file(tmp_path, json.dumps(truth)))


def test_ids_of_another_kind_are_told():
    truth = {"annotations": [{"image_id": 0, "caption": "a cat"}]}
    with pytest.raises(GroundTruthError, match="captioned images are text, those of the ground truth a number"):
        read_references(truth, ["0"])
    with pytest.raises(GroundTruthError, match="is this the ground truth of the split"):
        read_references(truth, [1])


def test_references_without_a_word_are_left_out_and_an_error_where_all_are():
    captions = [(0, "a cat"), (0, " "), (1, ""), (1, "!!!"), (2, "\U0001f600")]
    truth = {"annotations": [{"image_id": image, "caption": caption} for image, caption in captions]}
    assert read_references(truth, [0, 1, 2]) == {0: ["a cat"], 1: [], 2: []}
    with pytest.raises(GroundTruthError, match="the references of all 2 captioned images are empty, or hold no word"):
        read_references(truth, [1, 2])


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"question_id": 7, "answer": None}, "has no answers to compare with"),
        ({"question_id": 7, "answer": [None]}, "has the answer None, expected text"),
        ({"question_id": 7, "answer": 3}, "has the answer 3, expected text"),
        ({"question_id": 7, "answers": [{"answer": 3}]}, "has the answer 3, expected text"),
        ({"question_id": 7, "answers": [{}]}, "has the answer None, expected text"),
        ({"question_id": [7], "answer": "x"}, r"has the question_id \[7\], expected a number or text"),
        ({"question_id": 7, "answer": ["", " "]}, "the answers to all 1 questions are blank"),
    ],
)
def test_a_wrong_answer_is_named_with_its_file(tmp_path, entry, message):
    with pytest.raises(GroundTruthError, match=rf"truth\.json.*{message}"):
        read_annotations(_file(tmp_path, json.dumps([entry])))


def test_blank_answers_are_left_out():
    entries = [{"question_id": 1, "answer": ["", "red"]}, {"question_id": 2, "answer": ""}]
    assert read_annotations(entries) == {1: {"answers": ["red"]}}


def _file(folder, content):
    path = folder / "truth.json"
    path.write_text(content)
    return path
