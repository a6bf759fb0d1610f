"""`capfilt.py select` writes the corpus' shards anew: pictures and other files as they were, with the kept texts."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from bootstrapping.choice import select
from data.records.shards import Shards
from tests.bootstrapping.made_up import scored


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BLIP_CACHE", str(tmp_path / "cache"))


def picture(number: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 6), (number, 0, 0)).save(file, "PNG")
    return file.getvalue()


def write_tar(file: Path, members: dict[str, bytes]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w") as tar:
        for number, (name, content) in enumerate(members.items()):
            member = tarfile.TarInfo(name)
            member.size, member.mtime, member.uname = len(content), 1_600_000_000 + number, "crawler"
            tar.addfile(member, io.BytesIO(content))


def members(file: Path) -> dict[str, bytes]:
    with tarfile.open(file) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}


TWO = [("web", "a web text", 0.6), ("synthetic", "a synthetic text", 0.9)]
ONE = [("web", "no", 0.1), ("synthetic", "yes: é", 0.8)]
NONE = [("web", "no", 0.1)]


@pytest.fixture
def tars(tmp_path) -> Path:
    folder = tmp_path / "crawl"
    write_tar(
        folder / "a" / "00000.tar",
        {
            "0.png": picture(0),
            "0.txt": b"old",
            "0.json": b'{"caption": "old", "uid": "%s", "url": "http://x/\\ud83d"}' % (b"7" * 32),
            "0.npy": b"numbers",
            "sub/1.5.PNG": picture(1),
            "2.txt": b"dropped",
            "2.png": picture(2),
            "3.json": b"{broken",
            "3.png": picture(3),
            "4.txt": b"no picture",
        },
    )
    write_tar(folder / "b" / "00000.tar", {"0.png": picture(4), "0.txt": b"nothing kept"})
    return folder


def test_tars_keep_their_names_and_files_and_get_the_kept_texts(tars, tmp_path):
    texts = {"a/00000.tar/0": TWO, "/sub/1": ONE, "/2": NONE, "/3": ONE, "b/00000.tar/0": NONE}
    run = scored(tmp_path / "run", [f"{tars}/*/00000.tar"], texts)
    assert select([str(run), "shards=true"]) == 0
    first, second = run / "selected" / "shards" / "a" / "00000.tar", run / "selected" / "shards" / "b" / "00000.tar"
    found = members(first)
    assert list(found) == [
        *("0.png", "0.npy", "0.txt", "0.json"),
        *("sub/1.5.PNG", "sub/1.5.txt", "sub/1.5.json"),
        *("3.png", "3.txt", "3.json"),
    ]
    assert [found["0.png"], found["sub/1.5.PNG"], found["3.png"]] == [picture(0), picture(1), picture(3)]
    assert found["0.npy"] == b"numbers"
    assert found["0.txt"] == b"a synthetic text"
    described = json.loads(found["0.json"])
    assert described == {"caption": ["a synthetic text", "a web text"], "uid": "7" * 32, "url": "http://x/\ud83d"}
    assert found["3.txt"] == "yes: é".encode()
    assert json.loads(found["3.json"]) == {"caption": ["yes: é"]}
    with tarfile.open(first) as tar:
        assert [(member.mtime, member.uname) for member in tar][:2] == [
            (1_600_000_000, "crawler"),
            (1_600_000_003, "crawler"),
        ]
    assert members(second) == {}
    shards = Shards([first, second])
    captions = [["a synthetic text", "a web text"], ["yes: é"], ["yes: é"]]
    assert [shards[row]["caption"] for row in range(len(shards))] == captions
    assert [shards[row]["image"] for row in range(3)] == [picture(0), picture(1), picture(3)]


def test_a_second_choice_writes_the_same_shards(tars, tmp_path):
    run = scored(tmp_path / "run", [f"{tars}/*/00000.tar"], {"a/00000.tar/0": TWO, "/3": ONE})
    for name in ("one", "two"):
        assert select([str(run), "shards=true", f"out={tmp_path / name}"]) == 0
    first, second = (tmp_path / name / "shards" / "a" / "00000.tar" for name in ("one", "two"))
    assert first.read_bytes() == second.read_bytes()


def test_a_cut_off_tar_gives_the_samples_before(tars, tmp_path):
    file = tars / "a" / "00000.tar"
    file.write_bytes(file.read_bytes()[:2200])  # inside the second member
    run = scored(tmp_path / "run", [str(file)], {"/0": TWO})
    assert select([str(run), "shards=true"]) == 0
    assert list(members(run / "selected" / "shards" / "00000.tar")) == ["0.png", "0.txt", "0.json"]


def test_a_shard_without_scores_is_left_out_with_a_warning(tars, tmp_path, caplog):
    run = scored(tmp_path / "run", [f"{tars}/*/00000.tar"], {"a/00000.tar/0": TWO})
    next((run / "scores").glob("b*.parquet")).unlink()
    assert select([str(run), "shards=true"]) == 0
    assert [file.parent.name for file in (run / "selected" / "shards").rglob("*.tar")] == ["a"]
    assert f"{tars}/b/00000.tar has no scores yet: it is left out" in caplog.messages


def test_the_corpus_is_never_overwritten(tars, tmp_path, capsys):
    shards = tmp_path / "out" / "shards"
    shards.parent.mkdir()
    tars.rename(shards)
    run = scored(tmp_path / "run", [f"{shards}/*/00000.tar"], {"a/00000.tar/0": TWO})
    before = (shards / "a" / "00000.tar").read_bytes()
    assert select([str(run), "shards=true", f"out={tmp_path / 'out'}"]) == 1
    error = capsys.readouterr().err
    assert f"out = {tmp_path / 'out'}: must be another folder, else {shards}/a/00000.tar of the corpus is lost" in error
    assert (shards / "a" / "00000.tar").read_bytes() == before
    assert not (tmp_path / "out" / "both.json").exists()


def test_shards_of_a_corpus_of_lists_are_one_line(tmp_path, capsys):
    Image.new("RGB", (8, 6)).save(tmp_path / "0.png")
    (tmp_path / "list.json").write_text('[{"image": "0.png", "caption": "old"}]')
    run = scored(tmp_path / "run", [str(tmp_path / "list.json")], {"0.png": TWO}, image_root=str(tmp_path))
    assert select([str(run), "shards=true"]) == 1
    assert "shards = True: must be false for a corpus of kind lists: pre-train on both.json" in capsys.readouterr().err


@pytest.fixture
def parquet(tmp_path) -> Path:
    file = tmp_path / "crawl" / "part.parquet"
    file.parent.mkdir()
    pictures = [{"bytes": picture(number), "path": f"{number}.png"} for number in range(5)]
    table = pa.table({"image": pictures, "text": list("abcde"), "width": pa.array(range(5), pa.int16())})
    pq.write_table(table.replace_schema_metadata({b"huggingface": b"{}", b"more": b"1"}), file, row_group_size=2)
    return file


@pytest.mark.parametrize("unit_size", [1, 3, 4096])
def test_parquet_keeps_its_columns_and_rows_that_have_texts(unit_size, parquet, tmp_path):
    texts = {"/row 2": TWO, "/row 3": NONE, "/row 5": ONE}
    run = scored(tmp_path / "run", [str(parquet)], texts, unit_size=unit_size)
    assert select([str(run), "shards=true"]) == 0
    written = run / "selected" / "shards" / "part.parquet"
    table = pq.read_table(written)
    assert table.column_names == ["image", "text", "width"]
    assert table["image"].to_pylist() == [{"bytes": picture(n), "path": f"{n}.png"} for n in (1, 4)]
    assert table["text"].to_pylist() == [["a synthetic text", "a web text"], ["yes: é"]]
    assert table["width"].to_pylist() == [1, 4]
    assert table.schema.metadata == {b"more": b"1"}
    shards = Shards([written])
    assert [shards[row]["caption"] for row in range(2)] == [["a synthetic text", "a web text"], ["yes: é"]]


def test_parquet_keeps_its_types_where_an_image_keeps_one_text(parquet, tmp_path):
    run = scored(tmp_path / "run", [str(parquet)], {"/row 2": TWO, "/row 5": ONE})
    assert select([str(run), "shards=true", "captions_per_image=1"]) == 0
    table = pq.read_table(run / "selected" / "shards" / "part.parquet")
    assert table.schema.equals(pq.read_schema(parquet), check_metadata=True)
    assert table["text"].to_pylist() == ["a synthetic text", "yes: é"]


def test_parquet_of_pictures_alone_gets_a_column_of_captions(tmp_path):
    file = tmp_path / "crawl.parquet"
    pq.write_table(pa.table({"jpg": [picture(0), picture(1)]}), file)
    run = scored(tmp_path / "run", [str(file)], {"/row 1": TWO})
    assert select([str(run), "shards=true"]) == 0
    table = pq.read_table(run / "selected" / "shards" / "crawl.parquet")
    assert table.to_pylist() == [{"jpg": picture(0), "caption": ["a synthetic text", "a web text"]}]


def test_uids_are_those_of_the_corpus(tars, tmp_path):
    run = scored(tmp_path / "run", [f"{tars}/*/00000.tar"], {"a/00000.tar/0": TWO})
    assert select([str(run)]) == 0
    half = int("7" * 16, 16)
    assert np.load(run / "selected" / "uids.npy").tolist() == [(half, half)]
