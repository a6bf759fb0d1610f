"""Annotation files: read record by record, checked, and stored once whatever the number of processes."""

import gc
import json
import logging
import multiprocessing
import pickle
import shlex
from functools import partial
from pathlib import Path

import pytest

import data.records.annotations
import data.records.json_values
from data import caption, nlvr
from data.records.annotations import AnnotationError, Annotations, records
from data.records.formats import Format, captions, identifier, path, text, texts, truth

PAIR = Format("pair", (path("image"), texts("caption"), identifier("image_id", required=False)))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BLIP_CACHE", str(tmp_path / "cache"))


def stored(tmp_path):
    return sorted((tmp_path / "cache" / "annotations").glob("*.arrow"))


@pytest.mark.parametrize("chunk", [1, 7, 1 << 22])
@pytest.mark.parametrize("layout", ["list", "indented", "lines", "blank lines", "with a byte order mark"])
def test_every_layout_gives_the_same_records_at_any_chunk_size(tmp_path, monkeypatch, chunk, layout):
    wanted = [{"image": "a, [b].jpg", "caption": ["x", "ü \U0001f600"]}, {"image": 'q"}', "caption": "y\n"}, {}]
    lines = [json.dumps(record, ensure_ascii=False) for record in wanted]
    written = {
        "list": json.dumps(wanted),
        "indented": json.dumps(wanted, indent=1),
        "lines": "\n".join(lines) + "\n",
        "blank lines": "\n\n".join(lines),
        "with a byte order mark": "\ufeff" + json.dumps(wanted),
    }[layout]
    (tmp_path / "a.json").write_text(written, encoding="utf-8")
    monkeypatch.setattr(data.records.json_values, "_CHUNK", chunk)
    assert list(records(tmp_path / "a.json")) == wanted


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ('[{"a": 1}, {"a": oops}]', r"a.json, record 2: not valid JSON"),
        ('[{"a": 1}, {"a": 2', r"a.json, record 2: not valid JSON"),
        ('[{"a": 1}]\n[{"a": 2}]', r"a.json: more follows the closing \]"),
        ('[{"a": 1}, ', r"a.json ends after record 1 without the closing \]"),
        (b'[{"a": "\xff\xfe"}]', r"a.json, after record 0: not UTF-8"),
        ("", r"a.json is empty"),
        (" \n\t ", r"a.json is empty"),
        ("\ufeff", r"a.json is empty"),
        ("no JSON at all", r"a.json, record 1: not valid JSON records: it begins with 'no JSON at all'$"),
        ("null", r"a.json, record 1: not valid JSON records: it begins with 'null'"),
        ("<html>", r"it begins with '<html>': a page of the web in place of the file\?"),
        ("version https://git-lfs.github.com/spec/v1", r"a pointer that `git lfs pull` replaces"),
        ("image,caption\na.jpg,x\n", r"begins with 'image,caption': a table\? .*convert it: .*delimiter=','"),
        ("a cat\thttps://a.b/c.jpg\n", r"a table\? .*delimiter='.t'"),
        (b"\x1f\x8b\x08\0", r"a.json is compressed: unpack it \(gunzip\)"),
        ("[" * 100_000, r"a.json, record 1: not valid JSON .*nested too deep"),
        ('{"a":' * 100_000, r"a.json, record 1: not valid JSON .*nested too deep"),
        ('{"info": {}, "images": [], "annotations": []}', "is in COCO's layout, but has no images"),
        (f"[{'1' * 5_000}]", r"a.json, record 1: not valid JSON .Exceeds the limit"),
        (b"PK\x03\x04\xff\xff", r"a.json, after record 0: not UTF-8"),
    ],
)
def test_broken_json_is_an_error_with_file_and_record(tmp_path, written, message):
    (tmp_path / "a.json").write_bytes(written if isinstance(written, bytes) else written.encode())
    with pytest.raises(AnnotationError, match=message):
        list(records(tmp_path / "a.json"))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ([1], r"record 2: is a list \(\[1\]\), expected an object with the fields image, caption"),
        ({"caption": "x"}, r"record 2: has no 'image' \(its fields: caption\)"),
        ({"image": "", "caption": "x"}, r"'image' is a string \(\"\"\), expected a string that is not empty"),
        ({"image": "a", "caption": 3}, r"'caption' is a number \(3\), expected a string or a list of strings"),
        ({"image": "a", "caption": []}, r"'caption' is a list"),
        ({"image": "a", "caption": ["x", None]}, r"'caption' is a list"),
        ({"image": "a", "caption": "x", "image_id": True}, r"'image_id' is a truth value \(true\), expected a whole"),
        ({"image": "a", "caption": "x", "image_id": 1.5}, r"'image_id' is a number \(1.5\)"),
    ],
)
def test_a_wrong_field_is_an_error_with_file_and_record(tmp_path, record, message):
    file = tmp_path / "a.json"
    file.write_text(json.dumps([{"image": "a", "caption": "x"}, record]))
    with pytest.raises(AnnotationError, match=message) as error:
        Annotations([file], PAIR)
    assert str(error.value).startswith(f"{file}, record 2: ")
    assert not stored(tmp_path)


