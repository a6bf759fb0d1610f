"""What `capfilt.py select` says of bad input: one line, status 1, and nothing is written."""

import errno
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bootstrapping.choice import select
from tests.bootstrapping.made_up import ABOUT, row, uid, write_run


def said(capsys: pytest.CaptureFixture, folder: Path, *keys: str) -> str:
    """The one line that a choice ends with."""
    assert select([str(folder), *keys]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("capfilt.py select: ")
    left = [file for file in (folder / "selected").rglob("*") if file.is_file()] if folder.is_dir() else []
    assert left == []
    return lines[0].removeprefix("capfilt.py select: ")


@pytest.fixture
def run(tmp_path) -> Path:
    return write_run(tmp_path / "run", {"a": [row(1), row(2)], "b": [row(3, text="long " * 500), row(4)]})


def test_a_folder_that_is_not_there(tmp_path, capsys):
    folder = tmp_path / "none"
    assert said(capsys, folder) == f"{folder}: no such folder; expected the output folder of capfilt.py"


def test_a_name_cannot_control_the_terminal(tmp_path, capsys):
    assert said(capsys, tmp_path / "a\x1b[31m").startswith(f"{tmp_path}/a\\x1b[31m: no such folder")


def test_a_file_for_a_folder(run, capsys):
    file = run / "capfilt.json"
    assert said(capsys, file) == f"{file}: no such folder; expected the output folder of capfilt.py"


def test_another_folder(tmp_path, capsys):
    assert said(capsys, tmp_path) == f"{tmp_path}: holds no capfilt.json; expected the output folder of capfilt.py"


@pytest.mark.parametrize("text", ["", "[]", "{", "\xff", "[" * 100_000])
def test_a_damaged_note_of_the_run(text, run, capsys):
    (run / "capfilt.json").write_text(text, encoding="latin-1")
    assert said(capsys, run) == f"{run}/capfilt.json: not what capfilt.py writes (a JSON object); is it damaged?"


def test_ctrl_c_leaves_nothing_half_written(run, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("bootstrapping.choice.statistics", interrupt)
    with pytest.raises(KeyboardInterrupt):  # which settings/interrupts.py makes one line of
        select([str(run), f"out={tmp_path / 'out'}"])
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []


def test_a_run_without_scores(tmp_path, capsys):
    run = write_run(tmp_path / "run", {})
    assert said(capsys, run) == f"{run}/scores: no scores (*.parquet); run capfilt.py --output_dir {run} first"


def test_scores_without_a_text(tmp_path, capsys):
    run = write_run(tmp_path / "run", {"a": [], "b": []})
    assert said(capsys, run) == f"{run}/scores: the scores hold no text, so there is nothing to choose"


def test_a_file_that_is_no_parquet(run, capsys):
    (run / "scores" / "c.parquet").write_text("scores")
    assert said(capsys, run).startswith(f"{run}/scores/c.parquet: cannot be read as Parquet (")


def test_a_folder_among_the_scores(run, capsys):
    (run / "scores" / "c.parquet").mkdir()
    assert said(capsys, run) == f"{run}/scores/c.parquet: a folder, not a file"


def test_a_pipe_among_the_scores(run, capsys):
    os.mkfifo(run / "scores" / "c.parquet")
    assert said(capsys, run) == f"{run}/scores/c.parquet: a named pipe, not a file"


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.99])
def test_a_truncated_file(share, run, capsys):
    file = run / "scores" / "b.parquet"
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    message = said(capsys, run)
    assert message.startswith(f"{file}: cannot be read as Parquet (")
    assert message.endswith("); delete it and run capfilt.py again, which makes it anew")


def test_a_damaged_byte_is_found_or_changes_nothing(run, tmp_path, capsys):
    def written() -> dict[str, bytes]:
        return {file.name: file.read_bytes() for file in (run / "selected").iterdir()}

    assert select([str(run), "gallery=0"]) == 0
    right = written()
    file = run / "scores" / "b.parquet"
    content = file.read_bytes()
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    found = 0
    for place in [94, *range(5, footer, 199), *range(footer, len(content), 997)]:  # 94: the kind of a page
        file.write_bytes(content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :])
        if select([str(run), "gallery=0"]):
            assert capsys.readouterr().err.startswith(f"capfilt.py select: {file}: ")
            found += 1
        else:  # a byte of a column that is not read, or of nothing
            assert written() == right
    assert found >= 3


