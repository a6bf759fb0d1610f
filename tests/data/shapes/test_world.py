"""The files of a world: their formats, what is held out, what is noise, and that they come out the same again."""

import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from tokenizers import BertWordPieceTokenizer

from data.shapes import build_world, caption_is_right
from data.shapes.clips import sample_clip
from data.shapes.scene import HELD_OUT, LEVELS, SEEN, seeded_rng
from data.shapes.world import World
from tests.data.shapes.reader import load


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


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
    from data.media.video import read_frames

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
    assert abs(len(swapped) / len(pairs) - 0.3) < 0.07  # three standard deviations of 420 coins
    for row, pair in enumerate(pairs):
        assert caption_is_right(pair["caption"], scenes[pair["image"]]) == (row not in swapped)
    for entry in swapped.values():
        assert pairs[entry["row"]]["image"] == entry["image"] != entry["caption_of"]
        assert caption_is_right(pairs[entry["row"]]["caption"], scenes[entry["caption_of"]])


# Reproducibility


def test_another_process_with_another_hash_seed_writes_the_same_bytes(world, tmp_path):
    command = [sys.executable, "-m", "data.shapes", "--out", tmp_path / "again", "--images", 600, "--seed", 3]
    command += ["--noise", 0.3]
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
    first, again = (sample_clip(seeded_rng(3, "clip", 0), LEVELS[3], max_objects=4) for _ in range(2))
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
