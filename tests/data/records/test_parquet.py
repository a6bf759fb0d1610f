"""Parquet files in place of JSON lists and of tar shards: the same records and samples, and one line for each fault."""

import json
import os
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe
import pytest

import data.records.open_shards
from data.media.image_file import BadImage, open_image
from data.pretrain import PAIR
from data.records.annotations import AnnotationError, Annotations, records
from data.records.formats import Format, captions, identifier, path
from data.records.shards import Shards
from settings import ConfigError, UserError

LIST = Format("list", (path("image"), captions("caption"), identifier("image_id", required=False)), needed="caption")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BLIP_CACHE", str(tmp_path / "cache"))


def write(file, columns, **how):
    pq.write_table(pa.table(columns), file, **how)
    return file


def read(shards):
    return [(sample["image"].decode(), sample["caption"]) for sample in (shards[i] for i in range(len(shards)))]


# in place of a JSON list


@pytest.mark.parametrize(
    "names", [("image", "caption"), ("path", "TEXT"), ("file_name", "text"), ("IMAGE_PATH", "Captions")]
)
def test_a_list_reads_alike_from_json_and_parquet_whatever_the_usual_names(tmp_path, names):
    rows = [{"image": f"{n}.jpg", "caption": [f"text {n}", "another"], "image_id": n} for n in range(5)]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    columns = {names[0]: [row["image"] for row in rows], names[1]: [row["caption"] for row in rows]}
    file = write(tmp_path / "a.parquet", columns | {"image_id": range(5), "clip": [0.5] * 5}, row_group_size=2)
    assert list(Annotations([file], LIST)) == list(Annotations([tmp_path / "a.json"], LIST))


@pytest.mark.parametrize(
    "kind",
    [
        pa.string(),
        pa.large_string(),
        pa.dictionary(pa.int32(), pa.string()),
        pa.list_(pa.string()),
        pa.large_list(pa.large_string()),
        pa.list_(pa.string(), 1),
    ],
)
def test_captions_of_every_type_of_text_are_read(tmp_path, kind):
    texts = [["a cat"], ["a dog"]] if "list" in str(kind) else ["a cat", "a dog"]
    file = write(tmp_path / "a.parquet", {"url": ["http://x/1", "http://x/2"], "TEXT": pa.array(texts, kind)})
    assert Annotations([file], PAIR).values("caption") == [["a cat"], ["a dog"]]


def test_rows_whose_text_is_missing_are_left_out_and_counted_and_surrogates_are_no_error(tmp_path, caplog):
    file = write(tmp_path / "a.parquet", {"image": ["a", "b", "c"], "text": [None, "good", "!?"]})
    assert Annotations([file], PAIR).values("image") == ["b"]
    assert (
        f"2 of 3 records are left out, since their caption is empty or holds no word; the first is {file}, record 1"
        in (caplog.text)
    )


def test_bytes_that_are_no_utf8_are_marked(tmp_path):
    broken = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.py_buffer(np.array([0, 3, 8], np.int32).tobytes()), pa.py_buffer(b"a\xff\xffa cat")]
    )
    file = write(tmp_path / "a.parquet", {"image": ["a", "b"], "caption": broken})
    assert Annotations([file], PAIR).values("caption") == [["a\ufffd\ufffd"], ["a cat"]]


def test_every_column_comes_as_it_is_without_a_format(tmp_path):
    file = write(tmp_path / "a.parquet", {"n": [1, 2], "x": ["a", None]})
    assert list(records(file)) == [{"n": 1, "x": "a"}, {"n": 2}]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"image": ["a"], "title": ["x"]},
            r"no column of caption \(caption, captions, text, .*its columns: image, title",
        ),
        ({"picture_of": ["a"], "caption": ["x"]}, "no column of image or url .*its columns: picture_of, caption"),
        ({"image": ["a"], "caption": [5]}, "column caption is of type int64, expected text or lists of text"),
        ({"image": ["a"], "caption": [[["x"]]]}, r"column caption is of type list<.*list<.*expected text or lists"),
        ({"image": ["a"], "TEXT": [{"raw": "x"}]}, r"column TEXT is of type struct<raw: string>, expected text"),
        ({"image": [5], "caption": ["x"]}, "no column of image|column image is of type int64, expected text"),
        ({"image": [b"\xff\xd8"], "caption": ["x"]}, "column image holds the pictures themselves.*one of `shards`"),
        ({"jpg": [b"\xff\xd8"], "caption": ["x"]}, "column jpg holds the pictures themselves.*one of `shards`"),
        ({"image": ["a", None], "caption": ["x", "y"]}, r"record 2: has none of image, url \(its fields: caption\)"),
        ({"image": ["a"], "caption": [["x", None]]}, "record 1: 'caption' is a list .*expected a string or a list of"),
        ({"image": [""], "caption": ["x"]}, "record 1: 'image' is a string .*expected a string that is not empty"),
        ({"image": pa.nulls(2), "caption": ["x", "y"]}, "record 1: has none of image, url"),
    ],
)
def test_what_is_wrong_with_columns_and_rows_is_one_line_with_the_file(tmp_path, columns, message):
    file = write(tmp_path / "a.parquet", columns)
    with pytest.raises(AnnotationError, match=message) as error:
        Annotations([file], PAIR)
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)


