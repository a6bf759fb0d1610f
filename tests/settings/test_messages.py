"""What a program says can neither control the terminal nor flood it."""

import argparse

import pytest

from settings.flags import Parser
from settings.messages import message, printable, printable_lines


def test_control_characters_are_escaped_and_letters_of_all_scripts_are_kept():
    assert printable("a\x1b[31mb\r\x07\u202e") == "a\\x1b[31mb\\r\\x07\\u202e"
    assert printable("Käse 猫 a\u00a0b") == "Käse 猫 a\u00a0b"


def test_what_the_terminal_lacks_is_escaped():
    assert printable("猫\udcff", "ascii") == "\\u732b\\udcff"


def test_lines_and_columns_of_a_message_stay():
    assert printable_lines("a\tb\n\x1bc") == "a\tb\n\\x1bc"


def test_very_long_lines_keep_their_ends():
    path = "/" + "x/" * 3000
    text = message(f"first\nno file {path} is there")
    first, second = text.split("\n")
    assert first == "first"
    assert second.startswith("no file /x/x/")
    assert second.endswith("x/x/ is there")
    assert len(second) < 1100


def test_a_parser_quotes_arguments_so_that_they_control_nothing(capsys):
    parser = Parser()
    parser.add_subparsers(dest="task").add_parser("go").add_argument("--number", type=int)
    assert isinstance(parser, argparse.ArgumentParser)
    with pytest.raises(SystemExit) as exit:
        parser.parse_args(["go", "\x1b[31m", "9" * 5000])
    said = capsys.readouterr().err
    assert exit.value.code == 2
    assert "unrecognized arguments: \\x1b[31m 999" in said
    assert len(said) < 1500
