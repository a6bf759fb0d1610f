"""Data keys: a user's own files come first, published ones are fetched when missing, impossible values are refused."""

import os

import pytest

import data.records.published
from data.config import CaptionData, NLVRData, NoCapsData, PretrainData, RetrievalData, VideoData, VQAData
from models.weights.download import DownloadError
from settings import ConfigError, MissingFile


@pytest.fixture
def fetched(monkeypatch):
    """Addresses that were asked for; the files come into being empty."""
    addresses = []

    def download(url, path):
        addresses.append(url)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("[]")
        return path

    monkeypatch.setattr(data.records.published, "download", download)
    return addresses


ADDRESS = "https://storage.googleapis.com/sfr-vision-language-research/datasets/"


@pytest.mark.parametrize(
    ("config", "split", "names"),
    [
        (CaptionData, "train", ["coco_karpathy_train.json"]),
        (CaptionData, "test", ["coco_karpathy_test.json"]),
        (RetrievalData, "val", ["coco_karpathy_val.json"]),
        (lambda **keys: RetrievalData(dataset="flickr", **keys), "test", ["flickr30k_test.json"]),
        (NLVRData, "val", ["nlvr_dev.json"]),
        (NoCapsData, "test", ["nocaps_test.json"]),
        (VQAData, "train", ["vqa_train.json", "vqa_val.json", "vg_qa.json"]),
        (VQAData, "test", ["vqa_test.json"]),
        (VideoData, "test", ["msrvtt_test.jsonl"]),
    ],
)
def test_published_annotations_are_fetched_once(tmp_path, fetched, config, split, names):
    values = config(ann_root=str(tmp_path / "annotation"))
    assert values.annotations(split) == [tmp_path / "annotation" / name for name in names]
    assert fetched == [ADDRESS + name for name in names]
    values.annotations(split)
    assert len(fetched) == len(names)


def test_lists_of_web_pictures_are_fetched_from_their_own_address(tmp_path, fetched):
    path = tmp_path / "laion_synthetic_filtered_large.json"
    assert PretrainData(train_file=[str(path)]).annotations("train") == [path]
    assert fetched == [ADDRESS.replace("/datasets/", "/BLIP/datasets/") + path.name]


def test_answer_list_and_ground_truth_are_fetched_too(tmp_path, fetched):
    assert VQAData(ann_root=str(tmp_path)).answer_file() == tmp_path / "answer_list.json"
    assert CaptionData(coco_gt_root=str(tmp_path)).ground_truth("val") == tmp_path / "coco_karpathy_val_gt.json"
    assert fetched == [ADDRESS + "answer_list.json", ADDRESS + "coco_karpathy_val_gt.json"]


def test_the_published_answers_are_not_those_of_own_questions(tmp_path, fetched):
    own = {"train_file": "own.json", "test_file": "own.json"}
    with pytest.raises(ValueError, match="answer_list: train_file is your own, so name the JSON list"):
        VQAData(**own).answer_file()
    assert not fetched
    assert VQAData(**own, answer_list=str(tmp_path / "answer_list.json")).answer_file().is_file()


def test_own_files_come_first_and_bring_their_own_ground_truth(tmp_path, fetched):
    own = tmp_path / "mine.json"
    own.write_text("[]")
    config = CaptionData(train_file=str(own), val_file=str(own), test_file=str(own), test_gt_file=str(own))
    assert config.annotations("train") == config.annotations("val") == [own]
    assert config.ground_truth("val") is None
    assert config.ground_truth("test") == own
    assert VQAData(train_file=str(own)).annotations("train") == [own]
    assert not fetched


def test_published_files_are_left_alone_where_some_are_own(tmp_path, fetched):
    own, truth = tmp_path / "own.json", tmp_path / "truth.json"
    own.write_text("[]")
    truth.write_text("{}")
    config = CaptionData(val_file=str(own), val_gt_file=str(truth), ann_root=str(tmp_path))
    assert config.annotations("test") == config.annotations("val") == [own]
    assert config.ground_truth("test") == truth
    with pytest.raises(ValueError, match="val_file is your own, but there is no train_file"):
        config.annotations("train")
    assert not fetched
    config = VQAData(val_file=str(own), ann_root=str(tmp_path), train_files=["vqa_train"])
    assert config.annotations("train") == [tmp_path / "vqa_train.json"]


def test_own_ground_truth_counts_for_published_images_too_and_never_in_vain(tmp_path, fetched):
    own = tmp_path / "own.json"
    own.write_text("[]")
    assert CaptionData(test_gt_file=str(own)).ground_truth("test") == own
    assert not fetched
    with pytest.raises(ValueError, match="test_gt_file = .*: must be empty where val_file stands in for test"):
        CaptionData(val_file=str(own), test_gt_file=str(own))


def test_a_missing_own_file_is_named_with_where_it_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=f"looked for at {tmp_path}{os.sep}mine.json"):
        NLVRData(test_file="mine.json").annotations("test")
    with pytest.raises(ValueError, match="give val_file"):
        VQAData().annotations("val")


