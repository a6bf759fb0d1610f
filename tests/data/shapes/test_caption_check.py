"""Captions as models write them, judged against a scene."""

import pytest

from data.shapes import Scene, Thing, caption_is_right

CIRCLE = Thing("circle", "red", "large", "solid", 0.3, 0.3)
STAR = Thing("star", "blue", "small", "striped", 0.7, 0.7)
ONE, TWO = Scene((CIRCLE,)), Scene((CIRCLE, STAR))
THREE = Scene((CIRCLE, STAR, Thing("star", "blue", "large", "outlined", 0.7, 0.3)))


@pytest.mark.parametrize(
    ("caption", "scene"),
    [
        ("a red circle", ONE),
        ("red circle", ONE),
        ("A large, red circle.", ONE),
        ("there is a red circle in the top left", ONE),
        ("the circle is red", ONE),
        ("a picture of one red circle", ONE),
        ("a red thing, the thing is a red circle", ONE),
        ("a blue star and a red circle", TWO),
        ("the star is blue and the large circle is red", TWO),
        ("a red circle above a blue star", TWO),
        ("the red circle is to the left of the blue star", TWO),
        ("a red circle and a star , the star is blue", TWO),
        ("a red circle and a blue star, the red circle is above the star", TWO),
        ("two things, a red circle and a small blue star", TWO),
        ("two blue stars and a red circle", THREE),
        ("a blue star, a red circle and a blue star", THREE),
        ("there are 2 blue stars below a red circle", THREE),
        ("three things, two blue stars and a red circle", THREE),
    ],
)
def test_a_complete_caption_is_right(caption, scene):
    assert caption_is_right(caption, scene)


@pytest.mark.parametrize(
    ("caption", "scene"),
    [
        ("", ONE),
        ("a circle", ONE),
        ("a red thing", ONE),
        ("a blue circle", ONE),
        ("a red circle and a red circle", ONE),
        ("two red circles", ONE),
        ("a red circle and a blue star", ONE),
        ("a red blue circle", ONE),
        ("a red circle is blue", ONE),
        ("a white circle", ONE),
        ("a red circle and a green house", ONE),
        ("red circles", ONE),
        ("the circle is", ONE),
        ("a red circle", TWO),
        ("a blue circle and a red star", TWO),
        ("a red circle and a star", TWO),
        ("three things, a red circle and a blue star", TWO),
        ("a red circle and a blue star", THREE),
        ("three blue stars and a red circle", THREE),
        ("stars and a red circle", THREE),
    ],
)
def test_what_is_missing_wrong_or_invented_is_not_right(caption, scene):
    assert not caption_is_right(caption, scene)


def test_words_do_not_run_together():
    assert not caption_is_right("redcircle", ONE)
    assert not caption_is_right("a reddish circle", ONE)
