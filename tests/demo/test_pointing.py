"""How maps of words are judged: which things a word names, where their boxes are, and what counts as pointing."""

import pytest
import torch

from data.shapes.render import bounding_box, render
from data.shapes.scene import SHAPES, Scene, Thing
from demo import pointing
from demo.pointing import Tally, named_things
from models.word_maps import WordMaps


def thing(shape, color, x=0.5, y=0.5):
    return Thing(shape, color, "large", "solid", x, y)


RED_CIRCLE, BLUE_CIRCLE, BLUE_STAR = thing("circle", "red"), thing("circle", "blue"), thing("star", "blue")


@pytest.mark.parametrize(
    ("caption", "named"),
    [
        ("a red circle and a blue star", [(2, "shape", 0), (1, "color", 0), (6, "shape", 2), (5, "color", 2)]),
        ("a blue circle left of a star", [(2, "shape", 1), (1, "color", 1), (6, "shape", 2)]),
        ("the star is blue", [(1, "shape", 2), (3, "color", 2)]),
        ("two things", []),
    ],
)
def test_a_shape_word_and_its_color_word_name_the_same_things(caption, named):
    things = (RED_CIRCLE, BLUE_CIRCLE, BLUE_STAR)
    found = list(named_things(caption.split(), Scene(things)))
    assert found == [(place, kind, [things[number]]) for place, kind, number in named]


def test_a_plural_names_all_things_of_its_kind():
    two = (thing("cross", "red", 0.2), thing("cross", "red", 0.8))
    ((place, kind, things), _) = named_things(["two", "red", "crosses"], Scene((*two, BLUE_STAR)))
    assert (place, kind, things) == (2, "shape", list(two))


def test_a_wrong_color_is_one_that_nothing_has():
    scene = Scene((thing("circle", "green"), thing("star", "red")))
    assert (
        pointing.wrong_color("a green circle, green and a red star", scene) == "a orange circle, green and a red star"
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_a_box_holds_all_of_a_thing_and_no_more(shape):
    size, one = 200, Thing(shape, "black", "large", "solid", 0.4, 0.6, angle=7)
    dark = render(Scene((one,)), size).convert("L").point(lambda value: 255 * (value < 100))  # its shadow is paler
    assert bounding_box(one, size) == pytest.approx(dark.getbbox(), abs=2)


def test_the_peak_of_each_map_and_a_random_patch_are_compared_with_the_boxes():
    attention, grad_cam = torch.zeros(1, 4, 4), torch.zeros(1, 4, 4)
    attention[0, 0, 3], grad_cam[0, 1, 2] = 1, 1
    maps = WordMaps(text="dog", words=["dog"], attention=attention, grad_cam=grad_cam)
    tally = Tally()
    tally.add(maps, 0, [(0.5, 0.25, 0.99, 0.5)], several=True)  # two patches of the second row
    tally.add(maps, 0, [(0.0, 0.5, 1.0, 1.0)], several=False)  # the lower half
    assert tally == Tally(
        words=2, chance=2 / 16 + 8 / 16, attention=0, grad_cam=1, words_of_several=1, grad_cam_of_several=1
    )


def test_the_command_prints_a_row_for_each_task_and_layer(in_demo_folder, capsys, monkeypatch):
    from models.blip import BLIPDecoder
    from models.blip_itm import BLIPMatcher
    from models.blip_vqa import BLIPVQA
    from tests.small_model import TEXT, VIT

    sizes = {"image_size": 32, "vit": VIT, "med_config": TEXT, "vocab_file": "output/demo/world/vocab.txt"}
    folder = in_demo_folder / "output" / "demo"
    for name, kind in (("caption/checkpoint_best", BLIPDecoder), ("retrieval/checkpoint_best", BLIPMatcher)):
        save(folder / f"{name}.pth", kind, sizes)
    save(folder / "vqa/checkpoint_last.pth", BLIPVQA, sizes)
    world = pointing.World(folder / "world", 3)
    by_size = {image.mean().item(): name for name, _, image in world.pixels(32)}
    # random models are never right: let them say what the pictures show
    right = {size: world.texts[name] for size, name in by_size.items()}
    monkeypatch.setattr(BLIPDecoder, "generate", lambda model, image, **_: [right[image.mean().item()]])
    monkeypatch.setattr(
        BLIPVQA,
        "generate_answers",
        lambda model, image, question: [
            next(t.color for t in world.scenes[by_size[image.mean().item()]].things if t.shape in question)
        ],
    )
    pointing.main([str(folder), "--pictures", "3"])
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert {tuple(row[:3]) for row in rows} >= {
        ("captioning", "shape", "0"),
        ("captioning", "shape", "1"),
        ("matching", "shape", "0"),
        ("refuting", "color", "0"),
        ("answering", "color", "1"),
    }
    assert ("matching", "shape", "1") not in {tuple(row[:3]) for row in rows}, "the last layer has no maps of words"
    counted = {tuple(row[:3]): int(row[3]) for row in rows}
    assert counted["captioning", "shape", "0"] == counted["matching", "shape", "0"] > 0, "the same texts"
    assert counted["refuting", "color", "0"] == 3, "one wrong word a picture"


def test_a_folder_without_a_demonstration_is_told_in_one_line(tmp_path):
    with pytest.raises(SystemExit, match=r"retrieval_test\.json"):
        pointing.main([str(tmp_path)])


def save(path, kind, sizes):
    torch.manual_seed(0)
    path.parent.mkdir(exist_ok=True)
    torch.save({"model": kind(**sizes).state_dict(), "config": sizes}, path)
