"""Whether a caption, written by a template or by a model, names what is in a scene."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from data.shapes.description import ANY_NOUN, NUMBERS, plural
from data.shapes.scene import COLORS, SHAPES, Kind, Scene

_SINGULAR = {form: noun for noun in (*SHAPES, ANY_NOUN, "object", "shape") for form in (noun, plural(noun))}
_COUNTS = {"a": 1, "an": 1} | {word: count for count, number in enumerate(NUMBERS) for word in (number, str(count))}
_CONNECTIVES = {"and", "with", "on", "at", "left", "right", "above", "below", "under", ","}


@dataclass
class _Mention:
    """What a caption says of one thing, or of several of a kind."""

    count: int
    shape: str
    color: str | None


def caption_is_right(caption: str, scene: Scene) -> bool:
    """Whether `caption` names the shape and the color of every thing in `scene` and no thing besides.

    Reads the captions of this package and free text of the kind that a model learns from them: "a red circle and two
    blue stars", "the circle is red", "three things, ...". "the" points back to a thing named before, if there is one.
    Sizes, fills, places and relations are not judged. What names a thing only in part ("a circle"), contradicts itself,
    or speaks of colors or shapes that the world does not have ("a white circle", "a red house") is not right.
    """
    mentions = _read(caption)
    if mentions is None:
        return False
    things = [mention for mention in mentions if mention.shape in SHAPES]
    named: Counter[Kind] = Counter()
    for mention in things:
        if mention.color is None:
            return False
        named[mention.shape, mention.color] += mention.count
    summaries = [mention for mention in mentions if mention.shape not in SHAPES]
    return named == Counter(scene.kinds) and all(_summary_holds(mention, scene) for mention in summaries)


def _summary_holds(mention: _Mention, scene: Scene) -> bool:
    """Whether 'three things' or 'two red things' is true of the scene; 'a thing' and 'the thing' need only one."""
    count = sum(mention.color in (None, thing.color) for thing in scene.things)
    return count == mention.count if mention.count > 1 else count >= 1


def _read(caption: str) -> list[_Mention] | None:
    """Things in the order of their first mention; None where the text makes no sense of that kind."""
    mentions: list[_Mention] = []
    last: _Mention | None = None
    color, count, definite = None, None, False
    for word in [*re.findall(r"[a-z]+|\d+|,", caption.lower()), ","]:
        if word in COLORS:
            if color is not None:
                return None  # "a red blue circle"
            color = word
        elif word in _SINGULAR:
            noun = _SINGULAR[word]
            if count is None and not definite and word != noun:
                return None  # "circles": how many?
            last = _resolve(mentions, noun, color) if definite else None
            if last is None:
                last = _Mention(1 if count is None else count, noun, color)
                mentions.append(last)
            color, count, definite = None, None, False
        elif word == "the" or word in _COUNTS or word in _CONNECTIVES:
            if color is not None and not _colored(last, color):  # "the circle is red and"
                return None
            color, count, definite = None, _COUNTS.get(word), word == "the"
    return mentions


def _resolve(mentions: list[_Mention], noun: str, color: str | None) -> _Mention | None:
    """The thing mentioned before that "the [color] noun" points to."""
    for mention in mentions:
        if mention.shape == noun and (color is None or mention.color in (None, color)):
            mention.color = mention.color or color
            return mention
    return None


def _colored(mention: _Mention | None, color: str) -> bool:
    """Give the mention its color; False if there is none to give it to, or it has another."""
    if mention is None or mention.color not in (None, color):
        return False
    mention.color = color
    return True
