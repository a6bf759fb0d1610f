"""A web corpus: the same images and texts from lists, shards, Parquet files and folders, in units any process reads."""

import io
import json
import multiprocessing
import os
import pickle
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from data.corpus.sources import CorpusData, open_corpus
from data.corpus.units import BadRecord, CorpusImage, unit_names
from data.media.image_file import BadImage
from data.records.pictures import downloaded_name
from data.records.uids import uid_of
from settings import ConfigError, UserError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BLIP_CACHE", str(tmp_path / "cache"))


def png(level):
    file = io.BytesIO()
    Image.new("L", (4, 4), level).save(file, "png")
    return file.getvalue()


TEXTS = [["a red cat", "a cat"], ["a dog"], [], ["a bird"], ["a cup"]]
UIDS = [f"{n:032x}" for n in range(5)]


def write_tar(file, members):
    file.parent.mkdir(exist_ok=True, parents=True)
    with tarfile.open(file, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return file


def write_corpus(folder, kind):
    """The images 0..4, with TEXTS and UIDS, as a corpus of this kind; returns the arguments of open_corpus."""
    images = folder / "images"
    images.mkdir(exist_ok=True)
    for n in range(5):
        (images / f"{n}.png").write_bytes(png(10 * n))
    fields = [{"caption": texts, "uid": uid} for texts, uid in zip(TEXTS, UIDS, strict=True)]
    if kind == "list":
        flat = [{"image": f"{n}.png", "uid": UIDS[n], "caption": text} for n in (0, 1, 3, 4) for text in TEXTS[n][:1]]
        flat += [{"image": "0.png", "caption": "a cat"}]  # which has another record before
        flat[2:2] = [{"image": "2.png", "uid": UIDS[2]}]
        (folder / "a.json").write_text(json.dumps(flat))
        return {"sources": [str(folder / "a.json")], "image_root": str(images)}
    if kind == "paths":
        pq.write_table(
            pa.table({"path": [f"{n}.png" for n in range(5)], "TEXT": TEXTS, "uid": UIDS}), folder / "a.parquet"
        )
        return {"sources": [str(folder / "a.parquet")], "image_root": str(images)}
    if kind == "shards":
        for shard in range(3):
            members = [
                (f"{n}.{suffix}", content)
                for n in range(2 * shard, min(5, 2 * shard + 2))
                for suffix, content in (("png", png(10 * n)), ("json", json.dumps(fields[n]).encode()))
            ]
            write_tar(folder / f"{shard:05d}.tar", members)
        return {"sources": [str(folder / "{00000..00002}.tar")]}
    if kind == "parquet":
        columns = {"png": [png(10 * n) for n in range(5)], "captions": TEXTS, "uid": UIDS}
        pq.write_table(pa.table(columns), folder / "b.parquet", row_group_size=2)
        return {"sources": [str(folder / "*.parquet")]}
    for n, texts in enumerate(TEXTS):
        if texts:
            (images / f"{n}.txt").write_text(texts[0])
    return {"sources": [str(images)]}


KINDS = ["list", "paths", "shards", "parquet", "folder"]


def read(corpus):
    return [image for unit in corpus.units for image in corpus.read(unit)]


def level(image):
    return image.open().read().getpixel((0, 0))[0]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_holds_the_same_images_and_texts(tmp_path, kind):
    corpus = open_corpus(**write_corpus(tmp_path, kind), unit_size=2)
    images = read(corpus)
    assert [level(image) for image in images] == [0, 10, 20, 30, 40]
    if kind == "folder":
        assert [image.texts for image in images] == [tuple(texts[:1]) for texts in TEXTS]
        assert [image.uid for image in images] == [uid_of(f"{n}.png") for n in range(5)]
    else:
        assert [image.texts for image in images] == [tuple(texts) for texts in TEXTS]
        assert [image.uid for image in images] == UIDS
    assert [len(list(corpus.read(unit))) for unit in corpus.units] == [2, 2, 1]
    for image in images:  # found again by what lists call it
        assert corpus.open(image.image).read().getpixel((0, 0))[0] == level(image)


@pytest.mark.parametrize(
    ("kind", "units", "images"),
    [
        ("list", ["list-000000", "list-000001", "list-000002"], ["0.png", "1.png", "2.png", "3.png", "4.png"]),
        ("folder", ["folder-000000", "folder-000001", "folder-000002"], ["0.png", "1.png", "2.png", "3.png", "4.png"]),
        ("shards", ["00000", "00001", "00002"], [f"{n // 2:05d}.tar/{n}" for n in range(5)]),
        ("parquet", ["b-000000", "b-000001", "b-000002"], [f"b.parquet/row {n}" for n in range(1, 6)]),
    ],
)
def test_names_of_units_and_images_are_as_documented(tmp_path, kind, units, images):
    corpus = open_corpus(**write_corpus(tmp_path, kind), unit_size=2)
    assert [unit.name for unit in corpus.units] == units
    assert [image.image for image in read(corpus)] == images


def _read_in_another_process(pickled, results):
    corpus, number = pickle.loads(pickled)
    results.put([(image.uid, image.image, level(image)) for image in corpus.read(corpus.units[number])])


@pytest.mark.parametrize("kind", KINDS)
def test_a_unit_is_the_same_in_a_process_that_opened_nothing(tmp_path, kind):
    corpus = open_corpus(**write_corpus(tmp_path, kind), unit_size=2)
    wanted = [(image.uid, image.image, level(image)) for image in corpus.read(corpus.units[1])]
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    process = context.Process(target=_read_in_another_process, args=(pickle.dumps((corpus, 1)), results))
    process.start()
    assert results.get(timeout=60) == wanted
    process.join()


@pytest.mark.parametrize("kind", KINDS)
def test_the_identity_is_json_stays_and_tells_another_corpus(tmp_path, kind):
    arguments = write_corpus(tmp_path, kind)
    identity = open_corpus(**arguments).identity
    assert json.loads(json.dumps(identity)) == identity == open_corpus(**arguments).identity
    if kind == "list":
        (tmp_path / "a.json").write_text(json.dumps([{"image": "0.png", "caption": "another"}]))
    elif kind == "folder":
        (tmp_path / "images" / "5.png").write_bytes(png(1))
    elif kind == "shards":
        write_tar(tmp_path / "00002.tar", [("a.png", bytes(20_000)), ("a.txt", b"a")])
    else:
        pq.write_table(
            pa.table({"png" if kind == "parquet" else "path": [b"a" if kind == "parquet" else "a"]}),
            tmp_path / ("b.parquet" if kind == "parquet" else "a.parquet"),
        )
    assert open_corpus(**arguments).identity != identity


def test_all_records_of_an_image_are_one_and_uids_are_hashes_of_names_where_there_are_none(tmp_path):
    rows = [{"image": "b.jpg", "caption": "one"}, {"url": "http://x/a.jpg", "caption": ["two", "!"]}]
    rows += [{"image": "b.jpg", "caption": ["one", "three"], "prompt": "a photo of"}, {"image": "c.jpg", "caption": []}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    corpus = open_corpus([str(tmp_path / "a.jsonl")], image_root="/pictures", url_root="/downloads")
    assert read(corpus) == [
        CorpusImage(uid_of("b.jpg"), "b.jpg", "/pictures/b.jpg", ("one", "three"), "a photo of"),
        CorpusImage(
            uid_of("http://x/a.jpg"), "http://x/a.jpg", f"/downloads/{downloaded_name('http://x/a.jpg')}", ("two",)
        ),
        CorpusImage(uid_of("c.jpg"), "c.jpg", "/pictures/c.jpg"),
    ]
    assert uid_of("b.jpg") == "2fa05593ca38b6d4542ffc405e2e15f3"


def test_the_records_of_each_image_are_looked_for_once(tmp_path, monkeypatch):
    records = [{"image": f"{number % 3}.jpg", "caption": f"text {number}"} for number in range(7)]
    (tmp_path / "a.json").write_text(json.dumps(records))
    expected = [(f"{image}.jpg", tuple(f"text {n}" for n in range(image, 7, 3))) for image in range(3)]
    assert [(image.image, image.texts) for image in read(open_corpus([str(tmp_path / "a.json")]))] == expected
    monkeypatch.setattr("data.records.annotations.Annotations.factorize", lambda *_: pytest.fail("done again"))
    again = open_corpus([str(tmp_path / "a.json")], unit_size=2)
    assert [(image.image, image.texts) for image in read(pickle.loads(pickle.dumps(again)))] == expected


def test_addresses_need_the_folder_of_their_downloads(tmp_path):
    pq.write_table(pa.table({"URL": ["http://x/a.jpg"], "TEXT": ["a"]}), tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match="there are addresses, but no url_root"):
        open_corpus([str(tmp_path / "a.parquet")])
    (tmp_path / "a.json").write_text('[{"image": "a.jpg"}, {"image": "HTTPS://x/a.jpg"}]')
    with pytest.raises(ConfigError, match="there are addresses, but no url_root"):
        open_corpus([str(tmp_path / "a.json")])
    corpus = open_corpus([str(tmp_path / "a.json")], url_root="downloads", image_root="pictures")
    pictures = [image.picture for image in corpus.read(corpus.units[0])]
    assert pictures == ["pictures/a.jpg", f"downloads/{downloaded_name('HTTPS://x/a.jpg')}"]


def test_named_columns_are_read_and_a_missing_one_is_told_with_those_that_are_there(tmp_path):
    table = {"thumb": [png(1)], "jpg": [png(2)], "alt": ["a cat"], "text": ["no"], "n": [1]}
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    source = [str(tmp_path / "a.parquet")]
    (image,) = read(open_corpus(source, image_column="thumb", text_column="alt"))
    assert (level(image), image.texts) == (1, ("a cat",))
    with pytest.raises(UserError, match=r"no column 'alt_text'; its columns: thumb, jpg, alt, text, n"):
        open_corpus(source, text_column="alt_text")
    with pytest.raises(UserError, match="column n is of type int64, expected bytes of pictures, or paths"):
        open_corpus(source, image_column="n")


# what cannot be used


def test_a_damaged_shard_gives_the_samples_before_and_one_record_of_what_is_lost(tmp_path):
    arguments = write_corpus(tmp_path, "shards")
    file = tmp_path / "00000.tar"
    file.write_bytes(file.read_bytes()[:2600])
    (tmp_path / "00001.tar").write_bytes(b"\x1f\x8b" + bytes(100))
    (tmp_path / "00002.tar").write_bytes(b"")
    found = read(open_corpus(**arguments))
    assert [image.image for image in found if isinstance(image, CorpusImage)] == ["00000.tar/0"]
    assert [(bad.name, bad.reason.partition(";")[0]) for bad in found if isinstance(bad, BadRecord)] == [
        ("00000.tar", "unexpected end of data"),
        ("00001.tar", "it is compressed"),
        ("00002.tar", "empty file"),
    ]


def test_samples_without_a_picture_and_with_odd_uids_are_listed(tmp_path):
    members = [("a.png", png(1)), ("a.json", b'{"uid": 17}'), ("b.txt", b"no picture"), ("c.png", png(3))]
    members += [("d.png", png(4)), ("d.json", b'{"uid": "' + b"A" * 32 + b'", "caption": "!", "prompt": "a"}')]
    write_tar(tmp_path / "a.tar", [*members, ("c.json", b"{broken")])
    found = read(open_corpus([str(tmp_path / "a.tar")]))
    assert [(image.image, image.uid, image.prompt) for image in found if isinstance(image, CorpusImage)] == [
        ("a.tar/c", uid_of("a.tar/c"), None),
        ("a.tar/d", "A" * 32, "a"),
    ]
    assert [bad for bad in found if isinstance(bad, BadRecord)] == [
        BadRecord("a.tar/a", "its uid is '17', expected 32 hexadecimal digits"),
        BadRecord(
            "a.tar/b",
            "a sample without a picture (.jpg, .jpeg, .png, .webp, .gif, .bmp, .tif, .tiff), only with .txt",
        ),
    ]


def test_uids_of_bytes_are_read_and_those_of_other_types_named(tmp_path):
    for name, uids in (("a", [bytes(range(16))]), ("b", [17])):
        pq.write_table(pa.table({"jpg": [png(1)], "uid": uids}), tmp_path / f"{name}.parquet")
    (image,) = read(open_corpus([str(tmp_path / "a.parquet")]))
    assert image.uid == "000102030405060708090a0b0c0d0e0f"
    assert read(open_corpus([str(tmp_path / "b.parquet")])) == [
        BadRecord("b.parquet/row 1", "its uid is '17', expected 32 hexadecimal digits")
    ]


def test_rows_without_a_picture_are_listed(tmp_path):
    pq.write_table(pa.table({"jpg": [png(1), None], "text": ["a", "b"]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"image": ["a.jpg", None, None], "text": ["a", "b", "c"]}), tmp_path / "b.parquet")
    assert read(open_corpus([str(tmp_path / "a.parquet")]))[1] == BadRecord(
        "a.parquet/row 2", "a row without a picture"
    )
    listed = tmp_path / "b.parquet"
    assert read(open_corpus([str(listed)]))[1:] == [
        BadRecord(f"{listed}, record {n}", "has none of image, url") for n in (2, 3)
    ]


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".parquet"])
def test_a_wrong_record_of_a_list_is_listed_and_the_others_are_used(tmp_path, suffix):
    wrong = [
        {"image": "b.jpg", "caption": ["a", None]},
        {"image": "c.jpg", "caption": 5},
        {"image": "", "caption": "x"},
        {"image": ["d.jpg"]},
        [],
        {"image": "e.jpg", "uid": 7},
    ]
    good = [{"image": "a.jpg", "caption": "a cat", "problem": 7}, {"image": "b.jpg", "caption": "a bird"}]
    file = tmp_path / f"a{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.table({"image": ["a.jpg", "", "b.jpg"], "caption": ["a cat", "x", "a bird"]}), file)
        wrong = wrong[2:3]
    else:
        lines = [json.dumps(record) for record in (good[0], *wrong, good[1])]
        file.write_text(f"[{','.join(lines)}]" if suffix == ".json" else "\n".join(lines))
    found = read(open_corpus([str(file)]))
    assert [(image.image, image.texts) for image in found if isinstance(image, CorpusImage)] == [
        ("a.jpg", ("a cat",)),
        ("b.jpg", ("a bird",)),
    ]
    bad = [record for record in found if isinstance(record, BadRecord)]
    assert [record.name for record in bad] == [f"{file}, record {number}" for number in range(2, 2 + len(wrong))]
    assert "'image' is a string (\"\"), expected a string that is not empty" in [record.reason for record in bad]


