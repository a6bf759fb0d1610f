"""Each task's samples and batches, from real files; what the 2022 code made of the same annotations is recorded."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import data.nlvr
import data.vqa
from data.caption import CaptionEval, CaptionTrain
from data.media.image_file import BadImage, TooManyBadImages
from data.media.video import write_clip
from data.nlvr import NLVREval, NLVRTrain
from data.nocaps import NoCapsEval
from data.records.annotations import AnnotationError, TextLimit
from data.retrieval import RetrievalEval, RetrievalTrain
from data.video_retrieval import VideoEval
from data.vqa import VQAEval, VQATrain, answer_list
from transform.image import EvalTransform


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BLIP_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def recorded(golden):
    return json.loads(golden("datasets/expected.json").read_text())


@pytest.fixture
def images(tmp_path) -> Path:
    """Pictures im0.png, im1.png, ... whose gray level is their number."""
    for number in range(4):
        Image.new("RGB", (8, 8), (number,) * 3).save(tmp_path / f"im{number}.png")
    return tmp_path


def plain(picture, rng) -> torch.Tensor:
    """The picture as it is, in the place of the random augmentation."""
    del rng
    return EvalTransform(8)(picture.read())


def write(path: Path, records) -> Path:
    path.write_text(json.dumps(records))
    return path


def number(image: torch.Tensor) -> int:
    assert image.shape == (3, 8, 8)
    assert image.dtype == torch.uint8
    return int(image[0, 0, 0])


class Fixed:
    """A generator whose every draw is `value`."""

    def __init__(self, value: float) -> None:
        self.value = value

    def random(self) -> float:
        return self.value


def test_vqa_items_and_batches_are_as_recorded(images, recorded):
    case = recorded["vqa"]
    dataset = VQATrain([write(images / "vqa.json", case["annotation"])], plain, vqa_root=images, vg_root=images)
    for row, item in enumerate(case["items"]):
        sample = dataset[row]
        assert {key: sample[key] for key in ("question", "answers", "weights")} == {
            key: item[key] for key in ("question", "answers", "weights")
        }
        assert number(sample["image"]) == item["image"]
    batch = dataset.collate([dataset[row] for row in range(3)])
    assert batch["image"].shape == (3, 3, 8, 8)
    assert batch["question"] == case["collated"]["questions"]
    assert batch["answers"] == case["collated"]["answers"]
    assert batch["n"] == case["collated"]["n"]
    torch.testing.assert_close(batch["weights"], torch.tensor(case["collated"]["weights"]), rtol=0, atol=0)


def test_vqa_images_lie_in_the_folder_of_their_dataset_or_in_image_root(images):
    for folder, level in (("coco", 10), ("genome", 20), ("own", 30)):
        (images / folder).mkdir()
        Image.new("RGB", (8, 8), (level,) * 3).save(images / folder / "a.png")
    file = write(
        images / "vqa.json",
        [
            {"image": "a.png", "question": "q", "answer": "x"} | named
            for named in ({"dataset": "vqa"}, {"dataset": "vg"}, {})
        ],
    )
    roots = {"image_root": images / "own", "vqa_root": images / "coco", "vg_root": images / "genome"}
    assert [number(VQATrain([file], plain, **roots)[row]["image"]) for row in range(3)] == [10, 20, 30]
    only_own = VQATrain([file], plain, image_root=images / "own")
    assert [number(only_own[row]["image"]) for row in range(3)] == [30, 30, 30]
    assert [only_own[row]["weights"] for row in range(3)] == [[1.0], [0.2], [1.0]]


def test_vqa_evaluation_keeps_question_ids_and_gives_rows_to_questions_without(images):
    records = [
        {"image": "im0.png", "question": "What?", "question_id": 262148000},
        {"image": "im1.png", "question": "a"},
    ]
    dataset = VQAEval([write(images / "test.json", records)], EvalTransform(8), image_root=images)
    batch = dataset.collate([dataset[0], dataset[1]])
    assert batch["question_id"] == [262148000, 1]
    assert batch["question"] == ["what?", "a"]
    assert dataset.annotations[0]["answer"] is None


@pytest.mark.parametrize("ids", [({"question_id": 7},) * 2, ({"question_id": 1}, {}), ({}, {"question_id": 0})])
def test_two_questions_of_one_id_even_a_rows_are_an_error_that_names_both(images, ids):
    file = write(images / "test.json", [{"image": "im0.png", "question": "q"} | one for one in ids])
    found = ids[0].get("question_id", 0)
    message = rf"test.json, record 2 has the question_id {found} of .*test.json, record 1: .* row, counted from 0"
    with pytest.raises(AnnotationError, match=message):
        VQAEval([file], EvalTransform(8), image_root=images)


def test_an_answer_list_must_be_a_list_of_strings(tmp_path):
    assert answer_list(write(tmp_path / "a.json", ["yes", "no"])) == ["yes", "no"]
    with pytest.raises(AnnotationError, match="list of answers"):
        answer_list(write(tmp_path / "b.json", {"yes": 1}))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'["yes", 3]', r"a.json, answer 2: is a number \(3\), expected a JSON list of answers"),
        (b'["yes", null]', r"a.json, answer 2: is null"),
        (b'[["yes"]]', r"a.json, answer 1: is a list"),
        (b"[]", r"a.json: expected a JSON list of answers, found none"),
        (b'["", " "]', r"a.json: expected a JSON list of answers, found only blank ones"),
        (b"", r"a.json is empty"),
        (b'["\xff"]', r"a.json, after record 0: not UTF-8"),
    ],
)
def test_an_answer_list_of_another_kind_is_an_error_with_file_and_answer(tmp_path, content, message):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(AnnotationError, match=message):
        answer_list(tmp_path / "a.json")


def test_blank_answers_of_the_list_are_left_out_and_counted(tmp_path, caplog):
    (tmp_path / "a.json").write_text('\ufeff["", "yes", "  ", "?"]', encoding="utf-8")
    assert answer_list(tmp_path / "a.json") == ["yes", "?"]
    assert "a.json: 2 blank answers are left out" in caplog.text


def test_questions_whose_answers_are_blank_are_left_out_of_training_and_scores(images, caplog):
    answers = [["", "red", "red"], ["", " "], ""]
    file = write(images / "vqa.json", [{"image": "im0.png", "question": "q", "answer": answer} for answer in answers])
    dataset = VQATrain([file], plain, image_root=images)
    assert [(dataset[row]["answers"], dataset[row]["weights"]) for row in range(len(dataset))] == [(["red"], [1.0])]
    assert "2 of 3 records are left out, since their answer is empty or holds no word" in caplog.text
    asked = VQAEval([file], EvalTransform(8), image_root=images)
    assert len(asked) == 3
    assert asked.ground_truth() == {0: {"answers": ["red", "red"]}}
    assert "2 questions whose answers are blank are not scored" in caplog.text
    blank = write(images / "blank.json", [{"image": "im0.png", "question": "q", "answer": ""}])
    with pytest.raises(AnnotationError, match="blank.json, record 1, and all others: 'answer' is blank"):
        VQAEval([blank], EvalTransform(8), image_root=images).ground_truth()


def test_an_image_whose_captions_hold_no_word_is_captioned_and_has_an_empty_reference(images):
    captions = [["a cat", "!!!"], ["", "..."]]
    file = write(images / "val.json", [{"image": f"im{i}.png", "caption": c} for i, c in enumerate(captions)])
    dataset = CaptionEval([file], images, EvalTransform(8))
    assert len(dataset) == 2
    assert [(one["image_id"], one["caption"]) for one in dataset.ground_truth()["annotations"]] == [
        (0, "a cat"),
        (1, ""),
    ]


def test_texts_without_a_word_are_left_out_of_retrieval_with_their_images(images):
    captions = [["", "one"], "\U0001f600", "two"]
    file = write(images / "test.json", [{"image": f"im{i}.png", "caption": c} for i, c in enumerate(captions)])
    dataset = RetrievalEval([file], images, EvalTransform(8))
    assert dataset.text == ["one", "two"]
    assert dataset.txt2img == {0: 0, 1: 1}
    assert dataset.files(1) == [str(images / "im2.png")]


LIMIT = TextLimit(lambda text: len(text) + 2, 32)  # a token a character


@pytest.mark.parametrize("dataset_class", [NLVREval, NLVRTrain])
def test_a_sentence_that_the_model_cannot_read_whole_is_named(images, dataset_class):
    def pairs(*sentences):
        file = write(images / "nlvr.json", [nlvr_pair(True) | {"sentence": sentence} for sentence in sentences])
        return dataset_class([file], images, EvalTransform(8) if dataset_class is NLVREval else plain)

    data.nlvr.check_lengths(pairs("short", "y" * 30, "y" * 20 + "." * 50), LIMIT)
    message = r"nlvr.json, record 2: 'sentence' has 33 tokens, and the text model reads 32 at most: shorten it"
    with pytest.raises(AnnotationError, match=message):
        data.nlvr.check_lengths(pairs("short", "y" * 31), LIMIT)


def test_an_answer_that_the_model_cannot_read_whole_is_named(images):
    records = [{"image": "im0.png", "question": "q" * 99, "answer": answer} for answer in ("a", ["b", "c"], [""])]
    file = write(images / "vqa.json", records)
    data.vqa.check_lengths(VQATrain([file], plain, image_root=images), LIMIT)
    records[1]["answer"][1] = "\u8bcd" * 31
    file = write(images / "vqa.json", [records[2], records[0], records[1]])  # the first is left out
    with pytest.raises(AnnotationError, match=r"vqa.json, record 3: 'answer' has 33 tokens"):
        data.vqa.check_lengths(VQATrain([file], plain, image_root=images), LIMIT)
    listed = write(images / "answers.json", ["yes", "n" * 31])
    assert len(answer_list(listed)) == 2
    with pytest.raises(AnnotationError, match=r"answers.json, answer 2: has 33 tokens"):
        answer_list(listed, LIMIT)


def test_nlvr_pairs_are_kept_or_swapped_as_recorded(images, recorded):
    case = recorded["nlvr"]
    dataset = NLVRTrain([write(images / "nlvr.json", case["annotation"])], images, plain)
    for item in case["items"]:
        sample = dataset.sample(dataset.record(0, item["index"]), Fixed(item["random_value"]))
        assert sample["sentence"] == item["sentence"]
        if isinstance(case["annotation"][item["index"]]["label"], str):  # 2022's code counted JSON's true as false
            assert sample["label"] == item["label"]
        assert [number(image) for image in sample["image"]] == [item["image0"], item["image1"]]


def test_nlvr_batches_hold_the_left_images_first(images, recorded):
    file = write(images / "nlvr.json", recorded["nlvr"]["annotation"])
    dataset = NLVREval([file], images, EvalTransform(8))
    batch = dataset.collate([dataset[0], dataset[1], dataset[2]])
    assert [number(image) for image in batch["image"]] == [0, 1, 2, 1, 2, 3]
    assert batch["label"].tolist() == [1, 0, 1]


def test_nlvr_batches_name_their_files_in_the_order_of_the_images(images, recorded):
    dataset = NLVRTrain([write(images / "nlvr.json", recorded["nlvr"]["annotation"])], images, plain)
    batch = dataset.collate([dataset[0], dataset[1], dataset[2]])
    assert batch["files"] == [str(images / f"im{number(image)}.png") for image in batch["image"]]


def nlvr_pair(label) -> dict:
    return {"images": ["im0.png", "im1.png"], "sentence": "s", "label": label}


@pytest.mark.parametrize("dataset_class", [NLVREval, NLVRTrain])
def test_an_nlvr_label_is_taken_as_it_is_meant(images, dataset_class):
    labels = [True, "true", "True", 1, "1", False, "false", "False", 0, "0"]
    transform = EvalTransform(8) if dataset_class is NLVREval else plain
    dataset = dataset_class([write(images / "nlvr.json", list(map(nlvr_pair, labels)))], images, transform)
    assert [dataset[row]["label"] for row in range(len(labels))] == [1] * 5 + [0] * 5


@pytest.mark.parametrize("label", ["yes", "", " ", 2, -1, 1.0, None, [], ["True"], {"True": 1}, "T", "10"])
def test_an_nlvr_label_of_another_kind_is_an_error_with_file_and_record(images, label):
    file = write(images / "nlvr.json", [nlvr_pair(True), nlvr_pair(label)])
    with pytest.raises(AnnotationError, match=r"nlvr.json, record 2: (has no )?'label'"):
        NLVREval([file], images, EvalTransform(8))


@pytest.mark.parametrize(("dataset_class", "prompt"), [(CaptionTrain, "a picture of "), (RetrievalTrain, "")])
def test_training_captions_are_as_recorded(images, recorded, dataset_class, prompt):
    case = recorded["coco_train"]
    dataset = dataset_class([write(images / "train.json", case["annotation"])], images, plain, prompt=prompt)
    for row, item in enumerate(case["items"]):
        sample = dataset[row]
        assert sample["caption"] == prompt + item["caption"].removeprefix(case["prompt"])
        assert sample["image_id"] == item["idx"]
        assert number(sample["image"]) == item["image"]
    batch = dataset.collate([dataset[0], dataset[2]])
    assert batch["image_id"].dtype == torch.int64
    assert batch["image_id"].tolist() == [0, 0]


@pytest.mark.parametrize("prompt", ["a photo of", "a photo of "])
def test_a_training_caption_follows_its_prompt_after_one_blank(images, prompt):
    file = write(images / "train.json", [{"image": "im0.png", "caption": "There are two cats."}])
    assert CaptionTrain([file], images, plain, prompt=prompt)[0]["caption"] == "a photo of there are two cats"


def test_one_of_several_captions_is_drawn_by_epoch_and_index(images):
    file = write(images / "train.json", [{"image": "im0.png", "caption": ["one", "two", "three"]}])
    dataset = CaptionTrain([file], images, plain)
    drawn = [dataset[epoch, 0]["caption"] for epoch in range(30)]
    assert set(drawn) == {"one", "two", "three"}
    assert drawn == [dataset[epoch, 0]["caption"] for epoch in range(30)]


def test_without_image_ids_records_of_one_image_are_positives(images):
    records = [{"image": f"im{i}.png", "caption": "x"} for i in (2, 0, 2)]
    dataset = RetrievalTrain([write(images / "train.json", records)], images, plain)
    assert [dataset[row]["image_id"] for row in range(3)] == [0, 1, 0]


def test_retrieval_texts_and_maps_are_as_recorded(images, recorded):
    case = recorded["coco_retrieval_eval"]
    dataset = RetrievalEval([write(images / "val.json", case["annotation"])], images, EvalTransform(8))
    assert dataset.text == case["text"]
    assert {str(key): value for key, value in dataset.txt2img.items()} == case["txt2img"]
    assert {str(key): value for key, value in dataset.img2txt.items()} == case["img2txt"]
    assert dataset.collate([dataset[0], dataset[1]])["index"].tolist() == [0, 1]


def test_coco_image_ids_are_read_from_file_names_as_recorded(images, recorded):
    ids = recorded["coco_caption_eval_image_ids"]
    file = write(images / "val.json", [{"image": name, "caption": ["x"]} for name in ids])
    assert CaptionEval([file], images, EvalTransform(8)).image_ids == list(ids.values())


@pytest.mark.parametrize(
    ("records", "ids"),
    [
        ([{"image": "im0.png"}, {"image": "im1.png"}], [0, 1]),
        ([{"image": "im0.png", "image_id": "a"}, {"image": "im1.png", "image_id": 7}], ["a", 7]),
        ([{"image": "jpg.jpg"}, {"image": "x_000000000042.jpg"}], [0, 1]),
        ([{"image": "val2017/000000391895.jpg"}, {"image": "000000000042.jpg"}], [391895, 42]),
    ],
)
def test_other_image_ids_are_the_files_or_the_rows(images, records, ids):
    dataset = CaptionEval([write(images / "val.json", records)], images, EvalTransform(8))
    assert dataset.image_ids == ids


def test_two_images_of_one_id_are_an_error_that_names_both(images):
    file = write(images / "val.json", [{"image": "im0.png", "image_id": 1}, {"image": "im1.png", "image_id": 1}])
    with pytest.raises(ValueError, match=r"record 2 has the image_id 1 of .*record 1"):
        CaptionEval([file], images, EvalTransform(8))


def test_an_image_without_an_id_beside_others_with_one_is_named(images):
    file = write(images / "val.json", [{"image": "im0.png", "image_id": 1}, {"image": "im1.png"}])
    with pytest.raises(AnnotationError, match=r"json, record 2 has no image_id, though other records have one"):
        CaptionEval([file], images, EvalTransform(8))


def test_ground_truth_is_made_from_a_files_own_captions(images):
    file = write(
        images / "val.json", [{"image": "im0.png", "caption": ["A", "b"]}, {"image": "im1.png", "caption": "c"}]
    )
    assert CaptionEval([file], images, EvalTransform(8)).ground_truth() == {
        "images": [{"id": 0}, {"id": 1}],
        "annotations": [
            {"image_id": 0, "id": 0, "caption": "A"},
            {"image_id": 0, "id": 1, "caption": "b"},
            {"image_id": 1, "id": 2, "caption": "c"},
        ],
    }


def test_nocaps_keeps_img_ids(images):
    file = write(images / "nocaps.json", [{"image": "im1.png", "img_id": 4499}])
    dataset = NoCapsEval([file], images, EvalTransform(8))
    assert dataset.collate([dataset[0]])["image_id"] == [4499]


def test_two_nocaps_images_of_one_id_are_an_error_that_names_both(images):
    records = [{"image": f"im{row}.png", "img_id": img_id} for row, img_id in enumerate((4, "4", 4))]
    file = write(images / "nocaps.json", records)
    with pytest.raises(AnnotationError, match=r"json, record 3 has the img_id 4 of .*json, record 1: it must be"):
        NoCapsEval([file], images, EvalTransform(8))


def test_videos_are_frames_and_a_clip_may_have_several_texts(tmp_path):
    for name, level in (("one", 40), ("two", 200)):
        write_clip(tmp_path / f"{name}.mp4", [np.full((16, 16, 3), level, np.uint8)] * 5, fps=5)
    lines = [{"clip_name": "one", "caption": "Gray."}, {"clip_name": "two.mp4", "caption": "White"}]
    lines.append({"clip_name": "one", "caption": "dark"})
    (tmp_path / "test.jsonl").write_text("\n".join(map(json.dumps, lines)))
    dataset = VideoEval([tmp_path / "test.jsonl"], tmp_path, EvalTransform(8), num_frames=4)
    batch = dataset.collate([dataset[0], dataset[1]])
    assert batch["video"].shape == (2, 4, 3, 8, 8)
    assert [round(float(video.float().mean()), -1) for video in batch["video"]] == [40, 200]
    assert dataset.text == ["gray", "white", "dark"]
    assert dataset.vid2txt == {0: [0, 2], 1: [1]}
    assert dataset.txt2vid == {0: 0, 1: 1, 2: 0}


def test_a_bad_image_is_replaced_in_training_in_the_same_way_each_time(images):
    (images / "im1.png").write_bytes(b"")
    file = write(images / "train.json", [{"image": f"im{i}.png", "caption": str(i)} for i in range(4)])
    dataset = CaptionTrain([file], images, plain)
    sample = dataset[0, 1]
    assert [path for path, _ in sample["bad_images"]] == [str(images / "im1.png")] * len(sample["bad_images"])
    assert sample["bad_images"]
    assert sample["caption"] == str(number(sample["image"])) != "1"
    assert dataset[0, 1]["caption"] == sample["caption"]
    batch = dataset.collate([dataset[0, 0], sample])
    assert batch["bad_images"] == sample["bad_images"]


def test_a_folder_without_the_images_ends_at_the_first_sample(images):
    file = write(images / "train.json", [{"image": "nowhere/x.jpg", "caption": "x"}] * 30)
    with pytest.raises(TooManyBadImages, match=r"100 images in a row .*folder of images(.|\n)*nowhere/x.jpg"):
        CaptionTrain([file], images, plain)[0, 0]


def test_a_bad_image_is_an_error_that_names_it_in_evaluation(images):
    (images / "im0.png").write_bytes(b"no picture")
    file = write(images / "val.json", [{"image": "im0.png", "caption": ["x"]}])
    with pytest.raises(BadImage, match=str(images / "im0.png")):
        RetrievalEval([file], images, EvalTransform(8))[0]