def test_fields_of_other_kinds():
    format = Format("f", (texts("images", count=2), truth("label"), text("a", False), text("b", False)), ("a", "b"))
    assert format.to_row({"images": ["x", "y"], "label": True, "b": ""}) == [["x", "y"], 1, None, ""]
    for wrong, message in (
        ({"images": ["x"], "label": "True", "a": "1"}, "expected a list of 2 strings"),
        ({"images": "xy", "label": "True", "a": "1"}, "expected a list of 2 strings"),
        ({"images": ["x", "y"], "label": "yes", "a": "1"}, "expected 'True' or 'False'"),
        ({"images": ["x", "y"], "label": "True"}, "has none of a, b"),
    ):
        with pytest.raises(ValueError, match=message):
            format.to_row(wrong)


def test_half_of_a_character_is_marked_and_not_an_error(tmp_path):
    records = (
        r'[{"image": "a", "caption": "cut \ud83d"}, {"image": "b", "caption": ["\ud83d\ude00"], "image_id": "\ude00"}]'
    )
    (tmp_path / "a.json").write_text(records)
    rows = list(Annotations([tmp_path / "a.json"], PAIR))
    assert [row["caption"] for row in rows] == [["cut \ufffd"], ["\U0001f600"]]
    assert rows[1]["image_id"] == "\ude00"


def test_several_files_are_one_row_of_records_that_know_their_place(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps([{"image": "a", "caption": "1", "image_id": 5}]))
    (tmp_path / "empty.json").write_text("[]")
    (tmp_path / "b.jsonl").write_text(
        '{"image": "b", "caption": ["2", "3"], "image_id": "5"}\n{"image":"c","caption":""}'
    )
    annotations = Annotations([tmp_path / name for name in ("a.json", "empty.json", "b.jsonl")], PAIR)
    assert list(annotations) == [
        {"image": "a", "caption": ["1"], "image_id": 5},
        {"image": "b", "caption": ["2", "3"], "image_id": "5"},
        {"image": "c", "caption": [""], "image_id": None},
    ]
    assert annotations.place(2) == f"{tmp_path / 'b.jsonl'}, record 2"
    assert annotations.factorize("image_id", "image").tolist() == [0, 1, 2]
    with pytest.raises(IndexError):
        annotations[3]


def test_rows_past_a_batch_are_found(tmp_path, monkeypatch):
    monkeypatch.setattr("data.records.table._ROWS", 4)
    (tmp_path / "a.json").write_text(json.dumps([{"image": str(i), "caption": "x"} for i in range(11)]))
    annotations = Annotations([tmp_path / "a.json"] * 2, PAIR)
    assert [record["image"] for record in annotations] == [str(i) for i in range(11)] * 2


