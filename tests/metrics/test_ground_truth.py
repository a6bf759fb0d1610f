"""Ground truth that cannot be used is an error for its owner: it says which file, and what is wrong with it."""

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


def _file(folder, content):
    path = folder / "truth.json"
    path.write_text(content)
    return path
