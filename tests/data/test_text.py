"""Text clean-up equals the recorded one, string by string."""

import json

import pytest

from data.text import clean_caption, clean_question, join_prompt, least_tokens
from models.tokenizer import build_tokenizer


@pytest.mark.parametrize("max_words", [30, 40, 50])
def test_captions_are_cleaned_as_recorded(golden, max_words):
    for case in json.loads(golden("text/text_cases.json").read_text(encoding="utf-8")):
        assert clean_caption(case["input"], max_words) == case[f"pre_caption_{max_words}"], case["input"]


@pytest.mark.parametrize("max_words", [10, 50])
def test_questions_are_cleaned_as_recorded(golden, max_words):
    for case in json.loads(golden("text/text_cases.json").read_text(encoding="utf-8")):
        assert clean_question(case["input"], max_words) == case[f"pre_question_{max_words}"], case["input"]


def test_a_lone_tab_stays_and_a_run_of_white_space_becomes_one_space():
    assert clean_caption("A\tred  (very)\n\n dog.\n", 30) == "a\tred very dog"


@pytest.mark.parametrize("prompt", ["a photo of", "a photo of ", "a photo of  \n"])
def test_prompt_and_caption_are_joined_with_one_blank(prompt):
    assert join_prompt(prompt, "there are two cats") == "a photo of there are two cats"


@pytest.mark.parametrize("prompt", ["", " ", "\n\t"])
def test_an_empty_prompt_adds_nothing(prompt):
    assert join_prompt(prompt, "there are two cats") == "there are two cats"


def test_a_text_has_at_least_the_tokens_that_are_counted() -> None:
    tokenizer = build_tokenizer()
    for text, least in (
        ("two dogs", 2),
        (" a\n b\u3000c ", 3),
        ("\u8bcd" * 9, 9),
        ("x\u8bcd y", 2),
        ("", 0),
        ("...", 1),
    ):
        assert least_tokens(text) == least <= len(tokenizer.tokenize(text))
