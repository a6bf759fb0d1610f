"""What the world shows and what its texts say: pictures against scenes, texts against scenes."""

import re
from collections import Counter, defaultdict

import numpy as np
import pytest
from PIL import Image

from data.shapes import caption_is_right
from data.shapes.render import RGB
from data.shapes.scene import LEVELS, RADIUS
from data.shapes.task_records import official_vqa
from data.shapes.world import World
from data.text import clean_caption, clean_question
from tests.data.shapes.reader import answer, caption_is_true, load, statement_is_true

SPLITS = {"train": 420, "val": 60, "test": 60, "nocaps": 60}


# What the pictures show


def test_every_picture_of_the_splits_is_there_and_described(world, scenes):
    assert {name: len(list((world / "images" / name).iterdir())) for name in SPLITS} == SPLITS
    assert {str(path.relative_to(world / "images")) for path in world.glob("images/*/*.jpg")} == set(scenes)
    assert {Image.open(world / "images" / image).size for image in scenes} == {(64, 64)}


def test_a_solid_thing_shows_its_color_where_the_scene_says_it_is(world, scenes):
    right = []
    for image, scene in scenes.items():
        pixels = np.asarray(Image.open(world / "images" / image)).astype(int)
        for thing in scene.things:
            if thing.fill == "solid" and thing.shape != "moon":  # a moon is hollow at its center
                difference = np.abs(np.array(list(RGB.values())) - pixels[int(thing.y * 64), int(thing.x * 64)])
                right.append(list(RGB)[difference.sum(1).argmin()] == thing.color)
    assert len(right) > 300
    assert np.mean(right) > 0.99


@pytest.mark.parametrize("level", LEVELS)
def test_things_neither_overlap_nor_leave_the_picture(level):
    settings = World(images=1000, seed=0, noise=0, size=64, max_objects=4, level=level)
    for scene in (settings.scene("train", k) for k in range(500)):
        assert 1 <= len(scene.things) <= 4
        for i, a in enumerate(scene.things):
            radius = RADIUS[a.size]
            assert radius < a.x < 1 - radius
            assert radius < a.y < 1 - radius
            for b in scene.things[:i]:
                assert (a.x - b.x) ** 2 + (a.y - b.y) ** 2 > (radius + RADIUS[b.size]) ** 2


def test_the_world_is_as_varied_as_it_says(scenes):
    things = [thing for scene in scenes.values() for thing in scene.things]
    varieties = {name: len({getattr(t, name) for t in things}) for name in ("shape", "color", "size", "fill")}
    assert varieties == {"shape": 8, "color": 8, "size": 3, "fill": 3}
    assert {len(scene.things) for scene in scenes.values()} == {1, 2, 3, 4}


def test_a_low_level_varies_shape_color_and_place_only():
    settings = World(images=100, seed=0, noise=0, size=64, max_objects=2, level=1)
    things = [thing for k in range(100) for thing in settings.scene("train", k).things]
    assert {(thing.size, thing.fill) for thing in things} == {("large", "solid")}


def test_no_scene_stands_in_two_splits(scenes):
    assert len(set(scenes.values())) == len(scenes)


# What the texts say


@pytest.mark.parametrize("name", ["caption_train", "caption_val", "retrieval_train", "retrieval_test"])
def test_captions_are_true_and_complete(world, scenes, name):
    for record in load(world, name):
        captions = [record["caption"]] if "train" in name else record["caption"]
        assert captions
        for caption in captions:
            assert caption_is_true(caption, scenes[record["image"]]), caption
            assert caption_is_right(caption, scenes[record["image"]]), caption
            assert clean_caption(caption, 50) == caption


def test_captions_follow_several_patterns(world):
    captions = [record["caption"] for record in load(world, "caption_train")]
    patterns = [
        "^there is",
        "^there are",
        "^(two|three|four) things",
        " is (red|blue)",
        "in the top left",
        "above",
        "left of",
    ]
    assert all(sum(bool(re.search(pattern, c)) for c in captions) > 10 for pattern in patterns)


def test_retrieval_captions_tell_pictures_apart(world):
    counts = Counter(caption for record in load(world, "retrieval_test") for caption in record["caption"])
    assert sum(count for count in counts.values() if count > 1) <= 0.02 * counts.total()


def test_answers_are_true(world, scenes):
    records = load(world, "vqa_train") + load(world, "vg_qa") + load(world, "vqa_val")
    assert len(records) > 4 * SPLITS["train"]
    for record in records:
        given = record["answer"]
        said = given if isinstance(given, str) else Counter(given).most_common(1)[0][0]
        assert answer(record["question"], scenes[record["image"]]) == said, record
        assert clean_question(record["question"]) == record["question"]


def test_statements_are_labeled_truly_and_each_sentence_is_half_true(world, scenes):
    for split in ("train", "val", "test"):
        records = load(world, f"nlvr_{split}")
        labels = defaultdict(list)
        for record in records:
            verdict = statement_is_true(record["sentence"], *(scenes[image] for image in record["images"]))
            assert record["label"] == str(verdict), record
            name, block, _, sentence = record["identifier"].split("-")
            labels[name, block, sentence, record["sentence"]].append(record["label"])
        assert all(sorted(group) == ["False", "False", "True", "True"] for group in labels.values())
        assert len({record["identifier"] for record in records}) == len(records) >= SPLITS[split]
        # two pictures may be swapped together with these words, so they must not say where a thing stands
        assert not any(re.search(r"(left|right) (of|than)", record["sentence"]) for record in records)


@pytest.mark.parametrize(("level", "max_objects"), [(3, 4), (1, 2)])
def test_the_most_common_answer_is_a_poor_guess(level, max_objects):
    settings = World(images=4000, seed=1, noise=0, size=64, max_objects=max_objects, level=level)
    by_type = defaultdict(Counter)
    for split in ("val", "test"):
        for annotation in official_vqa(settings.split(split))[1]["annotations"]:
            by_type[annotation["question_type"]][annotation["multiple_choice_answer"]] += 1
    share = {name: max(counts.values()) / counts.total() for name, counts in by_type.items()}
    assert set(share) == {"color", "shape", "count", "existence", "relation", "comparison"}
    assert 0.45 < share.pop("existence") < 0.55  # yes or no
    assert max(share.values()) < 0.4
    everything = sum(by_type.values(), Counter())
    assert max(everything.values()) / everything.total() < 0.25
