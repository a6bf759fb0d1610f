"""The cleaning of captions and questions, exactly as for the released checkpoints."""

import re

_CHINESE = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]")
_MARKS = '.!"()*#:;~'
_MARKS_TO_SPACES = str.maketrans(_MARKS, " " * len(_MARKS))
_NO_MARKS = str.maketrans("", "", _MARKS)


CAPTION_WORDS = 30
"""Words of a caption that are kept."""


def clean_caption(text: str, max_words: int = CAPTION_WORDS) -> str:
    """Lower case, marks to spaces, runs of white space to one space, at most `max_words` words.

    A single tab or newline between words stays: only runs of two or more are replaced (tests/golden/text). Words are
    counted at single spaces.
    """
    text = re.sub(r"\s{2,}", " ", text.lower().translate(_MARKS_TO_SPACES))
    return _first_words(text.rstrip("\n").strip(" "), max_words)


def clean_question(text: str, max_words: int = 50) -> str:
    """Lower case, marks dropped, trailing spaces cut, at most `max_words` words; inner spacing is kept."""
    return _first_words(text.lower().translate(_NO_MARKS).rstrip(" "), max_words)


def join_prompt(prompt: str, caption: str) -> str:
    """The caption after the prompt and one blank, whether or not the prompt ends in one; alone if that is blank.

    YAML and `key=value` cut a value's last blanks, and tokens do not show them: generation joins in the same way.
    """
    prompt = prompt.rstrip()
    return f"{prompt} {caption}" if prompt else caption


def least_tokens(text: str) -> int:
    """A number of tokens that a text has at least, whatever the WordPiece vocabulary.

    Each word gives a token, and so does each Chinese character, before and behind which BERT splits a text.
    """
    return max(len(text.split()), len(_CHINESE.findall(text)))


def _first_words(text: str, count: int) -> str:
    return " ".join(text.split(" ")[:count])