def test_a_store_follows_the_content_and_not_the_name(tmp_path):
    first, second = tmp_path / "a.json", tmp_path / "b.json"
    first.write_text('[{"image": "a", "caption": "x"}]')
    second.write_text(first.read_text())
    Annotations([first, second], PAIR)
    assert len(stored(tmp_path)) == 1
    first.write_text('[{"image": "b", "caption": "x"}]')  # of the same size
    assert Annotations([first], PAIR)[0]["image"] == "b"
    assert len(stored(tmp_path)) == 2
    Annotations([first], Format("other", PAIR.fields[:2]))
    assert len(stored(tmp_path)) == 3


CAPTIONED = Format("captioned", (path("image"), captions("caption")), needed="caption")


def test_records_without_a_word_are_left_out_and_counted(tmp_path, caplog):
    texts = ["a", "", ["  ", "b", "!!!"], "\n\t", [], "\U0001f600", ["", "..."], "\u8bcd"]
    file = tmp_path / "a.json"
    file.write_text(json.dumps([{"image": str(i), "caption": text} for i, text in enumerate(texts) if text != []]))
    annotations = Annotations([file, file], CAPTIONED)
    assert [record["caption"] for record in annotations] == [["a"], ["b"], ["\u8bcd"]] * 2
    assert annotations.values("image") == ["0", "2", "7"] * 2
    assert annotations.factorize("image").tolist() == [0, 1, 2] * 2
    assert annotations.place(1) == f"{file}, record 3"
    message = "8 of 14 records are left out, since their caption is empty or holds no word; the first is "
    assert f"{message}{file}, record 2" in caplog.text
    assert [record["caption"] for record in pickle.loads(pickle.dumps(annotations))] == [["a"], ["b"], ["\u8bcd"]] * 2


def test_a_file_without_any_word_is_an_error(tmp_path):
    (tmp_path / "a.json").write_text('[{"image": "a", "caption": ""}, {"image": "b", "caption": ["!", "?"]}]')
    with pytest.raises(AnnotationError, match=r"a.json, record 1, and all others: 'caption' is empty"):
        Annotations([tmp_path / "a.json"], CAPTIONED)


COCO = {
    "info": {"year": 2017},
    "licenses": [],
    "images": [{"id": 7, "file_name": "b.jpg", "width": 5}, {"id": 3, "file_name": "a.jpg"}],
    "annotations": [
        {"id": 1, "image_id": 3, "caption": "one"},
        {"id": 2, "image_id": 7, "caption": "two"},
        {"id": 3, "image_id": 3, "caption": "three"},
    ],
}


@pytest.mark.parametrize("chunk", [1, 7, 1 << 22])
@pytest.mark.parametrize("names", [list(COCO), list(COCO)[::-1]])
def test_cocos_own_layout_of_captions_is_read_whatever_its_size(tmp_path, monkeypatch, chunk, names):
    monkeypatch.setattr(data.records.json_values, "_CHUNK", chunk)
    monkeypatch.setattr(data.records.json_values, "_LONGEST_VALUE", 150)
    monkeypatch.setattr(data.records.json_values, "_BEGINNING", 100)
    (tmp_path / "a.json").write_text(json.dumps({name: COCO[name] for name in names}, indent=1))
    assert list(records(tmp_path / "a.json")) == [
        {"image": "b.jpg", "image_id": 7, "caption": ["two"]},
        {"image": "a.jpg", "image_id": 3, "caption": ["one", "three"]},
    ]


