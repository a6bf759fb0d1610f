"""Questions about a scene with their answers.

The answers are balanced, so that nobody guesses well without looking at the picture: colors and shapes are symmetric,
yes and no are equally likely, and counts are drawn so that no number prevails.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import permutations

from data.shapes.description import ANY_NOUN, NUMBERS, Description, reference, with_article
from data.shapes.scene import COLORS, GAP, OPPOSITE, RADIUS, SEEN, SHAPES, Scene, Thing, relation

ANSWERS = ("yes", "no", *map(str, range(len(NUMBERS))), *COLORS, *SHAPES)
# The weight of each number among the possible answers: scenes seldom allow 2, 3 and 4, almost always 0 and 1.
_COUNT_WEIGHTS = (0.6, 0.6, 1.2, 1.5, 1.5)


@dataclass(frozen=True)
class Question:
    """A question with its right answer; `type` is a key of `ASKERS`."""

    text: str
    answer: str
    type: str

    @property
    def answer_type(self) -> str:
        """The answer's type in the VQA evaluation: 'yes/no', 'number' or 'other'."""
        if self.answer in ("yes", "no"):
            return "yes/no"
        return "number" if self.answer.isdigit() else "other"


def ask_questions(rng: random.Random, scene: Scene, attributes: Sequence[str], count: int) -> list[Question]:
    """Up to `count` questions of different types; a lone thing allows no relation and no comparison."""
    questions: list[Question] = []
    for kind in rng.sample(sorted(ASKERS), len(ASKERS)):
        asked = ASKERS[kind](rng, scene, attributes)
        if asked is not None:
            questions.append(Question(*asked, kind))
        if len(questions) == count:
            break
    return questions


# Each asker returns (question, answer), or None where the scene does not allow an unambiguous question.
Asked = tuple[str, str] | None


def _color(rng: random.Random, scene: Scene, attributes: Sequence[str]) -> Asked:
    thing = rng.choice(scene.things)
    words = reference(rng, thing, scene, attributes, hide="color")
    if words is None:
        return None
    return rng.choice((f"what color is the {words}?", f"the {words} is what color?")), thing.color


def _shape(rng: random.Random, scene: Scene, attributes: Sequence[str]) -> Asked:
    thing = rng.choice(scene.things)
    words = reference(rng, thing, scene, attributes, hide="shape")
    if words is None:
        return None
    return rng.choice((f"what shape is the {words}?", f"which shape does the {words} have?")), thing.shape


def _count(rng: random.Random, scene: Scene, attributes: Sequence[str]) -> Asked:
    choices = [name for name in attributes if name != "shape"]
    wanted = [Description(), Description(color=rng.choice(COLORS)), Description(shape=rng.choice(SHAPES))]
    for thing in scene.things:
        wanted += [Description.of(thing, names) for names in (["shape"], [rng.choice(choices)], ["color", "shape"])]
    by_count: defaultdict[int, list[Description]] = defaultdict(list)
    for description in dict.fromkeys(wanted):
        by_count[description.count(scene)].append(description)
    counts = sorted(by_count)
    count = rng.choices(counts, [_COUNT_WEIGHTS[count] for count in counts])[0]
    plurals = rng.choice(by_count[count]).plural
    return rng.choice((f"how many {plurals} are there?", f"how many {plurals} do you see?")), str(count)


def _existence(rng: random.Random, scene: Scene, attributes: Sequence[str]) -> Asked:
    """Asks for a thing that is there, or for one that is not and differs from it in one attribute."""
    thing = rng.choice(scene.things)
    names = rng.choice([("shape",), ("color",), ("color", "shape"), (rng.choice(attributes), "shape")])
    present = Description.of(thing, names)
    # Only pairs that training shows: a pair never seen would give the answer away.
    similar = [replace(thing, shape=s, color=c) for s, c in SEEN if (s == thing.shape) != (c == thing.color)]
    absent = [other for other in (Description.of(like, names) for like in similar) if not other.count(scene)]
    description, answer = (rng.choice(absent), "no") if absent and rng.random() < 0.5 else (present, "yes")
    words = with_article(description.words)
    return rng.choice((f"is there {words}?", f"do you see {words}?")), answer


def _relation(rng: random.Random, scene: Scene, attributes: Sequence[str]) -> Asked:
    pairs = [(a, way, b) for a, b in permutations(scene.things, 2) if (way := relation(a, b))]
    rng.shuffle(pairs)
    forms = (_neighbor, _stands) if rng.random() < 0.7 else (_stands, _neighbor)
    return next(filter(None, (form(rng, scene, attributes, *pair) for form in forms for pair in pairs)), None)


