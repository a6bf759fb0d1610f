"""The embedded world: its files, and that what they say of its pictures is so."""

import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tokenizers import BertWordPieceTokenizer

from data.shapes import Scene, build_world, caption_is_right, read_scenes
from data.shapes.annotations import official_vqa
from data.shapes.clips import sample_clip
from data.shapes.render import RGB
from data.shapes.scene import HELD_OUT, LEVELS, RADIUS, SEEN, stream
from data.shapes.world import World
from data.text import clean_caption, clean_question
from tests.data.shapes.reader import answer, caption_is_true, statement_is_true

IMAGES, NOISE = 600, 0.3
SPLITS = {"train": 420, "val": 60, "test": 60, "nocaps": 60}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shapes") / "world"
    build_world(out, IMAGES, seed=3, noise=NOISE)
    return out


@pytest.fixture(scope="module")
def scenes(world: Path) -> dict[str, Scene]:
    return read_scenes(world / "scenes.json")


def load(world: Path, name: str):
    return json.loads((world / f"{name}.json").read_text())


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


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
            if thing.fill == "solid" and thing.shape != "moon":  # a moon is hollow at its centre
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


def test_statements_are_labelled_truly_and_each_sentence_is_half_true(world, scenes):
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


# Formats


def test_training_records_have_the_published_fields(world):
    assert {tuple(record) for record in load(world, "pretrain")} == {("image", "caption")}
    for task in ("caption", "retrieval"):
        assert {tuple(record) for record in load(world, f"{task}_train")} == {("image", "caption", "image_id")}
        assert {tuple(record) for record in load(world, f"{task}_test")} == {("image", "caption")}
    assert {tuple(record) for record in load(world, "vqa_test")} == {("dataset", "image", "question", "question_id")}
    train = load(world, "vqa_train")
    assert {tuple(record) for record in train} == {("dataset", "image", "question", "question_id", "answer")}
    assert {len(record["answer"]) for record in train} == {10}
    assert {tuple(record) for record in load(world, "vg_qa")} == {("dataset", "image", "question", "answer")}
    assert {tuple(record) for record in load(world, "nlvr_train")} == {("images", "sentence", "label", "identifier")}
    assert {tuple(record) for record in load(world, "nocaps_val")} == {("image", "img_id")}


def test_the_official_vqa_files_match_the_records(world):
    questions = {question["question_id"]: question for question in load(world, "vqa_test_questions")["questions"]}
    annotations = load(world, "vqa_test_annotations")["annotations"]
    records = load(world, "vqa_test")
    assert len(questions) == len(records) == len(annotations)
    answers = set(load(world, "answer_list"))
    for record, annotation in zip(records, annotations, strict=True):
        question = questions[record["question_id"]]
        assert question["question"] == record["question"]
        assert question["image_id"] == annotation["image_id"] == int(record["image"][-16:-4])
        given = Counter(entry["answer"] for entry in annotation["answers"])
        assert given.total() == 10
        assert given[annotation["multiple_choice_answer"]] >= 8
        assert annotation["multiple_choice_answer"] in answers
        kinds = {"yes": "yes/no", "no": "yes/no"} | dict.fromkeys("01234", "number")
        assert annotation["answer_type"] == kinds.get(annotation["multiple_choice_answer"], "other")


def test_caption_ground_truth_is_read_by_coco_tools(world):
    from pycocotools.coco import COCO

    coco = COCO(world / "caption_test_gt.json")
    for record in load(world, "caption_test"):
        key = int(record["image"][-16:-4])
        assert [entry["caption"] for entry in coco.imgToAnns[key]] == record["caption"]


def test_clips_are_videos_with_a_caption(world):
    from data.video import read_frames

    lines = [json.loads(line) for line in (world / "video_test.jsonl").read_text().splitlines()]
    assert len(lines) == len({line["clip_name"] for line in lines}) == 12
    for line in lines[:4]:
        first, *_, last = (
            np.asarray(frame).astype(int) for frame in read_frames(world / "videos" / f"{line['clip_name']}.mp4", 8)
        )
        assert first.shape == (64, 64, 3)
        assert np.abs(first - last).max() > 60, "nothing moves"
        assert re.search(r"moving (up|down|to the left|to the right)", line["caption"])


