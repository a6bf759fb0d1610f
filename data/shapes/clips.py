"""Short clips: one thing of a scene moves, the others stay."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from data.shapes.captions import list_things
from data.shapes.description import enumeration
from data.shapes.scene import GAP, RADIUS, SEEN, Level, Scene, overlapping, sample_kinds, sample_scene

FRAMES, FPS = 16, 8
DIRECTIONS = {"to the left": (-1, 0), "to the right": (1, 0), "up": (0, -1), "down": (0, 1)}
_REACH = 0.3  # how far a thing moves, as a fraction of the picture's side


@dataclass(frozen=True)
class Clip:
    """A scene at each frame of a clip, and the caption of the clip."""

    frames: tuple[Scene, ...]
    caption: str


def sample_clip(rng: random.Random, level: Level, max_objects: int) -> Clip:
    """One or two things with all their attributes, one of them moving: "a small red circle moving up and a moon"."""
    while True:
        kinds = sample_kinds(rng, rng.randint(1, min(2, max_objects)), SEEN)
        scene = sample_scene(rng, level, kinds)
        mover, direction = rng.randrange(len(kinds)), rng.choice(tuple(DIRECTIONS))
        frames = tuple(_moved(scene, mover, direction, step / (FRAMES - 1)) for step in range(FRAMES))
        if all(map(_things_apart, frames)):
            phrases = [list_things(rng, replace(scene, things=(thing,)), level.attributes) for thing in scene.things]
            moving = f"{phrases.pop(mover)} moving {direction}"
            return Clip(frames, enumeration([moving, *phrases]))


def _moved(scene: Scene, mover: int, direction: str, progress: float) -> Scene:
    dx, dy = DIRECTIONS[direction]
    thing = scene.things[mover]
    moved = replace(thing, x=round(thing.x + dx * _REACH * progress, 3), y=round(thing.y + dy * _REACH * progress, 3))
    return replace(scene, things=(*scene.things[:mover], moved, *scene.things[mover + 1 :]))


def _things_apart(scene: Scene) -> bool:
    """Whether all things lie inside the picture and none touches another."""
    radii = [RADIUS[thing.size] for thing in scene.things]
    inside = all(r + GAP <= v <= 1 - r - GAP for t, r in zip(scene.things, radii, strict=True) for v in (t.x, t.y))
    return inside and not overlapping([(thing.x, thing.y) for thing in scene.things], radii)