def damage(file, kind):
    """Make `file` a Parquet file that is damaged in a way."""
    content = file.read_bytes()
    footer = int.from_bytes(content[-8:-4], "little")
    file.write_bytes(
        {
            "empty": b"",
            "cut": content[: len(content) // 2],
            "text": b"image,caption\na.jpg,a cat\n",
            "encrypted": b"PARE" + content[4:-4] + b"PARE",
            "footer": content[: -footer - 8] + os.urandom(footer) + content[-8:],
            "no footer": b"PAR1" + b"\xff\xff\xff\x7fPAR1",
            "short": b"PAR1",
            "pages": b"PAR1" + b"\xff" * (len(content) - footer - 12) + content[-footer - 8 :],
        }[kind]
    )


DAMAGES = {
    "empty": "is empty",
    "cut": "is cut off: a Parquet file ends in PAR1",
    "text": "is no Parquet file, of which the first bytes are PAR1",
    "encrypted": ": is encrypted: write it anew without encryption",
    "footer": r"cannot be read as Parquet \(",
    "no footer": r"cannot be read as Parquet \(",
    "short": r"cannot be read as Parquet \(",
    "pages": r"cannot be read as Parquet \(",
}


@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize("use", ["list", "shard"])
def test_a_damaged_file_is_one_line(tmp_path, kind, use):
    pictures = {"list": {"image": ["a", "b"]}, "shard": {"image": [b"a", b"b"]}}[use]
    file = write(tmp_path / "a.parquet", pictures | {"caption": ["a", "b"]})
    damage(file, kind)
    with pytest.raises(AnnotationError, match=DAMAGES[kind]) as error:
        Annotations([file], PAIR) if use == "list" else Shards([file])
    assert str(error.value).startswith(str(file))
    assert "\n" not in str(error.value)


class _Keys(pe.KmsClient):
    """Keeps keys in the file, in plain text."""

    def __init__(self, _):
        super().__init__()

    def wrap_key(self, key_bytes, _):
        return key_bytes.hex()


@pytest.mark.parametrize("plaintext_footer", [False, True])
@pytest.mark.parametrize("use", ["list", "shard"])
def test_an_encrypted_column_is_one_line(tmp_path, plaintext_footer, use):
    how = pe.EncryptionConfiguration(
        footer_key="a", column_keys={"b": ["image"]}, plaintext_footer=plaintext_footer, double_wrapping=False
    )
    keys = pe.CryptoFactory(_Keys).file_encryption_properties(pe.KmsConnectionConfig(), how)
    pictures = {"list": {"image": ["a"]}, "shard": {"image": [b"a"]}}[use]
    file = write(tmp_path / "a.parquet", pictures | {"caption": ["a"]}, encryption_properties=keys)
    with pytest.raises(AnnotationError, match=f"^{file}.*: is encrypted: write it anew without encryption$"):
        Annotations([file], PAIR) if use == "list" else Shards([file])


@pytest.mark.parametrize("kind", ["folder", "pipe", "missing"])
def test_what_is_no_file_is_refused_at_once(tmp_path, kind):
    file = tmp_path / "x.parquet"
    if kind == "folder":
        file.mkdir()
    elif kind == "pipe":
        os.mkfifo(file)
    message = {"folder": "a folder, not a file", "pipe": "a named pipe, not a file", "missing": "no such file"}[kind]
    with pytest.raises(UserError, match=message):
        Annotations([file], PAIR)
    if kind != "missing":
        with pytest.raises(UserError, match=message):
            Shards([file])


def test_columns_of_one_name_are_told(tmp_path):
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["x"]), pa.array(["y"])], ["image", "caption", "caption"])
    pq.write_table(table, tmp_path / "a.parquet")
    for format in (PAIR, None):
        with pytest.raises(
            AnnotationError, match="a.parquet has several columns 'caption'; its columns: image, caption"
        ):
            Annotations([tmp_path / "a.parquet"], format) if format else list(records(tmp_path / "a.parquet"))