def _neighbor(rng: random.Random, scene: Scene, attributes: Sequence[str], a: Thing, direction: str, b: Thing) -> Asked:
    """what shape is left of the circle?"""
    words = reference(rng, b, scene, attributes)
    if words is None or not _is_the_only_one(a, direction, b, scene):
        return None
    if rng.random() < 0.5:
        return f"what shape is {direction} the {words}?", a.shape
    return f"what color is the {ANY_NOUN} {direction} the {words}?", a.color


def _stands(rng: random.Random, scene: Scene, attributes: Sequence[str], a: Thing, direction: str, b: Thing) -> Asked:
    """is the star left of the circle?"""
    first, second = (reference(rng, thing, scene, attributes) for thing in (a, b))
    if first is None or second is None:
        return None
    asked, answer = rng.choice(((direction, "yes"), (OPPOSITE[direction], "no")))
    return f"is the {first} {asked} the {second}?", answer


def _is_the_only_one(a: Thing, direction: str, b: Thing, scene: Scene) -> bool:
    """Whether `a` is the only thing in that direction of `b`, so that a question about it has one answer."""
    axis, sign = {"left of": ("x", -1), "right of": ("x", 1), "above": ("y", -1), "below": ("y", 1)}[direction]
    others = (thing for thing in scene.things if thing is not a and thing is not b)
    return all(sign * (getattr(thing, axis) - getattr(b, axis)) < -GAP for thing in others)


def _comparison(rng: random.Random, scene: Scene, attributes: Sequence[str]) -> Asked:
    forms = [_more, _larger, _largest] if "size" in attributes else [_more]
    answers = (form(rng, scene, attributes) for form in rng.sample(forms, len(forms)))
    return next(filter(None, answers), None)


def _more(rng: random.Random, scene: Scene, attributes: Sequence[str]) -> Asked:
    """are there more red things than blue things?"""
    del attributes  # the question names one of its own
    name, values = rng.choice((("shape", SHAPES), ("color", COLORS)))
    # what is there, and something that may not be
    compared = dict.fromkeys([*(getattr(thing, name) for thing in scene.things), rng.choice(values)])
    described = {value: Description(**{name: value}) for value in compared}
    counts = {value: description.count(scene) for value, description in described.items()}
    pairs = [(a, b) for a, b in permutations(described, 2) if counts[a] > counts[b]]
    if not pairs:
        return None
    many, few = rng.choice(pairs)
    a, b = (described[value].plural for value in rng.sample((many, few), 2))
    if rng.random() < 0.5:
        return f"are there more {a} or more {b}?", many
    return f"are there more {a} than {b}?", "yes" if a == described[many].plural else "no"


def _larger(rng: random.Random, scene: Scene, attributes: Sequence[str]) -> Asked:
    """which is larger, the circle or the star?"""
    del attributes  # the question names one of its own
    pairs = [(a, b) for a, b in permutations(scene.things, 2) if a.size != b.size and a.shape != b.shape]
    rng.shuffle(pairs)
    for a, b in pairs:
        shapes = [Description(shape=thing.shape) for thing in (a, b)]
        if all(description.count(scene) == 1 for description in shapes):
            word, pick = rng.choice((("larger", max), ("smaller", min)))
            answer = pick((a, b), key=lambda thing: RADIUS[thing.size]).shape
            return f"which is {word}, the {a.shape} or the {b.shape}?", answer
    return None


def _largest(rng: random.Random, scene: Scene, attributes: Sequence[str]) -> Asked:
    """what color is the largest thing?"""
    del attributes  # the question names one of its own
    word, pick = rng.choice((("largest", max), ("smallest", min)))
    extreme = pick(scene.things, key=lambda thing: RADIUS[thing.size])
    if len(scene.things) == 1 or Description(size=extreme.size).count(scene) > 1:
        return None
    name = rng.choice(("color", "shape"))
    return f"what {name} is the {word} {ANY_NOUN}?", getattr(extreme, name)


Asker = Callable[[random.Random, Scene, Sequence[str]], Asked]
ASKERS: dict[str, Asker] = {
    "color": _color,
    "shape": _shape,
    "count": _count,
    "existence": _existence,
    "relation": _relation,
    "comparison": _comparison,
}