def foreign(columns: dict[str, pa.Array], about: object) -> pa.Table:
    return pa.table(columns).replace_schema_metadata({b"capfilt": json.dumps(about).encode()})


GOOD = {
    "uid": pa.array([uid(7)]),
    "image": pa.array(["7.jpg"]),
    "source": pa.array(["web"]),
    "n": pa.array([0], pa.int32()),
    "text": pa.array(["a cat"]),
    "match": pa.array([0.5], pa.float32()),
    "cosine": pa.array([0.5], pa.float32()),
    "log_prob": pa.array([None], pa.float32()),
    "prompt": pa.array([None], pa.string()),
    "seed": pa.array([None], pa.int64()),
}
VERSION = {**ABOUT, "version": 1}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pa.table(GOOD), "no scores of capfilt.py; move it away"),
        (foreign(GOOD, 7), "no scores of capfilt.py; move it away"),
        (foreign(GOOD, {}), "no scores of capfilt.py; move it away"),
        (foreign(GOOD, {**ABOUT, "version": 2}), "scores of version 2; this code reads version 1"),
        (foreign(GOOD | {"match": pa.array([0.5])}, VERSION), "column match is double, expected float"),
        (
            foreign({k: v for k, v in GOOD.items() if k != "text"}, VERSION),
            "column text is missing, expected string",
        ),
        (foreign(GOOD | {"text": pa.array([None], pa.string())}, VERSION), "column text lacks values"),
        (foreign(GOOD | {"match": pa.array([None], pa.float32())}, VERSION), "column match lacks values"),
        (foreign(GOOD | {"uid": pa.array([None], pa.string())}, VERSION), "column uid lacks values"),
        (
            foreign(GOOD | {"source": pa.array(["Web"])}, VERSION),
            "column source holds other values than web and synthetic",
        ),
        (foreign(GOOD | {"uid": pa.array(["7"])}, VERSION), "uid '7' is not 32 hexadecimal digits"),
        (
            foreign(GOOD | {"uid": pa.array(["g" * 32])}, VERSION),
            f"uid '{'g' * 32}' is not 32 hexadecimal digits",
        ),
        (
            foreign(GOOD | {"uid": pa.array(["é" * 16])}, VERSION),
            f"uid '{'é' * 16}' is not 32 hexadecimal digits",
        ),
        (
            foreign(GOOD, {**VERSION, "filter": {"source": "c.pth", "sha256": "c" * 64}}),
            "its filter is another one than in a.parquet; scores of different models cannot be compared: move away the "
            "files of one of them",
        ),
    ],
)
def test_a_foreign_file(table, message, run, capsys):
    file = run / "scores" / "c.parquet"
    pq.write_table(table, file)
    assert said(capsys, run) == f"{file}: {message}"


def test_texts_that_are_not_utf_8(run, capsys):
    text = pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff\xfe"]).buffers())
    file = run / "scores" / "c.parquet"
    pq.write_table(foreign(GOOD | {"text": text}, VERSION), file)
    assert said(capsys, run).startswith(f"{file}: ")


def test_a_uid_of_two_images_in_two_files(tmp_path, capsys):
    run = write_run(tmp_path / "run", {"a": [row(1), row(2)], "b": [row(3), row(1, image="x.jpg", match=0)]})
    assert said(capsys, run) == (
        f"uid {uid(1)} is that of two images, 001.jpg ({run}/scores/a.parquet) and x.jpg ({run}/scores/b.parquet): "
        "give each image of the corpus a uid of its own and run capfilt.py again"
    )


def test_a_uid_of_two_images_that_follow_each_other(tmp_path, capsys):
    run = write_run(tmp_path / "run", {"a": [row(1), row(1, image="x.jpg")]})
    assert "is that of two images, 001.jpg (" in said(capsys, run)


def test_a_uid_of_two_images_in_one_file(tmp_path, capsys):
    run = write_run(tmp_path / "run", {"a": [row(1), row(2), row(1, image="x.jpg")]})
    assert "is that of two images, 001.jpg (" in said(capsys, run)


def test_a_uid_in_large_letters_is_the_same(tmp_path, capsys):
    run = write_run(tmp_path / "run", {"a": [row(1)], "b": [row(2, uid=uid(1).upper())]})
    assert f"uid {uid(1)} is that of two images" in said(capsys, run)


