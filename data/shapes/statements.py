"""Statements about a pair of pictures, true of some pairs and false of others (the NLVR2 task).

None of them says "left" or "right" of a thing: where a dataset swaps the two pictures it swaps these words too.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import permutations

from data.shapes.description import NUMBERS, Description, with_article
from data.shapes.scene import GAP, Scene, Thing, relation

PAIRS_A_STATEMENT = 4  # half of them true
Verdict = bool | None  # None: people would disagree
Predicate = Callable[[tuple[Scene, Scene]], Verdict]


@dataclass(frozen=True)
class Statement:
    """A sentence about two pictures, and whether it is true of the scenes of a pair."""

    text: str
    holds: Predicate


@dataclass(frozen=True)
class LabeledPair:
    """Two scenes by their indices, and whether the sentence is true of them."""

    left: int
    right: int
    label: bool


def write_statement(
    rng: random.Random, scenes: Sequence[Scene], attributes: Sequence[str]
) -> tuple[str, list[LabeledPair]] | None:
    """One sentence with `PAIRS_A_STATEMENT` ordered pairs of `scenes` (their indices), half true, half false.

    So the sentence alone does not give the label away, and consistency (all pairs of a sentence right) can be measured.
    None if no sentence was found that is true of some pairs and false of others: the scenes are all alike.
    """
    half = PAIRS_A_STATEMENT // 2
    for _ in range(200):
        thing = rng.choice(rng.choice(scenes).things)
        statement = rng.choice(TEMPLATES)(rng, thing, attributes)
        pairs: dict[bool, list[LabeledPair]] = {True: [], False: []}
        for left, right in permutations(range(len(scenes)), 2):
            verdict = statement.holds((scenes[left], scenes[right]))
            if verdict is not None:
                pairs[verdict].append(LabeledPair(left, right, verdict))
        if min(map(len, pairs.values())) >= half:
            chosen = rng.sample(pairs[True], half) + rng.sample(pairs[False], half)
            return statement.text, rng.sample(chosen, len(chosen))
    return None


def _partial_description(rng: random.Random, thing: Thing, attributes: Sequence[str]) -> Description:
    """A description of `thing` by its shape, its color, or both, sometimes by something finer."""
    return Description.of(thing, rng.choice([("shape",), ("color",), ("color", "shape"), (rng.choice(attributes),)]))


def _side(rng: random.Random) -> tuple[str, int]:
    """The name and the index of one of the two pictures."""
    return rng.choice((("left", 0), ("right", 1)))


# Templates: (rng, a thing of one of the scenes, attributes) -> a statement.


def _one_side(rng: random.Random, thing: Thing, attributes: Sequence[str]) -> Statement:
    description, (name, side) = _partial_description(rng, thing, attributes), _side(rng)
    text = f"there is {with_article(description.words)} in the {name} image"
    return Statement(text, lambda pair: description.count(pair[side]) > 0)


def _both(rng: random.Random, thing: Thing, attributes: Sequence[str]) -> Statement:
    description = _partial_description(rng, thing, attributes)
    text = f"there is {with_article(description.words)} in both images"
    return Statement(text, lambda pair: all(map(description.count, pair)))


def _at_least_one(rng: random.Random, thing: Thing, attributes: Sequence[str]) -> Statement:
    description = _partial_description(rng, thing, attributes)
    text = f"at least one image contains {with_article(description.words)}"
    return Statement(text, lambda pair: any(map(description.count, pair)))


def _neither(rng: random.Random, thing: Thing, attributes: Sequence[str]) -> Statement:
    description = _partial_description(rng, thing, attributes)
    text = f"neither image contains {with_article(description.words)}"
    return Statement(text, lambda pair: not any(map(description.count, pair)))


def _exactly(rng: random.Random, thing: Thing, attributes: Sequence[str]) -> Statement:
    description = rng.choice((Description(), _partial_description(rng, thing, attributes)))
    number, (name, side) = rng.choice((1, 2, 3)), _side(rng)
    noun = description.words if number == 1 else description.plural
    text = f"the {name} image contains exactly {NUMBERS[number]} {noun}"
    return Statement(text, lambda pair: description.count(pair[side]) == number)


def _more(rng: random.Random, thing: Thing, attributes: Sequence[str]) -> Statement:
    description, (name, side) = rng.choice((Description(), _partial_description(rng, thing, attributes))), _side(rng)
    other = "right" if name == "left" else "left"
    text = f"there are more {description.plural} in the {name} image than in the {other} image"
    return Statement(text, lambda pair: description.count(pair[side]) > description.count(pair[1 - side]))


def _same_number(rng: random.Random, thing: Thing, attributes: Sequence[str]) -> Statement:
    description = rng.choice((Description(), _partial_description(rng, thing, attributes)))
    text = f"both images contain the same number of {description.plural}"
    return Statement(text, lambda pair: description.count(pair[0]) == description.count(pair[1]))


def _total(rng: random.Random, thing: Thing, attributes: Sequence[str]) -> Statement:
    description, number = _partial_description(rng, thing, attributes), rng.choice((2, 3, 4))
    text = f"the two images contain {NUMBERS[number]} {description.plural} in total"
    return Statement(text, lambda pair: sum(map(description.count, pair)) == number)


def _stacked(rng: random.Random, thing: Thing, attributes: Sequence[str]) -> Statement:
    del attributes  # the statement names shape and color only
    upper, lower = Description(shape=thing.shape), Description(color=thing.color)
    if rng.random() < 0.5:
        upper, lower = lower, upper
    name, side = _side(rng)
    text = f"in the {name} image {with_article(upper.words)} is above {with_article(lower.words)}"
    return Statement(text, lambda pair: _stands_above(upper, lower, pair[side]))


def _stands_above(upper: Description, lower: Description, scene: Scene) -> Verdict:
    pairs = [(a, b) for a, b in permutations(scene.things, 2) if upper.matches(a) and lower.matches(b)]
    if any(relation(a, b) == "above" for a, b in pairs):
        return True
    return False if all(a.y > b.y - GAP for a, b in pairs) else None


TEMPLATES = (_one_side, _both, _at_least_one, _neither, _exactly, _more, _same_number, _total, _stacked)
