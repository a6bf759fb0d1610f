"""Maps of words drawn with Pillow: a heat map over a picture, and a strip with one for each word."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

PANEL = 192  # pixels: the longer side of each panel's picture
IN_A_ROW = 8  # panels at most; a longer strip goes on below
GAP, LINE = 8, 26  # pixels between panels, and of the line for the word
FONT_SIZE = 17
BACKGROUND, INK = (255, 255, 255), (25, 25, 28)
STRONGEST = 0.8  # the heat's opacity where a map is highest
# From little to much heat. The picture below is gray: so no color of its own passes for heat.
HEAT = np.array([(70, 20, 130), (190, 45, 110), (240, 105, 45), (255, 230, 70)], dtype=np.float32)


def draw_heat_map(picture: Image.Image, heat: Tensor) -> Image.Image:
    """Lay a map over a picture, which becomes gray.

    Args:
        picture: in RGB, of any size and shape. (Models see it squeezed to a square, and the map is stretched back.)
        heat: `[rows, columns]`, not negative. It is shown relative to its highest value; where all is zero, none is.

    Returns:
        a picture of the same size.
    """
    values = Image.fromarray(heat.detach().float().cpu().numpy()).resize(picture.size, Image.Resampling.BICUBIC)
    share = np.asarray(values).clip(min=0)
    share = share / max(float(share.max()), np.finfo(np.float32).tiny)
    stops = np.linspace(0, 1, len(HEAT))
    color = np.stack([np.interp(share, stops, channel) for channel in HEAT.T], axis=-1)
    opacity = STRONGEST * share[..., None]
    gray = np.asarray(picture.convert("L"), dtype=np.float32)[..., None]
    return Image.fromarray((gray * (1 - opacity) + color * opacity).round().astype(np.uint8))


def draw_strip(picture: Image.Image, words: Sequence[str], maps: Tensor, label: str = "") -> Image.Image:
    """Draw a picture and beside it one heat map a word, with the word beneath.

    Args:
        picture: in RGB.
        words: W words.
        maps: `[W, rows, columns]`, as for `draw_heat_map`: each word's is shown relative to its own highest value.
        label: what stands beneath the picture.

    Returns:
        the strip; with many words it has several rows.
    """
    scale = PANEL / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    panels = [(picture, label), *((draw_heat_map(picture, heat), word) for word, heat in zip(words, maps, strict=True))]
    rows = -(-len(panels) // IN_A_ROW)
    columns = -(-len(panels) // rows)  # so that the rows are about equally long
    cell = max(width, PANEL // 2) + GAP, height + LINE + GAP  # room for a word below a narrow picture too
    strip = Image.new("RGB", (columns * cell[0] + GAP, rows * cell[1] + GAP), BACKGROUND)
    pen, font = ImageDraw.Draw(strip), ImageFont.load_default(FONT_SIZE)
    for number, (panel, text) in enumerate(panels):
        left, top = GAP + number % columns * cell[0], GAP + number // columns * cell[1]
        strip.paste(panel, (left + (cell[0] - GAP - width) // 2, top))
        text = _shortened(text, font, cell[0] - GAP)
        pen.text((left + (cell[0] - GAP) // 2, top + height + LINE // 2), text, font=font, fill=INK, anchor="mm")
    return strip


def stack(strips: Sequence[Image.Image]) -> Image.Image:
    """Strips one below the other."""
    sheet = Image.new("RGB", (max(s.width for s in strips), sum(s.height for s in strips)), BACKGROUND)
    top = 0
    for strip in strips:
        sheet.paste(strip, (0, top))
        top += strip.height
    return sheet


def _shortened(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """As much of a text's beginning as fits."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}...") > width:
        text = text[:-1]
    return f"{text}..."