def test_columns_of_pictures_of_one_name_are_told_and_others_passed_over(tmp_path):
    for names in ("jpg jpg caption n", "jpg n n caption"):
        table = pa.Table.from_arrays(
            [pa.array([b"1"]) if n != "caption" else pa.array(["x"]) for n in names.split()], names.split()
        )
        pq.write_table(table, tmp_path / "a.parquet")
        if names.startswith("jpg jpg"):
            with pytest.raises(AnnotationError, match="a.parquet has several columns 'jpg'"):
                Shards([tmp_path / "a.parquet"])
        else:
            assert len(Shards([tmp_path / "a.parquet"])) == 1


@pytest.mark.parametrize("groups", [0, 1])
def test_a_file_without_rows_holds_nothing(tmp_path, groups):
    for name, kind in (("image", pa.string()), ("jpg", pa.binary())):
        schema = pa.schema([(name, kind), ("caption", pa.string())])
        with pq.ParquetWriter(tmp_path / f"{name}.parquet", schema) as writer:
            for _ in range(groups):
                writer.write_table(schema.empty_table())
    assert len(Annotations([tmp_path / "image.parquet"], PAIR)) == 0
    assert len(Shards([tmp_path / "jpg.parquet"])) == 0


# with pictures, in place of a tar


def pictures(count, first=0):
    return {
        "jpg": [b"%d" % n for n in range(first, first + count)],
        "txt": [f"text {n}" for n in range(first, first + count)],
    }


def wanted(count):
    return [(str(n), [f"text {n}"]) for n in range(count)]


def test_pictures_and_captions_are_read_at_any_row_of_any_file(tmp_path):
    files = [
        write(tmp_path / "0.parquet", pictures(7), row_group_size=3),
        write(tmp_path / "1.parquet", pictures(0)),
        write(tmp_path / "2.parquet", pictures(4, first=7), row_group_size=2),
    ]
    shards = Shards(files)
    assert shards.sizes.tolist() == [3, 3, 1, 0, 2, 2]
    assert read(shards) == wanted(11)
    assert [read(shards)[row] for row in (10, 0, 5)] == [wanted(11)[row] for row in (10, 0, 5)]
    assert shards[7]["name"] == f"{files[2]}/row 1"
    assert read(pickle.loads(pickle.dumps(shards))) == wanted(11)


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
@pytest.mark.parametrize("is_struct", [False, True])
def test_pictures_of_every_type_of_bytes_are_read(tmp_path, kind, is_struct):
    column = pa.array([b"0", b"1"], kind)
    if is_struct:  # as Hugging Face's datasets have it
        column = pa.StructArray.from_arrays([column, pa.array(["a", "b"])], ["bytes", "path"])
    file = write(tmp_path / "a.parquet", {"image": column, "text": [["text 0"], ["text 1"]]})
    assert read(Shards([file])) == wanted(2)


@pytest.mark.parametrize("is_struct", [False, True])
@pytest.mark.parametrize("statistics", [False, True])
def test_what_is_left_out_is_counted_with_the_reason(tmp_path, caplog, is_struct, statistics):
    content = [b"0", None, b"2", b"3", b"4", b"5"]
    if is_struct:
        content = [{"bytes": one, "path": "a"} for one in content]
        content[1] = None
    texts = ["text 0", "text 1", None, "!", "", "x" * (2 << 20)]
    file = write(tmp_path / "a.parquet", {"image": content, "caption": texts}, write_statistics=statistics)
    assert read(Shards([file])) == wanted(1)
    assert f"{file}: 5 of 6 samples are left out: 2 whose caption is empty or holds no word" in caplog.text
    for reason in ("1 without a picture", "1 without a caption", "1 whose caption has over 1,048,576 characters"):
        assert reason in caplog.text