def test_parquet_files_whose_texts_are_not_found_are_named(tmp_path, caplog):
    pq.write_table(pa.table({"img": [png(1)], "alt": ["a cat"]}), tmp_path / "a.parquet")
    assert read(open_corpus([str(tmp_path / "a.parquet")], text_column="alt"))[0].texts == ("a cat",)
    assert not caplog.text
    assert read(open_corpus([str(tmp_path / "a.parquet")]))[0].texts == ()
    assert "text_column may name one; its columns: img, alt" in caplog.text


def test_texts_beside_pictures_may_be_in_utf_16(tmp_path, caplog):
    for name, content in {"a": "\ufeffa caf\xe9".encode("utf-16-le"), "b": b"\xef\xbb\xbfa cat", "c": b"a\0b"}.items():
        (tmp_path / f"{name}.png").write_bytes(png(1))
        (tmp_path / f"{name}.txt").write_bytes(content)
    found = [image.texts for image in read(open_corpus([str(tmp_path)]))]
    assert found == [("a caf\xe9",), ("a cat",), ()]
    assert "c.txt is not used as a text: it is no text in UTF-8" in caplog.text


def test_the_rest_of_a_damaged_row_group_is_listed_and_the_next_is_read(tmp_path):
    columns = {"text": [f"text {n}" for n in range(6)], "jpg": [png(n) for n in range(6)]}
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table(columns), file, row_group_size=3, use_dictionary=False)
    place = pq.ParquetFile(file).metadata.row_group(0).column(1).data_page_offset
    content = file.read_bytes()
    file.write_bytes(content[:place] + b"\xff" * 20 + content[place + 20 :])
    *bad, a, b, c = read(open_corpus([str(file)]))
    assert [level(image) for image in (a, b, c)] == [3, 4, 5]
    assert [record.name for record in bad] == ["a.parquet/row 1", "a.parquet/row 2", "a.parquet/row 3"]
    assert "cannot be read as Parquet" in bad[0].reason
    assert bad[0].reason.endswith("it and the rows after it in the row group are not used")


