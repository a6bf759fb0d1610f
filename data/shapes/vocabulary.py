"""A WordPiece vocabulary of the embedded world: its words whole, everything else in letters.

A head over these few entries costs a small model nothing, where one over 30,522 would cost more than the model itself.
"""

from __future__ import annotations

import string

from data.shapes.description import ANY_NOUN, NUMBERS, plural
from data.shapes.scene import COLORS, FILLS, SHAPES, SIZES

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_NOUNS = (ANY_NOUN, *SHAPES)
_ARTICLES_AND_VERBS = (
    "a",
    "an",
    "the",
    "and",
    "or",
    "is",
    "are",
    "do",
    "does",
    "have",
    "contain",
    "contains",
    "moving",
)
_PREPOSITIONS = (
    "of",
    "in",
    "at",
    "on",
    "with",
    "to",
    "than",
    "left",
    "right",
    "above",
    "below",
    "under",
    "up",
    "down",
    "top",
    "bottom",
    "middle",
)
_ASKING = (
    "what",
    "which",
    "how",
    "many",
    "more",
    "there",
    "you",
    "see",
    "color",
    "shape",
    "larger",
    "smaller",
    "largest",
    "smallest",
    "yes",
    "no",
)
_PICTURES = ("picture", "image", "images", "both", "neither", "least", "exactly", "same", "number", "total")


def vocabulary() -> list[str]:
    """Entries in the order of their ids, `[PAD]` = 0. Any ASCII text has a tokenization without `[UNK]`."""
    words = (*NUMBERS, *COLORS, *SIZES, *FILLS, *_NOUNS, *map(plural, _NOUNS))
    words += (*_ARTICLES_AND_VERBS, *_PREPOSITIONS, *_ASKING, *_PICTURES)
    letters = (*string.punctuation, *string.digits, *string.ascii_lowercase)
    pieces = (f"##{letter}" for letter in string.digits + string.ascii_lowercase)
    return list(dict.fromkeys((*_SPECIAL, *letters, *pieces, *words)))
