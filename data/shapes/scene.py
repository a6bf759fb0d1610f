"""What a scene of the embedded world is, and how one is drawn from a random stream.

A scene is a few things on a pale background. Coordinates are fractions of the picture's side, `x` to the right and `y`
down, so that one scene can be rendered at any size.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

SHAPES = ("circle", "square", "triangle", "diamond", "star", "heart", "cross", "moon")
COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "black")
SIZES = ("small", "medium", "large")
FILLS = ("solid", "striped", "outlined")
RADIUS = {"small": 0.095, "medium": 0.135, "large": 0.185}

Kind = tuple[str, str]  # (shape, color)
KINDS: tuple[Kind, ...] = tuple((shape, color) for shape in SHAPES for color in COLORS)
# One color of each shape (and one shape of each color) never appears in training: to name them, a model must compose.
HELD_OUT: tuple[Kind, ...] = tuple((shape, COLORS[(3 * i + 1) % len(COLORS)]) for i, shape in enumerate(SHAPES))
SEEN: tuple[Kind, ...] = tuple(kind for kind in KINDS if kind not in HELD_OUT)

OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
PLACES: dict[tuple[int | None, int | None], str] = {  # (column, row) of a 3x3 grid -> words
    (0, 0): "in the top left",
    (1, 0): "at the top",
    (2, 0): "in the top right",
    (0, 1): "on the left",
    (1, 1): "in the middle",
    (2, 1): "on the right",
    (0, 2): "in the bottom left",
    (1, 2): "at the bottom",
    (2, 2): "in the bottom right",
}
GAP = 0.02  # least distance between two things, and from a thing to the edge
GROUNDS = 6  # number of pale grounds that render.py knows


@dataclass(frozen=True)
class Thing:
    """One drawn shape of a scene."""

    shape: str
    color: str
    size: str
    fill: str
    x: float
    y: float
    angle: int = 0  # degrees; small enough that a square never turns into a diamond

    @property
    def kind(self) -> Kind:
        return self.shape, self.color


@dataclass(frozen=True)
class Scene:
    """What one picture shows: its things, and which of the pale backgrounds they are on."""

    things: tuple[Thing, ...]
    ground: int = 0

    @property
    def kinds(self) -> list[Kind]:
        """(shape, color) of every thing, sorted: what a complete caption has to name."""
        return sorted(thing.kind for thing in self.things)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Scene:
        return cls(tuple(Thing(**thing) for thing in record["things"]), record["ground"])


@dataclass(frozen=True)
class Level:
    """How many attributes vary from thing to thing. 1: shape, color and place; 2: size too; 3: fill too."""

    sizes: tuple[str, ...]
    fills: tuple[str, ...]

    @property
    def attributes(self) -> tuple[str, ...]:
        """Names of the `Thing` fields worth talking about."""
        varying = {"size": self.sizes, "fill": self.fills, "color": COLORS, "shape": SHAPES}
        return tuple(name for name, values in varying.items() if len(values) > 1)


LEVELS = {1: Level(("large",), ("solid",)), 2: Level(SIZES, ("solid",)), 3: Level(SIZES, FILLS)}


def seeded_rng(*key: object) -> random.Random:
    """A random generator that depends on `key` alone, e.g. `seeded_rng(seed, 'train', k, 'scene')`.

    A string seed goes through SHA-512, so neither PYTHONHASHSEED nor the order of calls matters.
    """
    return random.Random("/".join(map(str, key)))


def sample_scene(rng: random.Random, level: Level, kinds: Sequence[Kind]) -> Scene:
    """A scene of the given (shape, color) pairs; sizes, fills, places and the ground are drawn."""
    sizes = [rng.choice(level.sizes) for _ in kinds]
    fills = [rng.choice(level.fills) for _ in kinds]
    spots = sample_spots(rng, [RADIUS[size] for size in sizes])
    things = (
        Thing(shape, color, size, fill, round(x, 3), round(y, 3), rng.randint(-10, 10))
        for (shape, color), size, fill, (x, y) in zip(kinds, sizes, fills, spots, strict=True)
    )
    return Scene(tuple(things), rng.randrange(GROUNDS))


def sample_kinds(rng: random.Random, count: int, allowed: Sequence[Kind]) -> list[Kind]:
    """`count` (shape, color) pairs out of `allowed`.

    Half of the later ones resemble an earlier one: so there are several things of a kind to count, and a color or a
    shape alone often does not tell two things apart.
    """
    kinds = [rng.choice(allowed)]
    while len(kinds) < count:
        (shape, color), likeness = rng.choice(kinds), rng.random()
        if likeness < 0.2:
            kinds.append((shape, color))
        elif likeness < 0.35:
            kinds.append(rng.choice([kind for kind in allowed if kind[0] == shape]))
        elif likeness < 0.5:
            kinds.append(rng.choice([kind for kind in allowed if kind[1] == color]))
        else:
            kinds.append(rng.choice(allowed))
    return kinds


def sample_spots(rng: random.Random, radii: Sequence[float]) -> list[tuple[float, float]]:
    """A center for each disc, so that the discs neither touch nor leave the picture."""
    if len(radii) == 1:
        # A single thing stands clearly in one of nine places, so that its caption can say where.
        edge = radii[0] + GAP
        zones = ((edge, 0.36), (0.45, 0.55), (0.64, 1 - edge))
        return [(rng.uniform(*rng.choice(zones)), rng.uniform(*rng.choice(zones)))]
    for _ in range(50):
        spots = [(rng.uniform(r + GAP, 1 - r - GAP), rng.uniform(r + GAP, 1 - r - GAP)) for r in radii]
        if not overlapping(spots, radii):
            return spots
    # Four large things seldom fit by chance: give each a quarter of the picture.
    quarters = [(x, y) for x in (0.25, 0.75) for y in (0.25, 0.75)]
    slack = [0.25 - r - GAP / 2 for r in radii]
    corners = rng.sample(quarters, len(radii))
    return [(x + rng.uniform(-s, s), y + rng.uniform(-s, s)) for (x, y), s in zip(corners, slack, strict=True)]


def overlapping(spots: Sequence[tuple[float, float]], radii: Sequence[float]) -> bool:
    """Whether any two discs come nearer than `GAP`."""
    return any(
        (spots[i][0] - spots[j][0]) ** 2 + (spots[i][1] - spots[j][1]) ** 2 < (radii[i] + radii[j] + GAP) ** 2
        for i in range(len(spots))
        for j in range(i)
    )


def relation(a: Thing, b: Thing) -> str | None:
    """How `a` stands to `b`: a key of `OPPOSITE`, or None on a diagonal, where people would disagree."""
    dx, dy = a.x - b.x, a.y - b.y
    if abs(dx) > 1.5 * abs(dy):
        return "left of" if dx < 0 else "right of"
    if abs(dy) > 1.5 * abs(dx):
        return "above" if dy < 0 else "below"
    return None


def place(thing: Thing) -> str | None:
    """Where in the picture, e.g. 'in the top left'; None near the border of two places."""
    return PLACES.get((_third(thing.x), _third(thing.y)))


def _third(coordinate: float) -> int | None:
    """Which third of the picture's side a coordinate is in; None near the border of two."""
    if coordinate < 0.38:
        return 0
    if 0.44 <= coordinate <= 0.56:
        return 1
    return 2 if coordinate > 0.62 else None