def test_a_picture_that_is_none_is_named_by_its_row(tmp_path):
    pq.write_table(pa.table({"jpg": [png(1), b"<html>"], "text": ["a", "b"]}), tmp_path / "a.parquet")
    with pytest.raises(BadImage, match=r"^a.parquet/row 2: not a picture$"):
        read(open_corpus([str(tmp_path / "a.parquet")]))[1].open()


@pytest.mark.parametrize("kind", ["paths", "parquet", "shards"])
def test_two_images_with_one_uid_end_the_reading_with_both_places(tmp_path, kind):
    arguments = write_corpus(tmp_path, kind)
    if kind == "paths":
        pq.write_table(pa.table({"path": ["a", "b"], "uid": [UIDS[0]] * 2}), tmp_path / "a.parquet")
    elif kind == "parquet":
        pq.write_table(pa.table({"png": [png(1)] * 2, "uid": [UIDS[0]] * 2}), tmp_path / "b.parquet")
    else:
        meta = json.dumps({"uid": UIDS[0]}).encode()
        members = [
            (f"{key}.{suffix}", content) for key in "ab" for suffix, content in (("png", png(1)), ("json", meta))
        ]
        write_tar(tmp_path / "00000.tar", members)
    first, second = {
        "paths": "ab",
        "parquet": ("b.parquet/row 1", "b.parquet/row 2"),
        "shards": ("00000.tar/a", "00000.tar/b"),
    }[kind]
    with pytest.raises(UserError, match=f"^{second} has the uid {UIDS[0]} of {first}: scores are kept by uid"):
        read(open_corpus(**arguments))


