"""A poster for the documentation: twelve scenes, each with a caption and a question.

python -m data.shapes.poster --out docs/shapes.png
"""

from __future__ import annotations

import random

from PIL import Image, ImageDraw, ImageFont

from data.shapes.captions import write_caption
from data.shapes.questions import ASKERS
from data.shapes.render import render
from data.shapes.scene import LEVELS, SEEN, sample_kinds, sample_scene, seeded_rng
from settings.flags import Parser, file_path, seed

COLUMNS, ROWS = 4, 3
PICTURE, PADDING, TEXT = 256, 20, 92  # pixels; TEXT is the height below a picture
BACKGROUND, EDGE = (255, 255, 255), (205, 208, 214)
CAPTION, QUESTION, ANSWER = (25, 25, 28), (100, 104, 112), (20, 92, 190)
LINE = 19
# in this order the single things of the first column are asked only what a single thing can be asked
QUESTIONS = ("color", "relation", "shape", "comparison", "existence", "count")
ATTRIBUTES = LEVELS[3].attributes


def draw_poster(seed: int) -> Image.Image:
    """Scenes of one to four things, from left to right; every type of question comes twice."""
    width = COLUMNS * (PICTURE + PADDING) + PADDING
    height = ROWS * (PICTURE + TEXT + PADDING) + PADDING
    sheet = Image.new("RGB", (width, height), BACKGROUND)
    for k in range(COLUMNS * ROWS):
        corner = PADDING + (k % COLUMNS) * (PICTURE + PADDING), PADDING + (k // COLUMNS) * (PICTURE + TEXT + PADDING)
        _paste_scene(sheet, corner, seeded_rng(seed, "sheet", k), k % COLUMNS + 1, QUESTIONS[k % len(QUESTIONS)])
    return sheet


def _paste_scene(sheet: Image.Image, corner: tuple[int, int], rng: random.Random, count: int, question: str) -> None:
    while True:
        scene = sample_scene(rng, LEVELS[3], sample_kinds(rng, count, SEEN))
        caption, asked = write_caption(rng, scene, ATTRIBUTES), ASKERS[question](rng, scene, ATTRIBUTES)
        font = ImageFont.load_default(15)
        lines = _wrap(caption, font)
        if asked is not None and len(lines) <= 2:
            break
    x, y = corner
    sheet.paste(render(scene, PICTURE), corner)
    pen = ImageDraw.Draw(sheet)
    pen.rectangle((x - 1, y - 1, x + PICTURE, y + PICTURE), outline=EDGE)
    text, answer = asked
    rows = [(line, CAPTION) for line in lines] + [(line, QUESTION) for line in _wrap(text, font)] + [(answer, ANSWER)]
    for i, (line, color) in enumerate(rows):
        pen.text((x, y + PICTURE + 7 + i * LINE), line, font=font, fill=color)


def _wrap(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[str]:
    """Lines no wider than a picture."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= PICTURE:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def main() -> None:
    parser = Parser(prog="python -m data.shapes.poster", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=file_path, required=True, help="PNG file to write")
    parser.add_argument("--seed", type=seed, default=1)
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    draw_poster(arguments.seed).save(arguments.out, optimize=True)


if __name__ == "__main__":
    main()
