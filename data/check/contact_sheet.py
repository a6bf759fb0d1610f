"""A page of pictures with their texts, to see what a dataset really holds."""

import textwrap
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

ON_SHEET = 24
"""Pictures of a sheet."""
_SIDE = 176  # of a picture's square, in pixels
_LINES = 4
_FONT = 12


def contact_sheet(captioned: Sequence[tuple[Image.Image, str]], columns: int = 6) -> Image.Image:
    """A page of pictures, each above its text, which is cut after four lines."""
    rows = -(-len(captioned) // columns)
    row_height = _SIDE + _LINES * (_FONT + 4) + 12
    page = Image.new("RGB", (columns * (_SIDE + 8) + 8, rows * row_height + 8), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(_FONT)
    for place, (picture, text) in enumerate(captioned):
        left, top = 8 + place % columns * (_SIDE + 8), 8 + place // columns * row_height
        scale = _SIDE / max(picture.size)
        width, height = (max(1, round(side * scale)) for side in picture.size)
        page.paste(picture.resize((width, height)), (left + (_SIDE - width) // 2, top + (_SIDE - height) // 2))
        lines = textwrap.wrap(text, width=28, max_lines=_LINES, placeholder=" ...")
        draw.multiline_text((left, top + _SIDE + 4), "\n".join(lines), fill="black", font=font, spacing=2)
    return page
