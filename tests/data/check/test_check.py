"""`python -m data.check` finds nothing in the embedded world, and everything in a damaged copy of it."""

import json
import shutil
import weakref
from dataclasses import dataclass

import pyarrow
import pyarrow.parquet
import pytest
import webdataset
from PIL import Image
from ruamel.yaml import YAML

from data.check.__main__ import main
from data.check.tasks import TASKS, task_of
from data.config import CaptionData
from data.media.image_file import ImageFile
from data.shapes import build_world
from engine.config import TrainConfig
from files import REPOSITORY
from settings import ConfigError, load_config
from settings.model import CaptionSettings

TASK_CONFIGS = sorted(file for file in REPOSITORY.glob("configs/**/*.yaml") if file.stem != "capfilt")  # no task's data


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world") / "world"
    build_world(folder, images=60, seed=0)
    return folder


@pytest.fixture
def world(intact, tmp_path, monkeypatch):
    monkeypatch.setenv("BLIP_CACHE", str(tmp_path / "cache"))
    return shutil.copytree(intact, tmp_path / "world")


def config_of(world, task, **more):
    names = {"pretrain": "train_file", "nocaps": "val_file test_file", "retrieval_msrvtt": "test_file"}
    keys = {"image_root": str(world / "images")}
    for key in names.get(task, "train_file val_file test_file").split():
        split = key.removesuffix("_file")
        file = {"pretrain": "pretrain.json", "nocaps": "nocaps_val.json", "retrieval_msrvtt": "video_test.jsonl"}.get(
            task
        )
        keys[key] = str(world / (file or f"{task}_{split}.json"))
    if task == "pretrain":
        keys["train_file"] = [keys["train_file"]]
    if task == "retrieval_msrvtt":
        keys = {"video_root": str(world / "videos"), "test_file": keys["test_file"]}
    if task == "vqa":
        keys["answer_list"] = str(world / "answer_list.json")
    if task == "caption":
        keys["val_gt_file"] = str(world / "caption_val_gt.json")
    path = world / f"{task}.yaml"
    YAML().dump(keys | {"init_lr": 1e-5, "vit": "base"} | more, path)
    return path


def check(world, task, *arguments, **more):
    return main([str(config_of(world, task, **more)), "--out", str(world / "sheets"), *arguments])


def edit(file, change):
    records = json.loads(file.read_text())
    change(records)
    file.write_text(json.dumps(records))


@pytest.mark.parametrize("task", ["pretrain", "caption", "retrieval", "vqa", "nlvr", "nocaps", "retrieval_msrvtt"])
def test_nothing_is_wrong_with_the_embedded_world(world, capsys, task):
    assert check(world, task) == 0
    printed = capsys.readouterr().out
    assert "nothing is wrong" in printed
    sheets = sorted((world / "sheets").glob("*.png"))
    assert len(sheets) == printed.count("contact sheet: ")
    assert sheets
    assert min(Image.open(sheets[0]).size) > 100


def test_counts_are_those_of_the_files(world, capsys):
    assert check(world, "retrieval") == 0
    records = json.loads((world / "retrieval_val.json").read_text())
    wanted = f"{len(records)} records, {sum(len(record['caption']) for record in records)} captions"
    assert wanted in capsys.readouterr().out