def test_json_lines_that_begin_like_coco_are_records(tmp_path):
    wanted = [{"info": {"a": 1}, "image": "x", "caption": "y"}, {"image": "z", "caption": "w"}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, wanted)))
    assert list(records(tmp_path / "a.jsonl")) == wanted


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ({**COCO, "annotations": [{"image_id": 3, "bbox": [1, 2]}]}, "is in COCO's layout.* with what is no caption"),
        ({**COCO, "images": [{"id": 3}]}, "is in COCO's layout.* an image without file_name"),
        ({**COCO, "images": [5]}, r"an image without id \(no object\)"),
        ({"questions": [{"question_id": 1, "image_id": 3, "question": "q"}]}, "with what is no caption .its fields: q"),
        ({"annotations": COCO["annotations"]}, "COCO's layout, but has no images"),
        ({"a/b.jpg": {"caption": "x", "tags": "y"}, "c.jpg": {"tags": "y"}}, "kohya's layout.* To convert it: python"),
        ({"a/b.jpg": {"tags": "y"}}, "kohya's layout"),
        ({**COCO, "images": [{"id": 3, "file_name": "a"}] * 2}, "with a second image with one id"),
    ],
)
def test_layouts_of_other_tools_are_named(tmp_path, layout, message):
    (tmp_path / "a.json").write_text(json.dumps(layout))
    with pytest.raises(AnnotationError, match=message) as error:
        Annotations([tmp_path / "a.json"], PAIR)
    assert len(str(error.value)) < 600


OTHERS = {
    "LLaVA": [{"id": "0", "image": "a.jpg", "conversations": [{"value": "<image> What?"}, {"value": "a cat"}]}],
    "chats": [{"messages": [{"content": "<image> What?"}, {"content": "a cat"}], "images": ["a.jpg"]}],
    "image folders": [{"file_name": "a.jpg", "text": "a cat"}],
    "Label Studio": [
        {"annotations": [{"result": [{"value": {"text": ["a cat"]}}]}], "data": {"image": "a.jpg"}, "file_upload": "x"}
    ],
    "Visual Genome's regions": [{"id": 1, "regions": [{"image_id": "a", "phrase": "a cat"}]}],
    "Karpathy": {"images": [{"filename": "a.jpg", "split": "train", "imgid": 1, "sentences": [{"raw": "a cat"}]}]},
    "records by name": {"a.jpg": "a cat"},
    "of records by name": {"a.jpg": {"height": 1, "caption": "a cat"}},
    "a list under 'data'": {"version": 1, "data": [{"image": "a.jpg", "caption": "a cat"}]},
}


