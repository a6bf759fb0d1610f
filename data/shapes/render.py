"""Pictures of scenes, drawn with Pillow at twice the size and averaged down."""

from __future__ import annotations

from functools import lru_cache
from math import ceil, cos, pi, radians, sin

from PIL import Image, ImageChops, ImageDraw

from data.shapes.scene import RADIUS, Scene, Thing

RGB = {
    "red": (217, 33, 38),
    "orange": (250, 137, 18),
    "yellow": (250, 216, 30),
    "green": (36, 152, 62),
    "blue": (32, 92, 214),
    "purple": (125, 44, 178),
    "pink": (250, 130, 190),
    "black": (28, 28, 30),
}
# (top, bottom) of a vertical gradient
GROUNDS = (
    ((252, 252, 250), (232, 233, 236)),
    ((250, 246, 236), (236, 227, 210)),
    ((240, 247, 252), (216, 229, 240)),
    ((243, 250, 242), (222, 235, 221)),
    ((250, 242, 246), (237, 223, 231)),
    ((238, 238, 240), (214, 214, 219)),
)
SUPERSAMPLING = 2
SHADOW = (60, 60, 75)


def render(scene: Scene, size: int) -> Image.Image:
    """The scene as an RGB picture of `size` x `size` pixels."""
    side = size * SUPERSAMPLING
    canvas = _ground(scene.ground, side).copy()
    for thing in scene.things:
        _draw(canvas, thing, side)
    return canvas.reduce(SUPERSAMPLING)


def bounding_box(thing: Thing, size: int) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a thing, without its shadow, in a picture of `size` x `size` pixels."""
    side = size * SUPERSAMPLING
    body, _, _ = _masks(thing.shape, thing.fill, RADIUS[thing.size] * side, thing.angle, side)
    x, y = _corner(thing, body, side)
    left, top, right, bottom = body.getbbox() or (0, 0, 0, 0)
    return (
        (x + left) / SUPERSAMPLING,
        (y + top) / SUPERSAMPLING,
        (x + right) / SUPERSAMPLING,
        (y + bottom) / SUPERSAMPLING,
    )


def _corner(thing: Thing, body: Image.Image, side: int) -> tuple[int, int]:
    """Where the top left corner of a thing's masks is."""
    return round(thing.x * side - body.width / 2), round(thing.y * side - body.height / 2)


def _draw(canvas: Image.Image, thing: Thing, side: int) -> None:
    body, ink, shadow = _masks(thing.shape, thing.fill, RADIUS[thing.size] * side, thing.angle, side)
    corner = _corner(thing, body, side)
    drop = max(1, round(0.012 * side))
    color = RGB[thing.color]
    canvas.paste(SHADOW, (corner[0] + drop, corner[1] + drop), shadow)
    if thing.fill == "striped":
        canvas.paste(tuple((channel + 3 * 255) // 4 for channel in color), corner, body)
    canvas.paste(color, corner, ink)


@lru_cache(maxsize=64)
def _ground(index: int, side: int) -> Image.Image:
    gradient = Image.new("RGB", (1, 2))
    for row, color in enumerate(GROUNDS[index]):
        gradient.putpixel((0, row), color)
    return gradient.resize((side, side), Image.Resampling.BILINEAR)


# Cached, because masks depend on few values (8 shapes, 3 fills, 3 sizes, 21 angles): a picture is then a few pastes.
@lru_cache(maxsize=2048)
def _masks(shape: str, fill: str, radius: float, angle: int, side: int) -> tuple[Image.Image, Image.Image, Image.Image]:
    """Masks of the whole body, of what is painted in the thing's color, and of its shadow."""
    half = ceil(radius * 1.15) + 1
    turn = radians(angle)
    corners = [
        (half + radius * (x * cos(turn) - y * sin(turn)), half + radius * (x * sin(turn) + y * cos(turn)))
        for x, y in _outline(shape)
    ]
    body = Image.new("L", (2 * half, 2 * half))
    ImageDraw.Draw(body).polygon(corners, fill=255)
    if fill == "solid":
        ink = body
    else:
        ink = Image.new("L", body.size)
        pen = ImageDraw.Draw(ink)
        if fill == "striped":
            period = 0.075 * side
            for i in range(ceil(4 * half / period)):
                # diagonal, so that no stripe runs along the edge of a square
                start = i * period
                pen.line([(start, 0), (start - 2 * half, 2 * half)], fill=255, width=round(0.5 * period))
        width = 0.018 if fill == "striped" else 0.04
        pen.line(corners + corners[:2], fill=255, width=max(2, round(width * side)), joint="curve")
        ink = ImageChops.multiply(ink, body)
    shadow = (ink if fill == "outlined" else body).point([alpha * 22 // 100 for alpha in range(256)])
    return body, ink, shadow


def _outline(shape: str) -> list[tuple[float, float]]:
    """The corners of a shape within the unit circle, `y` down."""
    if shape == "circle":
        return [_polar(0.88, i / 48) for i in range(48)]
    if shape == "square":
        return [(-0.74, -0.74), (0.74, -0.74), (0.74, 0.74), (-0.74, 0.74)]
    if shape == "triangle":
        return [(0, -0.92), (0.95, 0.72), (-0.95, 0.72)]
    if shape == "diamond":
        return [(0, -1), (0.64, 0), (0, 1), (-0.64, 0)]
    if shape == "star":
        return [_polar(1.0 if i % 2 == 0 else 0.43, i / 10 - 0.25) for i in range(10)]
    if shape == "heart":
        turns = [2 * pi * i / 48 for i in range(48)]
        return [
            (0.058 * 16 * sin(t) ** 3, -0.058 * (13 * cos(t) - 5 * cos(2 * t) - 2 * cos(3 * t) - cos(4 * t)) - 0.1)
            for t in turns
        ]
    if shape == "cross":
        arm, end = 0.31, 0.9
        quarter = [(arm, -end), (arm, -arm), (end, -arm)]
        corners: list[tuple[float, float]] = []
        for _ in range(4):
            corners += quarter
            quarter = [(-y, x) for x, y in quarter]
        return corners
    if shape == "moon":
        # From tip to tip along a circle, and back along a second one that lies to the right of it.
        outer = [_polar(0.95, 0.14 + 0.72 * i / 32) for i in range(33)]
        bite, (tip_x, tip_y) = 0.62, outer[0]
        center = tip_x - 0.02
        inner = [(center - bite * cos(t), tip_y * sin(t)) for t in (pi / 2 - pi * i / 24 for i in range(25))]
        return [(x + 0.25, y) for x, y in outer + inner[::-1]]
    raise ValueError(f"unknown shape {shape!r}")


def _polar(radius: float, turns: float) -> tuple[float, float]:
    return radius * cos(2 * pi * turns), radius * sin(2 * pi * turns)