def test_without_a_column_of_texts_the_columns_that_are_there_are_told(tmp_path, caplog):
    file = write(tmp_path / "a.parquet", {"jpg": [b"0"], "title": ["x"]})
    assert len(Shards([file])) == 0
    assert "without a caption (no column of caption, captions, text, " in caplog.text
    assert "its columns: jpg, title)" in caplog.text


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image": ["a"], "caption": ["x"]}, r"holds no pictures, only their paths .*\(column image\).*`train_file`"),
        ({"url": ["a"], "caption": ["x"]}, r"holds no pictures, only their paths .*\(column url\)"),
        ({"a": [1], "caption": ["x"]}, "has no column of pictures .*its columns: a, caption"),
        ({"jpg": [b"1"], "caption": [7]}, "column caption is of type int64, expected text or lists of text"),
        ({"a": [b"1"], "b": [b"1"], "caption": ["x"]}, "has no column of pictures .*its columns: a, b, caption"),
    ],
)
def test_a_shard_of_other_columns_is_one_line(tmp_path, columns, message):
    with pytest.raises(AnnotationError, match=message):
        Shards([write(tmp_path / "a.parquet", columns)])


def test_bytes_that_are_no_picture_are_named_with_file_and_row(tmp_path):
    file = write(tmp_path / "a.parquet", pictures(12))
    sample = Shards([file])[11]
    with pytest.raises(BadImage, match=f"{file}/row 12: not a picture"):
        open_image(sample["image"], sample["name"])


def test_a_row_group_that_is_damaged_later_is_a_bad_image(tmp_path):
    file = write(tmp_path / "a.parquet", {"txt": ["text 0", "text 1"], "jpg": [b"0", b"1"]}, use_dictionary=False)
    place = pq.ParquetFile(file).metadata.row_group(0).column(1).data_page_offset
    content = file.read_bytes()
    file.write_bytes(content[:place] + b"\xff" * 20 + content[place + 20 :])
    shards = Shards([file])
    with pytest.raises(BadImage, match=rf"{file}/row 2: row group 1: cannot be read as Parquet \("):
        shards[1]


def test_row_groups_are_kept_within_their_limit_and_mixed_as_far_as_they_fit(tmp_path, monkeypatch):
    files = [write(tmp_path / f"{n}.parquet", {"jpg": [bytes(1000)] * 10, "txt": ["a"] * 10}) for n in range(4)]
    one = pq.ParquetFile(files[0]).metadata.row_group(0).column(0).total_uncompressed_size
    monkeypatch.setattr("data.records.shards.MOST_KEPT", 3 * one)
    assert Shards(files).window == 3
    monkeypatch.setattr("data.records.shards.MOST_KEPT", one - 1)
    with pytest.raises(ConfigError, match=r"0.parquet: row group 1 holds .*row_group_size=1000"):
        Shards(files)
    groups = data.records.open_shards._Groups()
    monkeypatch.setattr(data.records.open_shards, "MOST_KEPT", 25_000)
    for file in files:
        groups.get(data.records.open_shards.OpenParquet(str(file), "key"), 0)
        assert len(groups._kept) <= 2


def test_the_window_of_tars_is_unchanged_and_that_of_small_row_groups_wider(tmp_path):
    file = write(tmp_path / "a.parquet", pictures(10), row_group_size=1)
    assert Shards([file]).window == 256
    assert Shards([]).window == 16


def test_a_later_start_opens_no_file(tmp_path, monkeypatch):
    files = [write(tmp_path / f"{n}.parquet", pictures(2)) for n in range(3)]
    Shards(files)
    for name in ("shard_index", "part_bytes"):
        monkeypatch.setattr(f"data.records.shard_index.{name}", None)
    assert Shards(files).sizes.tolist() == [2, 2, 2]


def test_many_broken_files_end_with_the_line_of_one_and_no_traceback_of_a_process(tmp_path):
    files = [write(tmp_path / f"{n:02d}.parquet", pictures(1)) for n in range(10)]
    for file in files[3:]:
        damage(file, "cut")
    with pytest.raises(AnnotationError, match=r"^[^\n]*03.parquet is cut off: [^\n]*$"):
        Shards(files)
