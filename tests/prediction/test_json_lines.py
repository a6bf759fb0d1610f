"""JSON lines stay whole whatever ends a run, and a later run goes on with them."""

import io
import json
import os
from pathlib import Path

import pytest

from prediction.json_lines import JsonLines, finished
from prediction.writers import check_outputs, line_writer
from settings import UserError
from settings.messages import printable


def test_a_line_is_in_the_file_as_soon_as_it_is_written(tmp_path):
    out = tmp_path / "new" / "out.jsonl"
    with JsonLines(out, append=False) as lines:
        for count, name in enumerate(("a.jpg", "日本\n😀.jpg"), start=1):
            lines.write({"image": name, "caption": "x"})
            assert len(out.read_text("utf-8").splitlines()) == count
    assert [json.loads(line)["image"] for line in out.read_text("utf-8").splitlines()] == ["a.jpg", "日本\n😀.jpg"]


def test_what_a_file_held_stays_until_there_is_a_line(tmp_path):
    out = tmp_path / "out.jsonl"
    out.write_text("old")
    with JsonLines(out, append=False) as lines:
        assert out.read_text() == "old"
        lines.write({"image": "a.jpg"})
    assert out.read_text() == '{"image": "a.jpg"}\n'


def test_appending_goes_on_behind_the_last_whole_line(tmp_path):
    out = tmp_path / "out.jsonl"
    out.write_text('{"image": "a.jpg"}\n{"image": "b')
    assert finished(out, lambda _: True) == {"a.jpg"}
    with JsonLines(out, append=True) as lines:
        lines.write({"image": "b.jpg"})
    assert out.read_text() == '{"image": "a.jpg"}\n{"image": "b.jpg"}\n'
    assert finished(tmp_path / "absent.jsonl", lambda _: True) == set()


def test_a_name_that_is_no_utf_8_comes_back_from_the_file(tmp_path):
    name = os.fsdecode(b"latin1_\xe9.jpg")
    with JsonLines(tmp_path / "out.jsonl", append=False) as lines:
        lines.write({"image": name})
    assert (tmp_path / "out.jsonl").read_bytes() == b'{"image": "latin1_\\udce9.jpg"}\n'
    assert finished(tmp_path / "out.jsonl", lambda _: True) == {name}


@pytest.mark.parametrize(
    "line", ["[]", "no JSON", '{"caption": "a"}', '{"image": 3}', "null", "[" * 99_999, '{"image": "b"}']
)
def test_a_line_of_something_else_is_named_with_its_number(tmp_path, line):
    out = tmp_path / "out.jsonl"
    out.write_text(f'{{"image": "a.jpg", "caption": "x"}}\n\n{line}\n')
    with pytest.raises(UserError, match=r"out.jsonl, line 3: not written by this command with the same flags"):
        finished(out, lambda record: "caption" in record)


def test_a_file_of_another_encoding_is_not_gone_on_with(tmp_path):
    out = tmp_path / "out.jsonl"
    out.write_text('{"image": "a.jpg", "caption": "x"}\n', encoding="utf-16")
    with pytest.raises(UserError, match=r"out.jsonl, line 1: not written by this command"):
        finished(out, lambda record: "caption" in record)


def test_a_pipe_without_a_reader_is_not_waited_for(tmp_path):
    out = tmp_path / "pipe"
    os.mkfifo(out)
    with JsonLines(out, append=False) as lines, pytest.raises(UserError, match="pipe: .* nobody reads"):
        lines.write({"image": "a.jpg"})
    reader = os.open(out, os.O_RDONLY | os.O_NONBLOCK)
    with JsonLines(out, append=False) as lines:
        lines.write({"image": "a.jpg"})
        assert os.read(reader, 100) == b'{"image": "a.jpg"}\n'
    os.close(reader)


def test_a_full_disk_is_named_and_leaves_whole_lines(tmp_path, monkeypatch):
    class Full(io.FileIO):
        def write(self, data):
            if self.tell() + len(data) > 30:
                if self.tell() == 30:
                    raise OSError(28, "No space left on device")
                data = data[: 30 - self.tell()]
            return super().write(data)

    lines = JsonLines(tmp_path / "out.jsonl", append=False)
    with monkeypatch.context() as patched, lines:
        patched.setattr("prediction.json_lines.FileIO", Full)
        lines.write({"image": "a.jpg"})
        with pytest.raises(UserError, match=r"out.jsonl: cannot be written \(No space left on device\)"):
            lines.write({"image": "b.jpg"})
    assert (tmp_path / "out.jsonl").read_bytes() == b'{"image": "a.jpg"}\n'


def test_numbers_that_are_not_finite_are_no_json(tmp_path):
    lines = JsonLines(tmp_path / "out.jsonl", append=False)
    with lines, pytest.raises(UserError, match=r"a.jpg: the model gives numbers that are not finite"):
        lines.write({"image": "a.jpg", "log_prob": float("nan")})
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize(
    ("text", "encoding", "shown"),
    [
        ("日本 😀 a b.jpg", "utf-8", "日本 😀 a b.jpg"),
        ("日本 é.jpg", "ascii", "\\u65e5\\u672c \\xe9.jpg"),
        ("日é", "latin-1", "\\u65e5é"),
        ("a\nb\x1b[31m\x9b\u202e", "utf-8", "a\\nb\\x1b[31m\\x9b\\u202e"),
        (os.fsdecode(b"latin1_\xe9.jpg"), "utf-8", "latin1_\\udce9.jpg"),
        ("a", None, "a"),
    ],
)
def test_a_terminal_is_shown_escapes_for_what_it_would_obey_or_lacks(text, encoding, shown):
    assert printable(text, encoding) == shown


def test_lines_for_people_are_escaped(capsys):
    with line_writer(None, lambda record: [(record["image"], record["caption"])], append=False) as write:
        write({"image": "a\x1b[2J\n.jpg", "caption": "a dog"})
    assert capsys.readouterr().out == "a\\x1b[2J\\n.jpg\ta dog\n"


def test_an_output_that_is_an_input_under_any_name_is_refused(tmp_path):
    picture = tmp_path / "a.jpg"
    picture.write_bytes(b"picture")
    (tmp_path / "link.jsonl").symlink_to("a.jpg")
    (tmp_path / "hard.jsonl").hardlink_to(picture)
    (tmp_path / "folder").symlink_to(".")
    for name in ("a.jpg", "link.jsonl", "hard.jsonl", "folder/a.jpg", "../" + tmp_path.name + "/a.jpg", "no/../a.jpg"):
        with pytest.raises(UserError, match=rf"{name} would be written over .*a.jpg, which is read"):
            check_outputs([tmp_path / name], [tmp_path / "b.jpg", picture])
    check_outputs([tmp_path / "new" / "out.jsonl"], [picture])
    assert picture.read_bytes() == b"picture"
    assert not list((tmp_path / "new").iterdir())


def test_an_output_that_cannot_be_written_is_refused_at_once(tmp_path):
    (tmp_path / "file").touch()
    for out, reason in (
        (tmp_path, "Is a directory"),
        (tmp_path / "file" / "out.jsonl", "exists"),
        (tmp_path / ("a" * 300), "File name too long"),
        (tmp_path / "a\0b", "null"),
        (Path("/proc/out.jsonl"), ""),
    ):
        with pytest.raises(UserError, match=f"cannot be written .*{reason}"):
            check_outputs([out], [])
    check_outputs([Path("/dev/null")], [])
