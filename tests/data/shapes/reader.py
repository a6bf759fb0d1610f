"""A second reading of the world's sentences, written apart from the code that writes them: regular expressions over the
text, coordinates of the scene."""

import json
import re
from pathlib import Path

from data.shapes import Scene, Thing

SHAPES = "circle|square|triangle|diamond|star|heart|cross|moon"
COLORS = "red|orange|yellow|green|blue|purple|pink|black"
ADJECTIVES = rf"((?:(?:small|medium|large|solid|striped|outlined|{COLORS}) )*)"
NOUN = rf"(?:(thing|{SHAPES})(?:es|s)?)\b"
PHRASE = rf"{ADJECTIVES}{NOUN}"
COUNTED = re.compile(rf"\b(an?|the|two|three|four) {PHRASE}")
COUNTS = {"a": 1, "an": 1, "the": 1, "two": 2, "three": 3, "four": 4}
RADIUS = {"small": 1, "medium": 2, "large": 3}
RELATIONS = r"(?:to the )?(left of|right of|above|below|under)"


def load(world: Path, name: str):
    return json.loads((world / f"{name}.json").read_text())


def having(scene: Scene, adjectives: str, noun: str) -> list[Thing]:
    """Things that have every word as an attribute."""
    words = set(adjectives.split()) | ({noun} - {"thing"})
    return [t for t in scene.things if words <= {t.shape, t.color, t.size, t.fill}]


def stands(a: Thing, relation: str, b: Thing) -> bool:
    offset = {"left of": b.x - a.x, "right of": a.x - b.x, "above": b.y - a.y, "below": a.y - b.y}
    return offset["below" if relation == "under" else relation] > 0.05


def is_at(thing: Thing, place: str) -> bool:
    left, right, top, bottom = thing.x < 0.4, thing.x > 0.6, thing.y < 0.4, thing.y > 0.6
    return {
        w for w, there in zip(("left", "right", "top", "bottom"), (left, right, top, bottom), strict=True) if there
    } == (set(place.split()) - {"middle"})


def caption_is_true(caption: str, scene: Scene) -> bool:
    """Every phrase holds of as many things as it says, the phrases cover the scene, relations and places hold."""
    text = re.sub(r"^(one|two|three|four) things, ", "", caption)
    total = 0
    for match in COUNTED.finditer(text):
        number, adjectives, noun = match.groups()
        color = re.match(rf" is ({COLORS})", text[match.end() :])
        found = having(scene, adjectives + (color[1] if color else ""), noun)
        if len(found) < COUNTS[number] or noun == "thing" or not (color or re.search(COLORS, adjectives)):
            return False
        total += COUNTS[number]
    for a1, n1, relation, a2, n2 in re.findall(rf"{PHRASE} {RELATIONS} an? {PHRASE}", text):
        if not any(stands(a, relation, b) for a in having(scene, a1, n1) for b in having(scene, a2, n2) if a != b):
            return False
    for adjectives, noun, place in re.findall(
        rf"{PHRASE} (?:in|on|at) the ((?:top|bottom|left|right|middle| (?!and))+)", text
    ):
        if not any(is_at(thing, place) for thing in having(scene, adjectives, noun)):
            return False
    return total == len(scene.things)


