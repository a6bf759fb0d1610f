"""Do maps of words point at what the words name? Measured on the test pictures of the demonstration's world.

    python -m demo.pointing [FOLDER] [--pictures N]

FOLDER is that of a finished `make demo` (default output/demo). A map points at a thing if the center of its highest
patch lies in the thing's box, which the world's scenes tell. Only captions and answers that are right count:

captioning  each shape and color word of the caption that the captioner writes
matching    each shape and color word of the picture's first reference text, with the matching head
refuting    the first color word of that text, changed to a wrong one, with the head's other logit, "they do not match"
answering   each word of the answer to "what color is the SHAPE?", of shapes that the picture holds once

`chance` is how often a patch drawn at random would be right. `two` is Grad-CAM's share in pictures of two things,
where pointing at any thing is not enough.
"""

import argparse
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from data.media.image_file import open_image
from data.shapes import Scene, Thing, caption_is_right, read_scenes
from data.shapes.description import plural
from data.shapes.render import bounding_box
from data.shapes.scene import COLORS, SHAPES
from demo.recipe import FOLDER
from engine.failure import exit_on_user_error
from files import open_regular
from models import build_from_checkpoint
from models.blip import BLIPDecoder
from models.blip_itm import BLIPMatcher
from models.blip_vqa import BLIPVQA
from models.explain import answer_maps, caption_maps, match_maps
from models.word_maps import WordMaps
from settings.flags import Parser, at_least, file_path
from transform.image import EvalTransform, normalize

FINE = 512  # pixels of the picture in which boxes are measured
Box = tuple[float, float, float, float]
SHAPE_OF = {form: shape for shape in SHAPES for form in (shape, plural(shape))}


@dataclass
class Tally:
    """Of some words: how many there are, and how often chance, attention and Grad-CAM point at what they name."""

    words: int = 0
    chance: float = 0.0
    attention: int = 0
    grad_cam: int = 0
    words_of_several: int = 0
    grad_cam_of_several: int = 0

    def add(self, maps: WordMaps, place: int, boxes: Sequence[Box], several: bool) -> None:
        """Count a word, which names the things in these boxes, of a picture with several things or one."""
        attention, grad_cam = maps.attention[place], maps.grad_cam[place]
        rows, columns = grad_cam.shape
        patches = [(row, column) for row in range(rows) for column in range(columns)]
        self.words += 1
        self.chance += sum(_inside(patch, grad_cam, boxes) for patch in patches) / len(patches)
        self.attention += _inside(_peak(attention), attention, boxes)
        hit = _inside(_peak(grad_cam), grad_cam, boxes)
        self.grad_cam += hit
        self.words_of_several += several
        self.grad_cam_of_several += hit and several


def _peak(heat: Tensor) -> tuple[int, int]:
    """Row and column of the highest patch of a map [rows, columns]."""
    row, column = divmod(int(heat.argmax()), heat.shape[1])
    return row, column


def _inside(patch: tuple[int, int], heat: Tensor, boxes: Sequence[Box]) -> bool:
    """Whether the center of a patch of a map lies in one of the boxes, which are in fractions of the picture."""
    y, x = ((place + 0.5) / count for place, count in zip(patch, heat.shape, strict=True))
    return any(left <= x <= right and top <= y <= bottom for left, top, right, bottom in boxes)


def named_things(words: Sequence[str], scene: Scene) -> Iterator[tuple[int, str, list[Thing]]]:
    """The words of a right caption that name things: each one's place, "shape" or "color", and the things.

    A color word names what its shape word does: "a red circle" and "the circle is red" are one red circle, "two blue
    stars" both blue stars.
    """
    for place, word in enumerate(words):
        if word in SHAPE_OF:
            at = _color_place(words, place)
            color = None if at is None else words[at]
            things = [t for t in scene.things if t.shape == SHAPE_OF[word] and color in (None, t.color)]
            yield place, "shape", things
            if at is not None:
                yield at, "color", things


def _color_place(words: Sequence[str], place: int) -> int | None:
    """The place of the color word of the shape word at `place`; None where it has none."""
    if place > 0 and words[place - 1] in COLORS:
        return place - 1
    if words[place + 1 : place + 2] == ["is"] and set(words[place + 2 : place + 3]) & set(COLORS):
        return place + 2
    return None


class World:
    """The test pictures of a demonstration: their scenes and reference texts."""

    def __init__(self, folder: Path, pictures: int | None) -> None:
        self.folder = folder
        with open_regular(folder / "retrieval_test.json") as file:
            records: list[dict[str, Any]] = json.loads(file.read())
        self.texts: dict[str, str] = {record["image"]: record["caption"][0] for record in records[:pictures]}
        self.scenes = read_scenes(folder / "scenes.json")

    def pixels(self, size: int) -> Iterator[tuple[str, Scene, Tensor]]:
        """Name, scene and normalized pixels [1, 3, size, size] of each picture."""
        transform = EvalTransform(size)
        for name in self.texts:
            yield name, self.scenes[name], normalize(transform(open_image(self.folder / "images" / name))[None])