def test_units_of_two_runs(tmp_path, capsys):
    run = write_run(tmp_path / "run", {"list-000000": [row(1), row(2)], "list-000001": [row(2)]})
    assert said(capsys, run) == (
        f"image 002.jpg stands twice in the scores, in {run}/scores/list-000000.parquet and in "
        f"{run}/scores/list-000001.parquet: if a run with other settings wrote one of them, delete it"
    )


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["threshold=2"], "command line: threshold = 2.0: must be from 0 to 1"),
        (["threshold=.nan"], "threshold is nan, which is no number to work with"),
        (["threshold=high"], "command line: threshold is 'high' (text), expected a number or null"),
        (["keep=0"], "command line: keep = 0.0: must be above 0, at most 1"),
        (["keep=30"], "command line: keep = 30.0: must be above 0, at most 1"),
        (["cosine=-2"], "command line: cosine = -2.0: must be from -1 to 1"),
        (["threshold=0.5", "keep=0.5"], "threshold and keep: give one of them"),
        (["keep=0.5", "cosine=0.5"], "keep and cosine: give one of them"),
        (["threshold=1", "keep=0.5", "cosine=0.5"], "threshold and keep and cosine: give one of them"),
        (["by_source=true"], "command line: by_source = True: must be false without keep"),
        (["captions_per_image=0"], "command line: captions_per_image = 0: must be 1 or more"),
        (["captions_per_image=1.5"], "command line: captions_per_image is 1.5 (a number)"),
        (["gallery=-1"], "command line: gallery = -1: must be from 0 to 1000"),
        (["treshold=0.5"], "command line: unknown key 'treshold'; the nearest valid key is 'threshold'"),
        (["0.5"], "'0.5' is no override: write key=value"),
        (["truth=none.json"], "none.json: there is no such file"),
    ],
)
def test_impossible_keys(keys, message, run, capsys):
    assert message in said(capsys, run, *keys)


@pytest.mark.parametrize("out", ["scores", "scores/selected", "scores/../scores"])
def test_an_output_among_the_scores(out, run, capsys):
    assert said(capsys, run, f"out={run / out}") == f"out = {run / out}: must be outside of the scores"


def test_an_output_that_is_a_file(run, capsys):
    (run / "x").touch()
    assert str(run / "x") in said(capsys, run, f"out={run / 'x'}")


def test_an_output_without_permission(run, capsys, monkeypatch):
    def refused(path, *_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "mkdir", refused)  # to root, no folder would be
    assert said(capsys, run) == f"{run / 'selected'}: Permission denied; ask for the permission, or name another place"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_named(run, capsys, monkeypatch):
    opened = Path.open
    monkeypatch.setattr(
        Path, "open", lambda self, mode="r": opened(Path("/dev/full") if "both" in self.name else self, mode)
    )
    assert "both.json: No space left on device" in said(capsys, run)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ("{}", "expected a JSON object {uid: true | false | [true, false, ...]}"),
        ("[]", "expected a JSON object {uid: true | false | [true, false, ...]}"),
        ('{"1": true}', "uid '1' is not 32 hexadecimal digits"),
        (json.dumps({uid(1): 1}), f"'{uid(1)}' is 1; expected"),
        (json.dumps({uid(1): None}), f"'{uid(1)}' is None; expected"),
        (json.dumps({uid(1): [True, "x"]}), f"'{uid(1)}' is [True, 'x']; expected"),
        (json.dumps({uid(1): []}), "says nothing of any text"),
        (json.dumps({uid(1): True, uid(1).upper(): True}), f"uid {uid(1)} stands twice"),
        (f'{{"{uid(1)}": true, "{uid(1)}": false}}', f"uid {uid(1)} stands twice"),
        ('[["a", true]]', "expected a JSON object"),
        ("true", "expected a JSON object"),
        (json.dumps({"\ud800" * 8: True}), "is not 32 hexadecimal digits"),
        (json.dumps({uid(1): {"a": True}}), "; expected"),
    ],
)
def test_an_unusable_truth(text, message, run, tmp_path, capsys):
    truth = tmp_path / "truth.json"
    truth.write_text(text)
    found = said(capsys, run, f"truth={truth}")
    assert found.startswith(f"{truth}: ")
    assert message in found


def test_help_names_every_key(capsys):
    with pytest.raises(SystemExit) as ended:
        select(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for key in ("threshold", "keep", "by_source", "cosine", "captions_per_image", "out", "shards", "truth", "gallery"):
        assert f"\n  {key}: " in text
