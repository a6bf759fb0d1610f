"""Heat maps lie where the map is high, and a strip has a panel for each word."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageChops

from prediction.heat_maps import GAP, IN_A_ROW, LINE, PANEL, draw_heat_map, draw_strip, stack

GRAY = (100, 100, 100)


@pytest.mark.parametrize(("width", "height"), [(60, 60), (90, 30)])
def test_the_heat_lies_where_the_map_is_high(width, height):
    heat = torch.zeros(3, 3)
    heat[0, 2] = 5.0
    drawn = np.asarray(draw_heat_map(Image.new("RGB", (width, height), GRAY), heat)).astype(int)
    assert drawn.shape == (height, width, 3)
    colored = np.ptp(drawn, axis=2)
    row, column = np.unravel_index(colored.argmax(), colored.shape)
    assert row < height / 3
    assert column > width * 2 / 3
    assert (drawn[height // 2 :, : width // 2] == 100).all(), "no heat far away: the picture itself, in gray"


def test_only_relative_heights_matter_and_a_map_of_zeros_has_no_heat():
    picture = Image.effect_noise((40, 40), 60).convert("RGB")
    heat = torch.rand(5, 5, generator=torch.Generator().manual_seed(0))
    assert not ImageChops.difference(draw_heat_map(picture, heat), draw_heat_map(picture, heat * 1e-9)).getbbox()
    without = draw_heat_map(picture, torch.zeros(5, 5))
    assert not ImageChops.difference(without, picture.convert("L").convert("RGB")).getbbox()


def test_a_strip_shows_the_picture_and_then_a_map_a_word():
    picture, maps = Image.new("RGB", (40, 20), (0, 90, 200)), torch.zeros(2, 3, 3)
    maps[1, 1, 1] = 1
    strip = draw_strip(picture, ["a", "cat"], maps)
    cell, height = PANEL + GAP, PANEL // 2
    assert strip.size == (3 * cell + GAP, height + LINE + 2 * GAP)
    panels = [strip.crop((GAP + n * cell, GAP, GAP + n * cell + PANEL, GAP + height)) for n in range(3)]
    assert panels[0].getcolors() == [(PANEL * height, (0, 90, 200))]
    enlarged = picture.resize((PANEL, height))
    for panel, heat in zip(panels[1:], maps, strict=True):
        assert not ImageChops.difference(panel, draw_heat_map(enlarged, heat)).getbbox()
    beneath = [strip.crop((GAP + n * cell, GAP + height, (n + 1) * cell, strip.height)) for n in range(3)]
    assert [part.convert("L").getextrema()[0] < 100 for part in beneath] == [False, True, True], "words stand there"


def test_a_long_strip_goes_on_below_and_a_long_word_is_cut():
    picture = Image.new("RGB", (PANEL, PANEL), GRAY)
    many = draw_strip(picture, ["word"] * IN_A_ROW, torch.zeros(IN_A_ROW, 2, 2))
    assert many.size == ((IN_A_ROW // 2 + 1) * (PANEL + GAP) + GAP, 2 * (PANEL + LINE + GAP) + GAP), "5 and 4 panels"
    long = draw_strip(picture, ["w" * 100, ""], torch.zeros(2, 2, 2))
    edge = long.crop((GAP + 2 * (PANEL + GAP), GAP + PANEL, long.width, long.height))
    assert edge.getcolors() == [(edge.width * edge.height, (255, 255, 255))], "it does not reach the next panel"
    assert stack([many, long]).size == (many.width, many.height + long.height)