def test_every_damage_is_named_with_file_and_record(world, capsys):
    names = [record["image"] for record in json.loads((world / "caption_test.json").read_text())]
    (world / "images" / names[0]).unlink()
    whole = (world / "images" / names[1]).read_bytes()
    (world / "images" / names[1]).write_bytes(whole[: len(whole) // 2])

    def change(records):
        records[2]["caption"] = 5
        del records[3]["image"]

    edit(world / "caption_test.json", change)
    edit(world / "caption_val.json", lambda records: records.append(records[0]))
    assert check(world, "caption") == 1
    printed = capsys.readouterr().out
    file = world / "caption_test.json"
    assert f"1 x missing image\n      {file}, record 1: {world / 'images' / names[0]}\n" in printed
    assert f"1 x unreadable image\n      {file}, record 2: {world / 'images' / names[1]}: " in printed
    assert f"2 x wrong field\n      {file}, record 3: 'caption' is a number (5)" in printed
    assert f"      {file}, record 4: has no 'image'" in printed
    assert "1 x image that an earlier record has\n" in printed
    assert "something is wrong" in printed


def test_damage_of_other_kinds_is_found(world, capsys):
    edit(world / "nlvr_train.json", lambda records: records[0].update(label="yes"))
    edit(world / "nlvr_val.json", lambda records: records[1].update(identifier=records[0]["identifier"]))
    (world / "nlvr_test.json").write_text('[{"images": ["a", "b"], ')
    assert check(world, "nlvr") == 1
    printed = capsys.readouterr().out
    assert f"wrong field\n      {world / 'nlvr_train.json'}, record 1: 'label' is a string (\"yes\")" in printed
    assert f"identifier that an earlier record has\n      {world / 'nlvr_val.json'}, record 2" in printed
    assert f"broken file\n      {world / 'nlvr_test.json'}, record 1: not valid JSON" in printed


@pytest.mark.parametrize("text", ["", "  ", "\n\t", "!!!", "\U0001f600"])
def test_captions_without_a_word_are_listed(world, capsys, text):
    edit(world / "caption_train.json", lambda records: records[1].update(caption=text))
    edit(world / "caption_val.json", lambda records: records[2].update(caption=["a word", text]))
    assert check(world, "caption") == 1
    printed = capsys.readouterr().out
    for place in (f"{world / 'caption_train.json'}, record 2", f"{world / 'caption_val.json'}, record 3"):
        assert f"1 x caption that is empty or holds no word\n      {place}: {ascii(text)}" in printed


def test_a_split_without_any_caption_to_score_by_is_named(world, capsys):
    edit(world / "caption_val.json", lambda records: [record.pop("caption") for record in records])
    assert check(world, "caption", val_gt_file="") == 1
    assert "1 x no caption to score by" in capsys.readouterr().out


def test_captions_that_are_cut_are_counted_and_no_mistake(world, capsys):
    def change(records):
        del records[2:]
        records[0]["caption"] = "one word " * 16
        records[1]["caption"] = " ".join(["word"] * 30)

    edit(world / "caption_train.json", change)
    assert check(world, "caption") == 0
    assert "  2 records, 2 captions, 1 captions cut after 30 words, " in capsys.readouterr().out


@pytest.mark.parametrize(("task", "name"), [("vqa", "answer"), ("nlvr", "sentence")])
def test_texts_of_more_tokens_than_bert_reads_are_listed(world, capsys, task, name):
    edit(world / f"{task}_train.json", lambda records: records[1].update({name: "\u8bcd" * 700}))
    assert check(world, task) == 1
    out = capsys.readouterr().out
    assert f"1 x {name} of more tokens than BERT reads" in out
    assert f"{task}_train.json, record 2: 700 or more, '\\u8bcd" in out


def test_images_without_ground_truth_are_found(world, capsys):
    def forget_the_first(truth):
        truth["annotations"] = [a for a in truth["annotations"] if a["image_id"] != 0]

    edit(world / "caption_val_gt.json", forget_the_first)
    assert check(world, "caption") == 1
    assert "image without a caption in" in capsys.readouterr().out


def test_shards_are_looked_over(world, capsys):
    picture = next((world / "images").rglob("*.jpg")).read_bytes()
    with webdataset.TarWriter(str(world / "0.tar")) as tar:
        tar.write({"__key__": "a", "jpg": picture, "txt": "x"})
        tar.write({"__key__": "b", "jpg": b"nothing", "txt": "x"})
    assert check(world, "pretrain", train_file=[], shards=[str(world / "*.tar")]) == 1
    printed = capsys.readouterr().out
    assert "1 shards, 2 samples in shards" in printed
    assert f"1 x unreadable image\n      {world / '0.tar'}/b: not a picture" in printed


def test_parquet_files_are_looked_over_like_lists_and_shards(world, capsys):
    records = json.loads((world / "pretrain.json").read_text())[:6]
    pictures = [(world / "images" / record["image"]).read_bytes() for record in records]
    texts = [record["caption"] for record in records]
    write = pyarrow.parquet.write_table
    columns = {"path": [record["image"] for record in records[:5]] + ["none.jpg"], "TEXT": [*texts[:5], None]}
    write(pyarrow.table(columns), world / "list.parquet")
    write(pyarrow.table({"jpg": pictures, "caption": texts}), world / "whole.parquet")
    shards = {"shards": [str(world / "whole.parquet")]}
    assert check(world, "pretrain", train_file=[], **shards) == 0
    assert "1 shards, 6 samples in shards" in capsys.readouterr().out
    write(pyarrow.table({"jpg": [*pictures[:5], b"nothing"], "caption": texts}), world / "whole.parquet")
    assert check(world, "pretrain", train_file=[str(world / "list.parquet")], **shards) == 1
    printed = capsys.readouterr().out
    assert "6 records, 5 captions, 5 records whose images were read, 1 shards, 6 samples in shards" in printed
    assert f"1 x missing image\n      {world / 'list.parquet'}, record 6: {world / 'images' / 'none.jpg'}\n" in printed
    assert f"1 x caption that is empty or holds no word\n      {world / 'list.parquet'}, record 6: ''" in printed
    assert f"1 x unreadable image\n      {world / 'whole.parquet'}/row 6: not a picture" in printed
    (world / "whole.parquet").write_bytes(b"PAR1")
    assert check(world, "pretrain", train_file=[], **shards) == 1
    assert f"broken file\n      {world / 'whole.parquet'}: cannot be read as Parquet (" in capsys.readouterr().out


def test_a_corpus_of_capfilt_is_looked_over(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("BLIP_CACHE", str(tmp_path / "cache"))
    for name in ("a", "b", "c"):
        Image.new("RGB", (8, 8), "red").save(tmp_path / f"{name}.png")
    (tmp_path / "broken.png").write_bytes(b"<html>")
    records = [
        {"image": "a.png", "caption": ["a cat", "a dog"], "uid": "0" * 32},
        {"image": "b.png"},
        {"image": "c.png", "caption": "a bird", "uid": "0" * 32},
        {"image": "broken.png", "caption": "x"},
        {"image": "gone.png", "caption": "x"},
        {"image": "d.png", "caption": 5},
    ]
    (tmp_path / "list.json").write_text(json.dumps(records))
    config = tmp_path / "capfilt.yaml"
    sheets = ["--out", str(tmp_path / "sheets")]

    def checked(keys):
        YAML().dump({"image_root": str(tmp_path), "unit_size": 1, "captioner": "a.pth", **keys}, config)
        return main([str(config), *sheets]), capsys.readouterr().out

    status, printed = checked({"corpus": [str(tmp_path / "list.json")]})
    assert status == 1
    assert "6 units of work, 4 images, 4 texts, 1 images without a text, 4 images that were read" in printed
    assert f"uid that an earlier image has\n      c.png: {'0' * 32}" in printed
    assert f"missing image\n      gone.png: {tmp_path}/gone.png" in printed
    assert f"cannot be used\n      {tmp_path}/list.json, record 6: 'caption' is a number (5)" in printed
    assert f"unreadable image\n      {tmp_path}/broken.png: not a picture" in printed
    assert (tmp_path / "sheets" / "capfilt_corpus.png").exists()
    (tmp_path / "list.json").write_text(json.dumps(records[:2]))
    assert checked({"corpus": [str(tmp_path / "list.json")]})[0] == 0
    status, printed = checked({"corpus": ["gone.tar"]})
    assert (status, "corpus: file gone.tar does not exist" in printed) == (1, True)


def test_records_that_name_samples_of_shards_are_looked_for_there(world, capsys):
    picture = next((world / "images").rglob("*.jpg")).read_bytes()
    with webdataset.TarWriter(str(world / "0.tar")) as tar:
        tar.write({"__key__": "a", "jpg": picture, "txt": "x"})
    (world / "list.json").write_text(json.dumps([{"image": f"0.tar/{key}", "caption": "x"} for key in "ab"]))
    assert check(world, "pretrain", train_file=[str(world / "list.json")], image_root=str(world)) == 1
    printed = capsys.readouterr().out
    assert f"1 x missing image\n      {world / 'list.json'}, record 2: {world / '0.tar'}/b\n" in printed
    assert "1 records whose images were read" in printed
    assert "unreadable" not in printed


def test_no_more_pictures_stay_in_memory_than_are_shown(world, monkeypatch):
    opened, alive = [], []
    read = ImageFile.read

    def tracked(file):
        picture = read(file)
        opened.append(weakref.ref(picture))
        alive.append(sum(reference() is not None for reference in opened))
        return picture

    monkeypatch.setattr(ImageFile, "read", tracked)
    with webdataset.TarWriter(str(world / "0.tar")) as tar:
        for number, picture in enumerate(sorted((world / "images").rglob("*.jpg"))):
            tar.write({"__key__": f"{number}", "jpg": picture.read_bytes(), "txt": "x"})
    assert check(world, "pretrain", shards=[str(world / "0.tar")]) == 0
    assert len(opened) > 80
    assert max(alive) <= 26  # a sheet's 24, and those in hand


def test_shards_without_a_sample_are_named(world, capsys):
    with webdataset.TarWriter(str(world / "0.tar")) as tar:
        tar.write({"__key__": "a", "txt": "x"})
    assert check(world, "pretrain", train_file=[], shards=[str(world / "*.tar")]) == 1
    assert "no sample" in capsys.readouterr().out


def test_only_some_images_are_read_if_so_wished(world, capsys):
    assert check(world, "pretrain", "--read", "10") == 0
    read = int(capsys.readouterr().out.split(" records whose images were read")[0].split()[-1])
    assert 5 <= read <= 10


@pytest.mark.parametrize(
    ("name", "written", "message"),
    [
        ("mine.yaml", "image_root: x", "does not tell the task"),
        ("nlvr.yaml", "image_root: [", "nlvr.yaml line 1: not valid YAML"),
        ("nlvr.yaml", 'image_root: "\0"', "nlvr.yaml: not valid YAML"),
        ("pretrain.yaml", "max_epoch: 3", "nothing to train on"),
        ("vqa.yaml", "vit: base\nnum_workers: -1", "vqa.yaml line 2: num_workers = -1: must be 0 or more, or auto"),
        ("vqa.yaml", "num_workers: '4'", "num_workers is '4' (text), expected a whole number or auto"),
        ("vqa.yaml", "num_workers: all", "num_workers is 'all' (text), expected a whole number or auto"),
        ("vqa.yaml", "num_workers: 2.5", "num_workers is 2.5 (a number), expected a whole number or auto"),
        ("vqa.yaml", "num_workers: [auto]", "num_workers is ['auto'] (a list), expected a whole number or auto"),
        ("pretrain.yaml", "train_file: a.json", "train_file is 'a.json' (text), expected a list of text"),
        (
            "pretrain.yaml",
            "{train_file: [a], shards_share: x}",
            "shards_share is 'x' (text), expected a number or null",
        ),
        ("caption.yaml", "train_file: [a.json]", "train_file is ['a.json'] (a list), expected text"),
        ("caption.yaml", "image_root:", "image_root is None (null), expected text"),
        ("caption.yaml", "image_rot: x", "line 1: unknown key 'image_rot'; the nearest valid key is 'image_root'"),
        ("caption.yaml", "promt: x", "line 1: unknown key 'promt'; the nearest valid key is 'prompt'"),
        ("nocaps.yaml", "prompt: 5", "line 1: prompt is 5 (a whole number), expected text"),
        ("caption.yaml", "train_file: a.json", "neither val_file nor test_file is there to validate on"),
        ("retrieval.yaml", "dataset: mine", "dataset is 'mine' (text), expected coco | flickr"),
    ],
)
def test_a_config_that_cannot_be_used_says_why(tmp_path, capsys, name, written, message):
    (tmp_path / name).write_text(written)
    with pytest.raises(SystemExit) as exit:
        main([str(tmp_path / name)])
    assert exit.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("written", ["num_workers: '4'", "prompt: x\nimage_size: 0", "a: [", "max_bad_images: 2"])
def test_a_mistake_in_a_data_key_reads_as_in_the_script(tmp_path, capsys, written):
    @dataclass
    class Config(TrainConfig, CaptionSettings, CaptionData):
        """As train_caption.py's, without its model."""

    (tmp_path / "caption.yaml").write_text(written)
    with pytest.raises(ConfigError) as of_the_script:
        load_config(Config, tmp_path / "caption.yaml")
    with pytest.raises(SystemExit):
        main([str(tmp_path / "caption.yaml")])
    assert capsys.readouterr().err.endswith(f"error: {of_the_script.value}\n")


def test_a_config_is_found_whatever_its_case(world, capsys):
    config_of(world, "nlvr")
    assert main([str(world / "NLVR.yaml"), "--out", str(world / "sheets")]) == 0
    assert f"train: nlvr data of {world / 'nlvr.yaml'}" in capsys.readouterr().out


def test_a_missing_config_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([str(tmp_path / "caption.yaml")])
    assert f"{tmp_path / 'caption.yaml'}: no such config file" in capsys.readouterr().err


@pytest.mark.parametrize("file", TASK_CONFIGS, ids=lambda file: file.stem)
def test_no_key_of_the_configs_that_come_along_is_taken_for_a_mistake(file):
    task = TASKS["msrvtt" if file.stem == "video" else task_of(file)]
    assert load_config(task.config, file, part=True).max_bad_images == 0.01


def test_ground_truth_of_another_format_is_named(world, capsys):
    (world / "caption_val_gt.json").write_text('["a", "b"]')
    assert check(world, "caption") == 1
    assert f"{world / 'caption_val_gt.json'}: expected ground truth as COCO has it" in capsys.readouterr().out


def test_the_task_may_be_told(world, capsys):
    path = config_of(world, "nlvr").rename(world / "mine.yaml")
    assert main([str(path), "--task", "nlvr", "--out", str(world / "sheets")]) == 0
    assert "mine_train.png" in capsys.readouterr().out


def test_a_place_that_cannot_be_written_is_one_line(world, tmp_path, capsys, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit) as exit:
        check(world, "nlvr", "--out", str(tmp_path / "file"))
    assert exit.value.code == 2
    assert "the contact sheet cannot be written (" in capsys.readouterr().err
    monkeypatch.setenv("BLIP_CACHE", str(tmp_path / "file"))
    assert check(world, "caption") == 1
    assert "cannot be used (Not a directory): set BLIP_CACHE" in capsys.readouterr().out