def answer(question: str, scene: Scene) -> str:
    """The answer to a question of the world, or an AssertionError if it is ambiguous."""

    def one(adjectives: str, noun: str) -> Thing:
        (thing,) = having(scene, adjectives, noun)
        return thing

    def yes(fact: bool) -> str:
        return "yes" if fact else "no"

    if m := re.fullmatch(rf"how many {PHRASE} (?:are there|do you see)\?", question):
        return str(len(having(scene, *m.groups())))
    if m := re.fullmatch(rf"(?:is there|do you see) an? {PHRASE}\?", question):
        return yes(having(scene, *m.groups()) != [])
    if m := re.fullmatch(rf"is the {PHRASE} {RELATIONS} the {PHRASE}\?", question):
        a, b = one(*m.group(1, 2)), one(*m.group(4, 5))
        assert stands(a, m[3], b) != stands(b, m[3], a)
        return yes(stands(a, m[3], b))
    if m := re.fullmatch(rf"what (shape|color) is (?:the thing )?{RELATIONS} the {PHRASE}\?", question):
        b = one(*m.group(3, 4))
        (thing,) = [a for a in scene.things if a != b and stands(a, m[2], b)]
        return getattr(thing, m[1])
    if m := re.fullmatch(rf"are there more {PHRASE} (than|or more) {PHRASE}\?", question):
        first, second = having(scene, *m.group(1, 2)), having(scene, *m.group(4, 5))
        assert len(first) != len(second)
        more = m.group(1, 2) if len(first) > len(second) else m.group(4, 5)
        return yes(len(first) > len(second)) if m[3] == "than" else (more[0].strip() or more[1])
    if m := re.fullmatch(rf"which is (larger|smaller), the ({SHAPES}) or the ({SHAPES})\?", question):
        a, b = one("", m[2]), one("", m[3])
        assert a.size != b.size
        return (a if (RADIUS[a.size] > RADIUS[b.size]) == (m[1] == "larger") else b).shape
    if m := re.fullmatch(r"what (shape|color) is the (largest|smallest) thing\?", question):
        size = (max if m[2] == "largest" else min)((t.size for t in scene.things), key=RADIUS.get)
        return getattr(one(size, "thing"), m[1])
    if m := re.fullmatch(rf"(?:what|which) (shape|color) (?:is|does) the {PHRASE}(?: have)?\?", question):
        return getattr(one(*m.group(2, 3)), m[1])
    m = re.fullmatch(rf"the {PHRASE} is what color\?", question)
    assert m, f"no reading of {question!r}"
    return one(*m.groups()).color


def statement_is_true(sentence: str, left: Scene, right: Scene) -> bool:
    pair = {"left": left, "right": right}
    numbers = {"one": 1, "two": 2, "three": 3, "four": 4}

    def count(scene: Scene, adjectives: str, noun: str) -> int:
        return len(having(scene, adjectives, noun))

    if m := re.fullmatch(rf"there is an? {PHRASE} in the (left|right) image", sentence):
        return count(pair[m[3]], m[1], m[2]) > 0
    if m := re.fullmatch(rf"there is an? {PHRASE} in both images", sentence):
        return count(left, *m.groups()) > 0 and count(right, *m.groups()) > 0
    if m := re.fullmatch(rf"(at least one|neither) image contains an? {PHRASE}", sentence):
        found = count(left, m[2], m[3]) + count(right, m[2], m[3]) > 0
        return found == (m[1] == "at least one")
    if m := re.fullmatch(rf"the (left|right) image contains exactly (one|two|three) {PHRASE}", sentence):
        return count(pair[m[1]], m[3], m[4]) == numbers[m[2]]
    if m := re.fullmatch(
        rf"there are more {PHRASE} in the (left|right) image than in the (left|right) image", sentence
    ):
        return count(pair[m[3]], m[1], m[2]) > count(pair[m[4]], m[1], m[2])
    if m := re.fullmatch(rf"both images contain the same number of {PHRASE}", sentence):
        return count(left, *m.groups()) == count(right, *m.groups())
    if m := re.fullmatch(rf"the two images contain (two|three|four) {PHRASE} in total", sentence):
        return count(left, m[2], m[3]) + count(right, m[2], m[3]) == numbers[m[1]]
    m = re.fullmatch(rf"in the (left|right) image an? {PHRASE} is above an? {PHRASE}", sentence)
    assert m, f"no reading of {sentence!r}"
    scene = pair[m[1]]
    return any(
        a != b and stands(a, "above", b) for a in having(scene, *m.group(2, 3)) for b in having(scene, *m.group(4, 5))
    )