def test_offline_a_published_file_is_named_with_its_address_and_place(tmp_path, monkeypatch):
    monkeypatch.setenv("BLIP_OFFLINE", "1")
    with pytest.raises(DownloadError) as error:
        NLVRData(ann_root=str(tmp_path)).annotations("val")
    for part in ("nlvr_dev.json", ADDRESS + "nlvr_dev.json", str(tmp_path / "nlvr_dev.json")):
        assert part in str(error.value)


def test_further_pretraining_files_are_those_of_a_folder_in_order(tmp_path):
    for name in ("b.json", "a.jsonl", "notes.txt"):
        (tmp_path / name).write_text("[]")
    (tmp_path / "empty").mkdir()
    config = PretrainData(laion_path=str(tmp_path))
    assert config.laion_files() == [tmp_path / "a.jsonl", tmp_path / "b.json"]
    with pytest.raises(MissingFile, match=r"holds no .json, .jsonl or .parquet file"):
        PretrainData(laion_path=str(tmp_path / "empty")).laion_files()
    with pytest.raises(MissingFile, match=r"nowhere' is no folder"):
        PretrainData(laion_path=str(tmp_path / "nowhere")).laion_files()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "nothing to train on"),
        ({"train_file": ["a"], "shards_share": 0.5}, "give both"),
        ({"train_file": ["a"], "shards": ["b"], "shards_share": 1.5}, "shards_share = 1.5: must be between 0 and 1"),
        (
            {"train_file": ["a"], "shard_lanes": 4},
            "shard_lanes deals shards to the processes: give shards, or leave it out",
        ),
        ({"shards": ["b"], "shard_lanes": 1}, "shard_lanes = 1: must be at least 2, or null"),
        ({"train_file": ["a"], "max_bad_images": 2.0}, "max_bad_images = 2.0"),
        ({"train_file": ["a"], "min_scale": 0.0}, "min_scale = 0.0: must be a share of the area, above 0 and up to 1"),
        ({"train_file": ["a"], "batch_size": 0}, "batch_size = 0: must be at least 1"),
        ({"train_file": ["a"], "num_workers": -1}, "num_workers = -1"),
    ],
)
def test_impossible_values_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        PretrainData(**values)


@pytest.mark.parametrize("config", [CaptionData, RetrievalData, NLVRData])
def test_own_training_data_without_own_data_to_validate_on_are_refused(config):
    with pytest.raises(ValueError, match="neither val_file nor test_file"):
        config(train_file="own.json")
    assert config(train_file="own.json", test_file="own.json").own_split("val") == "test"


@pytest.mark.parametrize(
    ("config", "keys", "message"),
    [
        (VideoData, {"num_frm_test": 10**30}, "num_frm_test = 10+: must be at most 10,000"),
        (VideoData, {"image_size": 10**9}, "image_size = 1000000000: must be at most 10,000"),
        (VideoData, {"batch_size": 10**20}, "batch_size = 10+: must be at most 1,000,000"),
        (VideoData, {"num_workers": 10**6}, "num_workers = 1000000: must be at most 1,000"),
        (VideoData, {"num_frm_test": 0}, "num_frm_test = 0: must be at least 1"),
    ],
)
def test_numbers_that_no_machine_can_hold_are_refused(config, keys, message):
    with pytest.raises(ConfigError, match=message):
        config(**keys)


def test_a_tilde_is_the_home_in_every_path(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "laion").mkdir()
    for name in ("train.json", "val.json", "gt.json", "laion/a.json", "answers.json"):
        (tmp_path / name).write_text("[]")
    pairs = PretrainData(train_file=["~/train.json"], image_root="~/images", url_root="~", laion_path="~/laion")
    assert pairs.annotations("train") == [tmp_path / "train.json"]
    assert (pairs.image_root, pairs.url_root) == (str(tmp_path / "images"), str(tmp_path))
    assert pairs.laion_files() == [tmp_path / "laion/a.json"]
    captions = CaptionData(train_file="~/train.json", val_file="~/val.json", val_gt_file="~/gt.json", ann_root="~")
    assert captions.annotations("val") == [tmp_path / "val.json"]
    assert captions.ground_truth("val") == tmp_path / "gt.json"
    questions = VQAData(
        answer_list="~/answers.json", vqa_root="~/a", vg_root="~/b", val_gt_file="~/gt.json", val_file="~/val.json"
    )
    assert questions.answer_file() == tmp_path / "answers.json"
    assert questions.image_folders() == {
        "image_root": "",
        "vqa_root": str(tmp_path / "a"),
        "vg_root": str(tmp_path / "b"),
    }
    assert questions.ground_truth("val") == tmp_path / "gt.json"
    assert VideoData(video_root="~/clips").video_root == str(tmp_path / "clips")


@pytest.mark.parametrize(
    "name", ["~nosuchuser/a.json", "a\0b.json", "x" * 300 + ".json", "a\nb.json", "\udcff.json", "."]
)
def test_a_name_of_no_file_is_one_line(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    config = PretrainData(train_file=[name], laion_path=name, image_root=name)
    with pytest.raises(MissingFile, match="^annotation file .*(does not exist|is a folder)") as error:
        config.annotations("train")
    assert str(error.value).isprintable()
    with pytest.raises(MissingFile, match="laion_path .*(is no folder|holds no)") as error:
        config.laion_files()
    assert str(error.value).isprintable()