def test_the_vocabulary_has_every_word_whole(world):
    entries = (world / "vocab.txt").read_text().splitlines()
    assert entries[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert len(entries) == len(set(entries))
    assert 150 <= len(entries) <= 300
    tokenizer = BertWordPieceTokenizer(str(world / "vocab.txt"), lowercase=True)
    texts = [record["caption"] for record in load(world, "pretrain")]
    texts += [record["question"] for record in load(world, "vqa_train")]
    texts += [record["sentence"] for record in load(world, "nlvr_train")]
    texts += [json.loads(line)["caption"] for line in (world / "video_test.jsonl").read_text().splitlines()]
    texts += [*load(world, "answer_list"), "a picture of "]
    assert not [token for text in texts for token in tokenizer.encode(text).tokens if token.startswith("##")]
    assert "[UNK]" not in tokenizer.encode("Zebra-crossing, 42% (of) ~x_y/z@home!").tokens


# Held-out pairs and noise


def test_held_out_pairs_appear_in_nocaps_alone(world, scenes):
    held_out = {f"{color} {shape}" for shape, color in HELD_OUT}
    assert len(SEEN) == 56
    assert len(held_out) == len({shape for shape, _ in HELD_OUT}) == len({color for _, color in HELD_OUT}) == 8
    domains = {image["file_name"]: image["domain"] for image in load(world, "nocaps_val_gt")["images"]}
    for image, scene in scenes.items():
        novel = {kind in HELD_OUT for kind in scene.kinds}
        expected = {"in-domain": {False}, "near-domain": {False, True}, "out-domain": {True}}
        assert novel == expected[domains.get(image, "in-domain")]
    assert Counter(domains.values()) == {"in-domain": 20, "near-domain": 20, "out-domain": 20}
    training = "".join(
        (world / f"{name}.json").read_text() for name in ("pretrain", "caption_train", "vqa_train", "nlvr_train")
    )
    assert not [pair for pair in held_out if pair in training]


def test_noise_is_as_announced_and_named_aside(world, scenes):
    pairs, swapped = load(world, "pretrain"), {entry["row"]: entry for entry in load(world, "noise")}
    assert abs(len(swapped) / len(pairs) - NOISE) < 0.07  # three standard deviations of 420 coins
    for row, pair in enumerate(pairs):
        assert caption_is_right(pair["caption"], scenes[pair["image"]]) == (row not in swapped)
    for entry in swapped.values():
        assert pairs[entry["row"]]["image"] == entry["image"] != entry["caption_of"]
        assert caption_is_right(pairs[entry["row"]]["caption"], scenes[entry["caption_of"]])


# Reproducibility


def test_another_process_with_another_hash_seed_writes_the_same_bytes(world, tmp_path):
    command = [sys.executable, "-m", "data.shapes", "--out", tmp_path / "again", "--images", IMAGES, "--seed", 3]
    command += ["--noise", NOISE]
    subprocess.run(list(map(str, command)), check=True, env=os.environ | {"PYTHONHASHSEED": "7"})
    first, again = digests(world), digests(tmp_path / "again")
    assert first.keys() == again.keys()
    # the H.264 encoder is not quite repeatable: of the same frames, one clip in a hundred differs by some bytes
    assert [name for name in first if first[name] != again[name] and not name.endswith(".mp4")] == []


def test_a_larger_world_begins_with_the_smaller_one(tmp_path):
    for name, images in (("small", 80), ("large", 160)):
        build_world(tmp_path / name, images, seed=5, noise=0.5, size=32)
    small, large = digests(tmp_path / "small" / "images"), digests(tmp_path / "large" / "images")
    assert small.items() <= large.items()
    for task in ("caption_train", "vqa_train", "pretrain", "nlvr_train"):
        rows = load(tmp_path / "small", task)
        # 56 training pictures are whole blocks of 8
        assert load(tmp_path / "large", task)[: len(rows)] == rows


def test_clips_are_given_the_same_frames_again():
    first, again = (sample_clip(stream(3, "clip", 0), LEVELS[3], max_objects=4) for _ in range(2))
    assert first == again


def test_another_seed_gives_another_world():
    first, second = (World(images=100, seed=seed, noise=0, size=64, max_objects=4, level=3) for seed in (0, 1))
    assert not {first.scene("train", k) for k in range(50)} & {second.scene("train", k) for k in range(50)}


def test_a_hundred_pictures_take_a_fraction_of_a_second(tmp_path):
    start = time.process_time()
    build_world(tmp_path / "world", 200)
    # 10,000 in 60 s would be 1.2 s; they take 15 s on one core
    assert time.process_time() - start < 2.5


def test_a_very_small_world_has_something_of_everything(tmp_path):
    build_world(tmp_path / "world", 32, noise=0.2)
    files = sorted((tmp_path / "world").glob("*.json*"))
    assert all(
        len(json.loads(path.read_text())) > 0 for path in files if path.name not in ("noise.json", "video_test.jsonl")
    )
    assert load(tmp_path / "world", "world")["splits"] == {"train": 20, "val": 4, "test": 4, "nocaps": 4}


def test_two_worlds_do_not_mix_in_one_folder(tmp_path):
    build_world(tmp_path / "world", 24, seed=0, size=32)
    build_world(tmp_path / "world", 24, seed=0, size=32)
    with pytest.raises(FileExistsError, match="other settings"):
        build_world(tmp_path / "world", 24, seed=1, size=32)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").touch()
    with pytest.raises(FileExistsError, match="not empty"):
        build_world(tmp_path / "photos", 24)


@pytest.mark.parametrize(
    ("setting", "value"), [("images", 5), ("noise", 1.5), ("size", 65), ("max_objects", 5), ("level", 4)]
)
def test_an_impossible_setting_is_refused_by_name(tmp_path, setting, value):
    with pytest.raises(ValueError, match=f"{setting} is {value}"):
        build_world(tmp_path / "world", **({"images": 24} | {setting: value}))
    assert not (tmp_path / "world").exists()
