"""What is said of texts before a run: words the vocabulary lacks, cut captions, answers that cannot be right."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from data.caption import TRAIN
from data.records.annotations import Annotations
from evaluation.text_survey import survey_candidates, survey_texts
from settings.model import ModelSettings


@dataclass
class Model(ModelSettings):
    image_size: int = 32


@pytest.fixture
def said(tmp_path, caplog, monkeypatch):
    """The captions of a file -> what is said about them."""
    monkeypatch.setenv("BLIP_CACHE", str(tmp_path / "cache"))

    def survey(captions: list[Any], max_words: int | None = 30, **model: Any) -> str:
        file = tmp_path / "train.json"
        file.write_text(json.dumps([{"image": f"{i}.jpg", "caption": text} for i, text in enumerate(captions)]))
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="blip.evaluation"):
            survey_texts(Annotations([file], TRAIN), "caption", Model(**model), max_words)
        return caplog.text

    return survey


def test_captions_in_a_language_that_the_vocabulary_lacks_are_named(said, tmp_path):
    chinese = ["一只黑色的猫坐在沙发上", ["一只狗", "狗在海滩上"]]
    assert "train.json: 68% of the words of 'caption' are not in the vocabulary" in said(chinese)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(set("".join(["一只黑色的猫坐在沙发上", "狗海滩"])))]
    (tmp_path / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    assert said(chinese, vocab_file=str(tmp_path / "vocab.txt")) == ""


def test_an_odd_unknown_word_is_nothing_to_speak_of(said):
    assert said(["a cat on a sofa that looks at us \N{GRINNING FACE}", ["un perro en la playa", "ein Hund"]]) == ""


def test_captions_that_are_cut_are_named_with_the_keys_that_say_where(said):
    captions = ["a cat " * 20, "a dog", ["a " * 31, "a dog"]]
    assert "train.json: 50% of the texts of 'caption' have more than 30 words and are cut; max_words" in said(captions)
    assert said(captions, max_words=40) == said(captions, max_words=None) == ""


def test_candidates_that_cannot_be_right_are_named(caplog):
    annotated = {7: {"answers": ["Two", "2"]}, 8: {"answers": ["a cat"]}, 9: {"answers": ["dog"]}}
    with caplog.at_level(logging.WARNING, logger="blip.evaluation"):
        survey_candidates("test", annotated, ["two", "the cat"], Path("answers.json"))  # as the score compares them
        assert caplog.text == ""
        survey_candidates("test", annotated, ["dog", "fish"], Path("answers.json"))
    assert "test: 2 of 3 questions, such as question 7, have no right answer among the 2 candidates" in caplog.text
    assert "answers.json" in caplog.text