@pytest.mark.parametrize("name", OTHERS)
def test_the_command_that_converts_a_layout_of_other_tools_gives_its_records(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    lines = name == "image folders"
    Path("OLD.json").write_text(json.dumps(OTHERS[name][0] if lines else OTHERS[name]))
    with pytest.raises(AnnotationError, match=name) as error:
        Annotations(["OLD.json"], PAIR)
    assert len(str(error.value)) < 600
    arguments = shlex.split(str(error.value).partition("To convert it: ")[2])
    assert arguments[:2] == ["python", "-c"]
    exec(arguments[2])
    gc.collect()  # closes the files
    record = Annotations(["NEW.json"], PAIR)[0]
    assert record["image"].replace("/", "") in ("a.jpg", "a")
    assert record["caption"] == ["a cat"]


def test_the_command_for_nlvr2s_own_files_gives_pairs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = {"sentence": "s", "left_url": "u", "label": "True", "identifier": "dev-850-0-2", "right_url": "v"}
    Path("OLD.json").write_text(json.dumps(own) + "\n" + json.dumps(own))
    with pytest.raises(AnnotationError, match="the layout of NLVR2's own files") as error:
        Annotations(["OLD.json"], nlvr.PAIR)
    exec(shlex.split(str(error.value).partition("To convert it: ")[2])[2])
    gc.collect()
    assert list(Annotations(["NEW.json"], nlvr.PAIR))[1] == {
        "images": ["dev-850-0-img0.png", "dev-850-0-img1.png"],
        "sentence": "s",
        "label": True,
        "identifier": "dev-850-0-2",
    }


def test_captions_of_images_that_cocos_layout_does_not_list_are_counted(tmp_path, caplog):
    (tmp_path / "a.json").write_text(json.dumps({**COCO, "images": COCO["images"][:1]}))
    assert len(list(records(tmp_path / "a.json"))) == 1
    assert "a.json: 2 captions are left out, since no image has their image_id; one is 3" in caplog.text


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_other_encodings_of_unicode_are_read(tmp_path, encoding):
    record = {"image": "a.jpg", "caption": "a caf\xe9 \U0001f600"}
    (tmp_path / "a.json").write_text(json.dumps([record], ensure_ascii=False), encoding)
    assert list(records(tmp_path / "a.json")) == [record]


def test_byte_order_marks_between_files_that_were_put_together_are_passed_over(tmp_path):
    (tmp_path / "a.jsonl").write_text('\ufeff{"image": "a"}\n\ufeff{"image": "b"}\n')
    assert list(records(tmp_path / "a.jsonl")) == [{"image": "a"}, {"image": "b"}]


def test_of_very_many_fields_a_few_are_named(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({f"{i}.jpg" * 100: "a caption" for i in range(10_000)}))
    with pytest.raises(AnnotationError, match="and 9,992 more") as error:
        Annotations([tmp_path / "a.json"], PAIR)
    assert len(str(error.value)) < 1000


def test_one_value_longer_than_any_record_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(data.records.json_values, "_CHUNK", 10)
    monkeypatch.setattr(data.records.json_values, "_LONGEST_VALUE", 100)
    (tmp_path / "a.json").write_text(json.dumps([{"image": "x" * 200, "caption": "y"}]))
    with pytest.raises(AnnotationError, match="record 1: not valid JSON .one value of over 100 characters, or"):
        list(records(tmp_path / "a.json"))


def test_a_pickled_copy_holds_no_records(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps([{"image": str(i), "caption": "x" * 100} for i in range(1000)]))
    annotations = Annotations([tmp_path / "a.json"], PAIR)
    pickled = pickle.dumps(annotations)
    assert len(pickled) < 1000
    assert pickle.loads(pickled)[999] == annotations[999]


def _open_and_count(arguments):
    file, barrier, reads, hashes = arguments
    read, hashed = data.records.annotations.records, data.records.annotations._hash

    def counted(call, count, *source):
        with count.get_lock():
            count.value += 1
        return call(*source)

    data.records.annotations.records = partial(counted, read, reads)
    data.records.annotations._hash = partial(counted, hashed, hashes)
    barrier.wait()
    return len(Annotations([file], PAIR))


def _run(arguments, results):
    results.put(_open_and_count(arguments))


def test_of_eight_processes_that_start_at_once_one_hashes_the_file_and_reads_it(tmp_path):
    file = tmp_path / "a.json"
    file.write_text(json.dumps([{"image": str(i), "caption": "x"} for i in range(20_000)]))
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(8), context.Queue()
    reads, hashes = context.Value("i", 0), context.Value("i", 0)
    processes = [context.Process(target=_run, args=((file, barrier, reads, hashes), results)) for _ in range(8)]
    for process in processes:
        process.start()
    assert [results.get(timeout=60) for _ in processes] == [20_000] * 8
    for process in processes:
        process.join()
    assert (hashes.value, reads.value) == (1, 1)
    assert len(stored(tmp_path)) == 1


def test_images_of_cocos_layout_without_a_caption_are_left_out_of_training(tmp_path, caplog):
    images = [{"id": number, "file_name": f"{number}.jpg"} for number in range(3)]
    annotations = [{"id": 7, "image_id": 1, "caption": "a cat"}]
    file = tmp_path / "captions.json"
    file.write_text(json.dumps({"images": images, "annotations": annotations}))
    with caplog.at_level(logging.WARNING, "blip.data"):
        kept = list(Annotations([file], caption.TRAIN))
    assert [record["image"] for record in kept] == ["1.jpg"]
    assert "2 of 3 records are left out, since their caption is empty" in caplog.text
    assert len(Annotations([file], caption.EVAL)) == 3