def test_several_uids_of_one_image_are_named_by_record(tmp_path):
    rows = [{"image": "a", "uid": UIDS[0]}, {"image": "a"}, {"image": "a", "uid": UIDS[1]}]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    (bad,) = read(open_corpus([str(tmp_path / "a.json")]))
    assert bad.reason.startswith("it has several uids: ")
    assert f"a.json, record 1 says '{UIDS[0]}'" in bad.reason
    assert f"a.json, record 3 '{UIDS[1]}'" in bad.reason


def test_shards_of_one_name_in_several_folders_are_told_apart(tmp_path):
    for folder in "ab":
        write_tar(tmp_path / folder / "00000.tar", [("0.png", png(1)), ("0.txt", b"a")])
    corpus = open_corpus([str(tmp_path / "*" / "00000.tar")])
    assert [unit.name for unit in corpus.units] == ["a_00000", "b_00000"]
    images = read(corpus)
    assert [image.image for image in images] == ["a/00000.tar/0", "b/00000.tar/0"]
    assert images[0].uid != images[1].uid
    assert corpus.image_root == str(tmp_path)


def test_names_of_units_are_distinct_and_fit_every_file_system():
    assert unit_names(["x/0.tar", "x/1.tar"]) == ["0", "1"]
    assert unit_names(["x/part.0.parquet", "x/part.1.parquet"]) == ["x_part_0", "x_part_1"]
    for names in (
        ["a/b.tar", "a_b.tar"],
        ["A.tar", "a.tar"],
        ["x" * 300 + "1.tar", "x" * 300 + "2.tar"],
        ["ä.tar", "ö.tar"],
    ):
        units = unit_names(names)
        assert len({unit.lower() for unit in units}) == len(names)
        assert all(unit.isascii() and len(unit) < 100 for unit in units)


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        (["a.json", "00000.tar"], r"lists \(a.json\), shards \(.tar\) \(00000.tar\) in one corpus"),
        (["a.parquet", "b.parquet"], r"lists \(a.parquet\), Parquet files with pictures \(b.parquet\) in one corpus"),
        (["a.json", "./a.json"], "a.json is named twice, also as a.json"),
        (["images", "cache"], "2 folders of pictures: name one that holds them all"),
        (["a.txt"], "a.txt is none of .json, .jsonl, .parquet, .tar, and no folder"),
        (["a.tar.gz"], "a.tar.gz is none of .*; unpack it"),
        (["none.json"], "^corpus: file none.json does not exist"),
        (["none{0..3}.tar"], "no file none0.tar"),
        (["none*.parquet"], r"no file none\*.parquet"),
        (["empty.json"], "there is no record in empty.json"),
        (["fields.json"], "fields.json, record 1, and all others: has none of image, url"),
        (["empty.parquet"], "there is no row in empty.parquet"),
        (["x.parquet"], "x.parquet: a folder, not a file"),
    ],
)
def test_sources_that_make_no_corpus_are_one_line(tmp_path, monkeypatch, sources, message):
    monkeypatch.chdir(tmp_path)
    for kind in KINDS:
        write_corpus(tmp_path, kind)
    for name in ("a.txt", "a.tar.gz"):
        (tmp_path / name).write_text("x")
    (tmp_path / "empty.json").write_text("[]")
    (tmp_path / "fields.json").write_text('[{"file": "a.jpg"}, {"file": "b.jpg"}]')
    pq.write_table(pa.table({"jpg": pa.array([], pa.binary())}), tmp_path / "empty.parquet")
    (tmp_path / "x.parquet").mkdir()
    (tmp_path / "cache").mkdir(exist_ok=True)
    with pytest.raises(UserError, match=message) as error:
        open_corpus(sources)
    assert "\n" not in str(error.value)


