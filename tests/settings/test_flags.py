"""A dataclass makes its command line, and is filled by it."""

import argparse
from dataclasses import dataclass
from pathlib import Path

import pytest

import data.shapes.__main__
import demo.__main__
import predict
from settings.flags import add_flags, at_least, flag, seed, values_of


@dataclass(frozen=True, kw_only=True)
class Options:
    images: list[str]
    question: list[str] = flag(..., "may be given several times", action="append")
    text: list[str] = flag([], "also these", action="append")
    number: int = flag(3, "of beams (default: %(default)s)", type=at_least(1))
    sample: bool = flag(False, "draw", action="store_true")
    out: Path | None = flag(None, "file to write", type=Path)
    made_later: str | None = None


def parsed(*arguments: str) -> Options:
    parser = argparse.ArgumentParser()
    parser.add_argument("images", nargs="+")
    parser.add_argument("--of_another", default=1)
    add_flags(parser, Options)
    return Options(**values_of(Options, parser.parse_args(arguments)))


def test_flags_fill_their_fields():
    options = parsed("a", "b", "--question", "x", "--question", "y", "--number", "5", "--sample", "--out", "c")
    assert options == Options(images=["a", "b"], question=["x", "y"], number=5, sample=True, out=Path("c"))


def test_the_defaults_of_the_command_line_are_those_of_the_dataclass():
    assert parsed("a", "--question", "x") == Options(images=["a"], question=["x"])


def test_a_list_is_not_shared_by_instances_or_command_lines():
    parsed("a", "--question", "x", "--text", "y")
    assert Options(images=[], question=[]).text == []
    Options(images=[], question=[]).text.append("z")
    assert Options(images=[], question=[]).text == []
    assert parsed("a", "--question", "x").text == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a"], "the following arguments are required: --question"),
        (["a", "--question", "x", "--number", "0"], "argument --number: 0 must be at least 1"),
        (["a", "--question", "x", "--number", "three"], "argument --number: invalid whole_number value: 'three'"),
        (["a", "--question", "x", "--made_later", "y"], "unrecognized arguments: --made_later y"),
    ],
)
def test_mistakes_are_named(arguments, message, capsys):
    with pytest.raises(SystemExit):
        parsed(*arguments)
    assert message in capsys.readouterr().err


def test_a_required_flag_is_a_required_argument_of_the_constructor():
    with pytest.raises(TypeError, match="question"):
        Options(images=[])


def test_a_seed_is_what_every_generator_takes():
    assert seed("0") == 0
    assert seed(str(2**63 - 1)) == 2**63 - 1
    for text in ("-1", str(2**63), str(2**70), "9" * 5000, "1.5", "nan", "x", ""):
        with pytest.raises(argparse.ArgumentTypeError, match=r"must be a whole number, 0 or more") as refused:
            seed(text)
        assert len(str(refused.value)) < 120


@pytest.mark.parametrize("number", ["-1", str(2**70)])
@pytest.mark.parametrize("tool", ["predict", "demo", "shapes"])
def test_every_tool_names_a_seed_out_of_range(tool, number, tmp_path, capsys, monkeypatch):
    main, arguments = {
        "predict": (predict.main, ["caption", "a.png", "--sample"]),
        "demo": (demo.__main__.main, ["--quick", "--folder", str(tmp_path)]),
        "shapes": (data.shapes.__main__.main, ["--out", str(tmp_path), "--images", "24"]),
    }[tool]
    monkeypatch.setattr("sys.argv", [tool, *arguments, f"--seed={number}"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert f"argument --seed: {number} must be a whole number, 0 or more" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())
