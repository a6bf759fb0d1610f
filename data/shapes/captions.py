"""Captions: true sentences that name the shape and the color of every thing in a scene, each thing once."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Collection, Sequence

from data.shapes.description import NUMBERS, Description, enumeration
from data.shapes.scene import Scene, Thing, place, relation

ALWAYS = frozenset(("shape", "color"))
RELATION_WORDS = {
    "left of": ("left of", "to the left of"),
    "right of": ("right of", "to the right of"),
    "above": ("above",),
    "below": ("below", "under"),
}


def write_caption(rng: random.Random, scene: Scene, attributes: Sequence[str], detailed: bool = False) -> str:
    """One caption. Beyond shape and color it mentions a random choice of `attributes`.

    A `detailed` one mentions all of them, and where a single thing stands.
    """
    optional = [name for name in attributes if name not in ALWAYS]
    mentioned = ALWAYS | {name for name in optional if detailed or rng.random() < 0.4}
    patterns = [_located] if detailed and len(scene.things) == 1 else rng.sample(PATTERNS, len(PATTERNS))
    captions = (pattern(rng, scene, mentioned) for pattern in [*patterns, list_things])
    return next(filter(None, captions))


def write_captions(
    rng: random.Random, scene: Scene, attributes: Sequence[str], count: int, detailed: bool = False
) -> list[str]:
    """Up to `count` different captions, at least one: a single thing at a low level allows few."""
    drafts = (write_caption(rng, scene, attributes, detailed) for _ in range(2 * count))
    return list(dict.fromkeys(drafts))[:count]


def _describe(thing: Thing, mentioned: Collection[str]) -> Description:
    # "solid" goes without saying
    return Description.of(thing, [name for name in mentioned if getattr(thing, name) != "solid"])


def _groups(rng: random.Random, things: Sequence[Thing], mentioned: Collection[str]) -> list[tuple[Description, int]]:
    """Things that are described alike, counted, in random order."""
    counts = list(Counter(_describe(thing, mentioned) for thing in things).items())
    rng.shuffle(counts)
    return counts


def _named(groups: Sequence[tuple[Description, int]]) -> str:
    return enumeration([description.counted(count) for description, count in groups])


# Patterns. Each returns None where it has nothing unambiguous to say.


def list_things(rng: random.Random, scene: Scene, mentioned: Collection[str]) -> str:
    """a red circle, two blue stars and a green moon"""
    return _named(_groups(rng, scene.things, mentioned))


def _existential(rng: random.Random, scene: Scene, mentioned: Collection[str]) -> str:
    """there are two blue stars and a green moon"""
    groups = _groups(rng, scene.things, mentioned)
    return f"there {'is' if groups[0][1] == 1 else 'are'} {_named(groups)}"


def _counted(rng: random.Random, scene: Scene, mentioned: Collection[str]) -> str | None:
    """three things, a red circle and two blue stars"""
    groups = _groups(rng, scene.things, mentioned)
    if len(groups) == 1:
        return None
    return f"{NUMBERS[len(scene.things)]} things, {_named(groups)}"


def _predicative(rng: random.Random, scene: Scene, mentioned: Collection[str]) -> str | None:
    """the small circle is red and the star is blue"""
    shapes = [thing.shape for thing in scene.things]
    if len(set(shapes)) < len(shapes):
        return None
    without_color = [name for name in mentioned if name != "color"]
    things = rng.sample(scene.things, len(scene.things))
    return enumeration([f"the {_describe(thing, without_color).words} is {thing.color}" for thing in things])


def _located(rng: random.Random, scene: Scene, mentioned: Collection[str]) -> str | None:
    """a red circle in the top left and a blue star in the middle"""
    things = rng.sample(scene.things, len(scene.things))
    places = [place(thing) for thing in things]
    if None in places:
        return None
    phrases = [_describe(thing, mentioned).counted(1) for thing in things]
    opening = rng.choice(("", "there is "))
    return opening + enumeration([f"{phrase} {where}" for phrase, where in zip(phrases, places, strict=True)])


def _related(rng: random.Random, scene: Scene, mentioned: Collection[str]) -> str | None:
    """a red circle above a blue star, with two green moons"""
    described = {thing: _describe(thing, mentioned) for thing in scene.things}
    single = [thing for thing in scene.things if described[thing].count(scene) == 1]
    pairs = [(a, way, b) for a in single for b in single if a is not b and (way := relation(a, b))]
    if not pairs:
        return None
    a, way, b = rng.choice(pairs)
    words = rng.choice(RELATION_WORDS[way])
    sentence = f"{described[a].counted(1)} {words} {described[b].counted(1)}"
    rest = [thing for thing in scene.things if thing not in (a, b)]
    return f"{sentence}, with {_named(_groups(rng, rest, mentioned))}" if rest else sentence


Pattern = Callable[[random.Random, Scene, Collection[str]], str | None]
PATTERNS: tuple[Pattern, ...] = (list_things, _existential, _counted, _predicative, _located, _related)
