"""A WordPiece vocabulary of the embedded world: its words whole, everything else in letters.

A head over these few entries costs a small model nothing, where one over 30,522 would cost more than the model itself.
"""

from __future__ import annotations

import string

from data.shapes.description import ANY_NOUN, NUMBERS, plural
from data.shapes.scene import COLORS, FILLS, SHAPES, SIZES

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_NOUNS = (ANY_NOUN, *SHAPES)
_OTHERS = (
    "a",
    "an",
    "and",
    "the",
    "of",
    "in",
    "at",
    "on",
    "with",
    "to",
    "than",
    "or",
    "is",
    "are",
    "do",
    "does",
    "have",
    "there",
    "you",
    "see",
    "how",
    "many",
    "more",
    "what",
    "which",
    "color",
    "shape",
    "left",
    "right",
    "above",
    "below",
    "under",
    "top",
    "bottom",
    "middle",
    "picture",
    "image",
    "images",
    "contain",
    "contains",
    "both",
    "neither",
    "least",
    "exactly",
    "same",
    "number",
    "total",
    "larger",
    "smaller",
    "largest",
    "smallest",
    "moving",
    "up",
    "down",
)


def vocabulary() -> list[str]:
    """Entries in the order of their ids, `[PAD]` = 0. Any ASCII text has a tokenization without `[UNK]`."""
    words = (*NUMBERS, *COLORS, *SIZES, *FILLS, *_NOUNS, *map(plural, _NOUNS), *_OTHERS)
    letters = (*string.punctuation, *string.digits, *string.ascii_lowercase)
    pieces = (f"##{letter}" for letter in string.digits + string.ascii_lowercase)
    return list(dict.fromkeys((*_SPECIAL, *letters, *pieces, *words)))
