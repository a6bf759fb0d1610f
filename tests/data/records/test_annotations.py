"""Annotation files: read record by record, checked, and stored once whatever the number of processes."""

import json
import multiprocessing
import pickle

import pytest

import data.records.annotations
from data.records.annotations import AnnotationError, Annotations, records
from data.records.formats import Format, identifier, path, text, texts, truth

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
    monkeypatch.setattr(data.records.annotations, "_CHUNK", chunk)
    assert list(records(tmp_path / "a.json")) == wanted


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ('[{"a": 1}, {"a": oops}]', r"a.json, record 2: not valid JSON"),
        ('[{"a": 1}, {"a": 2', r"a.json, record 2: not valid JSON"),
        ('[{"a": 1}]\n[{"a": 2}]', r"a.json: more follows the closing \]"),
        ('[{"a": 1}, ', r"a.json ends after record 1 without the closing \]"),
        (b'[{"a": "\xff\xfe"}]', r"a.json, after record 0: not UTF-8"),
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


def test_a_pickled_copy_holds_no_records(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps([{"image": str(i), "caption": "x" * 100} for i in range(1000)]))
    annotations = Annotations([tmp_path / "a.json"], PAIR)
    pickled = pickle.dumps(annotations)
    assert len(pickled) < 1000
    assert pickle.loads(pickled)[999] == annotations[999]


def _open_and_count(arguments):
    file, barrier, reads = arguments
    read = data.records.annotations.records

    def counted(source):
        with reads.get_lock():
            reads.value += 1
        return read(source)

    data.records.annotations.records = counted
    barrier.wait()
    return len(Annotations([file], PAIR))


def _run(arguments, results):
    results.put(_open_and_count(arguments))


def test_of_eight_processes_that_start_at_once_one_reads_the_file(tmp_path):
    file = tmp_path / "a.json"
    file.write_text(json.dumps([{"image": str(i), "caption": "x"} for i in range(20_000)]))
    context = multiprocessing.get_context("fork")
    barrier, reads, results = context.Barrier(8), context.Value("i", 0), context.Queue()
    processes = [context.Process(target=_run, args=((file, barrier, reads), results)) for _ in range(8)]
    for process in processes:
        process.start()
    assert [results.get(timeout=60) for _ in processes] == [20_000] * 8
    for process in processes:
        process.join()
    assert reads.value == 1
    assert len(stored(tmp_path)) == 1