def test_files_without_rows_are_passed_over(tmp_path):
    arguments = write_corpus(tmp_path, "parquet")
    pq.write_table(pa.table({"jpg": [], "text": []}), tmp_path / "a.parquet")
    assert len(read(open_corpus(**arguments))) == 5


def test_image_root_is_for_lists_only(tmp_path):
    with pytest.raises(ConfigError, match=r"image_root = /x: must be empty for a folder of pictures"):
        open_corpus(**write_corpus(tmp_path, "folder"), image_root="/x")


def test_a_folder_names_what_cannot_be_listed_and_texts_that_cannot_be_used(tmp_path, caplog):
    images = tmp_path / "images"
    (images / "sub").mkdir(parents=True)
    for name in (b"a.png", b"sub/b.PNG", b"\xff.png"):
        with open(os.path.join(os.fsencode(images), name), "wb") as file:
            file.write(png(1))
    os.mkfifo(images / "a.txt")
    (images / "sub" / "b.txt").write_bytes(b"\xef\xbb\xbfa b\xffrd\n")
    found = read(open_corpus([str(images)]))
    assert [image.texts for image in found if isinstance(image, CorpusImage)] == [(), ("a b\ufffdrd\n",)]
    assert "a.txt is not used as a text: " in caplog.text
    assert [bad.reason for bad in found if isinstance(bad, BadRecord)] == [
        "its name is no UTF-8 text, which lists of images need"
    ]


