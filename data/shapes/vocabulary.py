"""The WordPiece vocabulary of the embedded world: the words of its texts whole, everything else in letters."""

from __future__ import annotations

from data.shapes.description import ANY_NOUN, NUMBERS, plural
from data.shapes.scene import COLORS, FILLS, SHAPES, SIZES
from data.shapes.wordpiece import wordpiece_vocabulary

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
    """The entries in the order of their ids."""
    words = (*NUMBERS, *COLORS, *SIZES, *FILLS, *_NOUNS, *map(plural, _NOUNS))
    return wordpiece_vocabulary((*words, *_ARTICLES_AND_VERBS, *_PREPOSITIONS, *_ASKING, *_PICTURES))
