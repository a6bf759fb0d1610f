"""VQA accuracy by the rules of visualqa.org/evaluation.html, by hand and by brute force."""

import json
import random
from pathlib import Path

import pytest

from metrics.ground_truth import GroundTruthError
from metrics.vqa import answer_accuracy, normalize_answer, read_annotations, score_vqa


@pytest.mark.parametrize(
    ("answer", "form"),
    [
        ("Yes", "yes"),
        ("  the  Dog\n", "dog"),
        ("two", "2"),
        ("none", "0"),
        ("an apple and a pear", "apple and pear"),
        ("dont", "don't"),
        ("its", "its"),
        ("girl's", "girl's"),
        ("2:50 pm", "2:50 pm"),
        ("3.5", "3.5"),
        ("St. Louis.", "st louis"),
        ("100,978", "100978"),
        ("yes, sir", "yes sir"),
        ("black-and-white", "black and white"),
        ("black - white", "black white"),
        ("red/blue", "red blue"),
        ("is it?", "is it"),
        ("shes there and ive seen it", "she's there and i've seen it"),
        ("", ""),
        ("the", ""),
    ],
)
def test_answers_are_brought_to_one_form(answer: str, form: str) -> None:
    assert normalize_answer(answer) == form
    assert normalize_answer(form) == form


@pytest.mark.parametrize(("matches", "accuracy"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)])
def test_accuracy_by_number_of_annotators_who_agree(matches: int, accuracy: float) -> None:
    given = ["cat"] * matches + [f"other{i}" for i in range(10 - matches)]
    assert answer_accuracy("Cat.", given) == pytest.approx(accuracy)  # the published table: 1 of 10 is 0.3, 3 are 0.9


def test_accuracy_is_the_mean_over_leaving_each_annotator_out() -> None:
    rng = random.Random(0)
    for _ in range(50):
        given = [rng.choice("abcd") * 2 for _ in range(10)]
        answer = rng.choice("abcd") * 2
        others = [given[:i] + given[i + 1 :] for i in range(10)]
        assert answer_accuracy(answer, given) == pytest.approx(sum(min(1, o.count(answer) / 3) for o in others) / 10)


def test_a_few_annotators_who_all_agree_are_enough() -> None:
    assert answer_accuracy("red", ["red"]) == 1
    assert answer_accuracy("red", ["Red", "red"]) == 1
    assert answer_accuracy("red", ["red", "blue"]) == 0.5
    assert answer_accuracy("blue", ["red"]) == 0


def official(tmp_path: Path) -> Path:
    def entry(question: int, answers: list[str], answer_type: str, question_type: str) -> dict:
        numbered = [
            {"answer": answer, "answer_id": i, "answer_confidence": "yes"} for i, answer in enumerate(answers, 1)
        ]
        types = {"answer_type": answer_type, "question_type": question_type}
        return {"question_id": question, "image_id": 1, "answers": numbered, **types}

    path = tmp_path / "annotations.json"
    annotations = [
        entry(1, ["yes"] * 10, "yes/no", "is the"),
        entry(2, ["2"] * 2 + ["3"] * 8, "number", "how many"),
        entry(3, ["red"] * 10, "other", "what color"),
        entry(4, ["no"] * 10, "yes/no", "is the"),
    ]
    path.write_text(json.dumps({"annotations": annotations}))
    return path


def test_overall_and_by_type(tmp_path: Path) -> None:
    answers = [{"question_id": i, "answer": answer} for i, answer in enumerate(("yes", "two", "blue"), 1)]
    scores = score_vqa(answers, read_annotations(official(tmp_path)))
    assert scores.per_question == pytest.approx({1: 1, 2: 0.6, 3: 0, 4: 0})
    assert scores.overall == pytest.approx(40)
    assert scores.by_answer_type == pytest.approx({"number": 60, "other": 0, "yes/no": 50})
    assert scores.by_question_type == pytest.approx({"how many": 60, "is the": 50, "what color": 0})
    assert scores.unanswered == 1
    assert scores.remarks == ["annotated questions without an answer, which count as wrong: 1"]


def test_a_training_list_serves_as_annotations() -> None:
    entries = [
        {"dataset": "vqa", "question_id": 5, "question": "?", "image": "a.jpg", "answer": ["red"] * 10},
        {"dataset": "vg", "question": "?", "image": "b.jpg", "answer": "red"},
    ]
    scores = score_vqa([{"question_id": 5, "answer": "red"}], read_annotations(entries))
    assert (scores.overall, scores.by_answer_type, scores.by_question_type) == (100, {}, {})


def test_the_wrong_split_is_an_error_not_a_zero() -> None:
    with pytest.raises(ValueError, match="none of 1 questions"):
        score_vqa([{"question_id": 9, "answer": "red"}], {5: {"answers": ["red"]}})
    with pytest.raises(ValueError, match="question_id 5"):
        read_annotations([{"question_id": 5, "answer": []}])


@pytest.mark.parametrize("content", [{"questions": [{"question_id": 5}]}, [5], {"annotations": "red"}])
def test_what_is_no_list_of_annotations_is_named(tmp_path: Path, content: object) -> None:
    (tmp_path / "questions.json").write_text(json.dumps(content))
    with pytest.raises(GroundTruthError, match="questions.json: expected a list of {question_id, answer}"):
        read_annotations(tmp_path / "questions.json")