def test_a_record_may_name_a_sample_of_a_shard(tmp_path):
    write_corpus(tmp_path, "shards")
    write_corpus(tmp_path, "parquet")
    rows = [{"image": "00001.tar/3"}, {"image": "b.parquet/row 2"}, {"image": "00001.tar/7"}, {"image": "none.tar/7"}]
    (tmp_path / "list.json").write_text(json.dumps(rows))
    corpus = open_corpus([str(tmp_path / "list.json")], image_root=str(tmp_path))
    found = read(corpus)
    assert [level(image) for image in found[:2]] == [30, 10]
    assert found[2] == BadRecord("00001.tar/7", f"{tmp_path}/00001.tar/7: the shard has no such sample with a picture")
    with pytest.raises(BadImage, match="No such file"):
        found[3].open()


def test_the_keys_of_a_config_open_a_corpus(tmp_path):
    arguments = write_corpus(tmp_path, "list")
    config = CorpusData(corpus=arguments["sources"], image_root=arguments["image_root"], unit_size=3)
    assert [unit.name for unit in config.open_corpus().units] == ["list-000000", "list-000001"]
    for wrong in ({"corpus": []}, {"corpus": [""]}, {"unit_size": 0}, {"max_bad_images": 2}, {"num_workers": -1}):
        with pytest.raises(ConfigError, match=f"{next(iter(wrong))} = "):
            CorpusData(**{"corpus": ["a.json"]} | wrong)
