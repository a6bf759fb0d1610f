"""The notebook runs as it stands, and shows what its cells print."""

import ast
import json
import re
import sys
from types import SimpleNamespace

import pytest

from files import REPOSITORY

FILE = REPOSITORY / "notebooks" / "tour.ipynb"
CELLS = [cell for cell in json.loads(FILE.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
SOURCES = ["".join(cell["source"]) for cell in CELLS]


def printed(cell: dict) -> str:
    return "".join("".join(output["text"]) for output in cell["outputs"] if output["output_type"] == "stream")


def words(text: str) -> list[str]:
    """What is printed, without the figures, whose last digits are another processor's."""
    return re.sub(r"-?[\d.]+%?", " ", text).split()


@pytest.mark.parametrize("source", SOURCES)
def test_every_cell_is_python(source):
    ast.parse(source)


def test_its_outputs_are_kept_and_small_and_tell_of_no_machine():
    assert FILE.stat().st_size < 500_000
    kinds = {output["output_type"] for cell in CELLS for output in cell["outputs"]}
    assert kinds == {"stream", "display_data"}  # no error
    assert not re.search(r"/(tmp|home|root|work)/", "".join(map(printed, CELLS)))
    assert [cell["execution_count"] for cell in CELLS] == list(range(1, len(CELLS) + 1))


def test_its_first_cell_chooses_the_models():
    assert SOURCES[0].startswith("RELEASED = False")
    assert [node.id for node in ast.walk(ast.parse("\n".join(SOURCES))) if getattr(node, "id", "") == "RELEASED"]


def test_it_runs_from_top_to_bottom_and_prints_what_it_shows(monkeypatch, capsys):
    shown: list[bytes] = []
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(Image=bytes, display=shown.append))
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.chdir(REPOSITORY / "notebooks")
    monkeypatch.setenv("BLIP_OFFLINE", "1")
    names: dict = {}
    for cell, source in zip(CELLS, SOURCES, strict=True):
        exec(compile(source, str(FILE), "exec"), names)
        said, shows = capsys.readouterr().out, len(shown)
        if "optimizer" not in source and "folder" not in source:  # what training gives is another processor's
            assert words(said) == words(printed(cell))
        assert shows == sum(output["output_type"] == "display_data" for output in cell["outputs"])
        shown.clear()
    assert names["loss"].item() < 2
    assert names["captioner"](names["pictures"])[0].startswith("heart in")  # in the style of its ten pictures