Tallies = dict[tuple[str, str, int], Tally]  # by task, what is named, and layer


def _count(tallies: Tallies, task: str, layer: int, maps: WordMaps, scene: Scene) -> None:
    """Count each word of a text that names things."""
    for place, kind, things in named_things(maps.words, scene):
        tally = tallies.setdefault((task, kind, layer), Tally())
        tally.add(maps, place, _boxes(things), len(scene.things) > 1)


def _boxes(things: Sequence[Thing]) -> list[Box]:
    """Where things are, in fractions of the picture."""
    boxes = [bounding_box(thing, FINE) for thing in things]
    return [(left / FINE, top / FINE, right / FINE, bottom / FINE) for left, top, right, bottom in boxes]


def captioning(model: BLIPDecoder, world: World) -> Tallies:
    """Count the words of the right captions that the model writes."""
    tallies: Tallies = {}
    for _, scene, image in world.pixels(model.visual_encoder.image_size):
        (caption,) = model.generate(image, num_beams=3, max_length=20, min_length=5)
        if caption_is_right(caption, scene):
            for layer in range(len(model.text_decoder.bert.layers)):
                _count(tallies, "captioning", layer, caption_maps(model, image, caption, layer), scene)
    return tallies


def matching(model: BLIPMatcher, world: World) -> Tallies:
    """Count the words of the reference texts, and a wrong color in each."""
    tallies: Tallies = {}
    for name, scene, image in world.pixels(model.visual_encoder.image_size):
        text, wrong = world.texts[name], wrong_color(world.texts[name], scene)
        for layer in range(len(model.text_encoder.layers) - 1):  # the last has no maps of words
            maps = match_maps(model, image, text, layer)
            _count(tallies, "matching", layer, maps, scene)
            refuted = match_maps(model, image, wrong, layer, against=True)
            named = ((place, things) for place, kind, things in named_things(maps.words, scene) if kind == "color")
            for place, things in named:
                if refuted.words[place] != maps.words[place]:
                    tally = tallies.setdefault(("refuting", "color", layer), Tally())
                    tally.add(refuted, place, _boxes(things), len(scene.things) > 1)
    return tallies


def wrong_color(text: str, scene: Scene) -> str:
    """A text whose first color word is changed to a color that nothing in the scene has."""
    right = next(word for word in re.findall(r"\w+", text) if word in COLORS)
    return text.replace(right, next(color for color in COLORS if color not in {t.color for t in scene.things}), 1)


def answering(model: BLIPVQA, world: World) -> Tallies:
    """Count the words of right answers to the question of a thing's color."""
    tallies: Tallies = {}
    for _, scene, image in world.pixels(model.visual_encoder.image_size):
        shapes = [thing.shape for thing in scene.things]
        for thing in scene.things:
            question = f"what color is the {thing.shape}?"
            if shapes.count(thing.shape) == 1 and model.generate_answers(image, question) == [thing.color]:
                for layer in range(len(model.text_encoder.layers)):
                    maps = answer_maps(model, image, question, thing.color, layer)
                    tally = tallies.setdefault(("answering", "color", layer), Tally())
                    tally.add(maps, 0, _boxes([thing]), len(scene.things) > 1)
    return tallies


def measure(folder: Path, pictures: int | None = None) -> Tallies:
    """Everything about the first `pictures` test pictures of a demonstration; all of them by default."""
    world = World(folder / "world", pictures)
    captioner = build_from_checkpoint(BLIPDecoder, folder / "caption" / "checkpoint_best.pth").eval()
    matcher = build_from_checkpoint(BLIPMatcher, folder / "retrieval" / "checkpoint_best.pth").eval()
    answerer = build_from_checkpoint(BLIPVQA, folder / "vqa" / "checkpoint_last.pth").eval()
    return captioning(captioner, world) | matching(matcher, world) | answering(answerer, world)


def table(tallies: Tallies) -> str:
    """The tallies as a table in Markdown."""
    lines = [
        "| task | words | layer | counted | chance | attention | Grad-CAM | two |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for (task, kind, layer), tally in sorted(tallies.items()):
        shares = [count / tally.words for count in (tally.chance, tally.attention, tally.grad_cam)]
        two = tally.grad_cam_of_several / tally.words_of_several if tally.words_of_several else float("nan")
        figures = " | ".join(f"{share:.1%}" for share in (*shares, two))
        lines.append(f"| {task} | {kind} | {layer} | {tally.words} | {figures} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = Parser(
        prog="python -m demo.pointing", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=file_path, default=FOLDER, help="of make demo (default %(default)s)")
    parser.add_argument("--pictures", type=at_least(1), help="so many of the test pictures (default: all)")
    flags = parser.parse_args(arguments)
    with exit_on_user_error(None, 0):
        print(table(measure(flags.folder, flags.pictures)))


if __name__ == "__main__":
    main()
