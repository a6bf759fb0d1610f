"""The share of a script's code lines that stand in another script: counted rightly, and low."""

import pytest

from benchmarks import repeated_lines
from benchmarks.repeated_lines import LIMIT, code_lines, read_scripts, repeated_shares

SHARED = [f"value_of_both_{number} = compute_something({number})" for number in range(4)]


def own(name: str, count: int) -> list[str]:
    """Lines that only one script has."""
    return [f"value_of_{name}_{number} = compute_something({number})" for number in range(count)]


def test_imports_docstrings_comments_and_short_lines_are_no_code_lines():
    source = '''
"""A docstring of a module, which is as long as this."""

import a_module_with_a_long_name
from another_module import (
    a_function_with_a_long_name,
)

# a comment that stands alone on its line

def a_function_with_an_argument(argument):
    """A docstring of a function,

    with lines that are long enough.
    """
    short = argument + 1
    text = "# not a comment: it is a string"  # but this is a comment
    return short  # a short line stays short, comment or not

def a_function_without_a_body(argument): ...

if __name__ == "__main__":
    short()
'''
    assert code_lines(source) == [
        "def a_function_with_an_argument(argument):",
        'text = "# not a comment: it is a string"',
        "def a_function_without_a_body(argument): ...",
    ]


def test_a_line_counts_from_26_characters_on():
    assert code_lines("a = " + "1" * 21) == []
    assert code_lines("a = " + "1" * 22) == ["a = " + "1" * 22]


def test_shares_are_those_of_made_up_scripts():
    sources = {
        "half.py": "\n".join(SHARED + own("half", 4)),
        "fifth.py": "if True:  # indented, and with other comments\n"
        + "\n".join(f"    {line}  # here" for line in SHARED + own("fifth", 16)),
        "alone.py": "\n".join(own("alone", 5)),
        "empty.py": "",
    }
    assert repeated_shares(sources) == {"half.py": 0.5, "fifth.py": 0.2, "alone.py": 0.0, "empty.py": 0.0}


def test_a_line_that_one_script_repeats_itself_is_not_shared():
    assert repeated_shares({"a.py": "\n".join(SHARED * 2), "b.py": "\n".join(own("b", 2))})["a.py"] == 0.0


def test_the_command_prints_each_script_and_fails_from_the_limit_on(monkeypatch, capsys):
    sources = {"a.py": "\n".join(SHARED[:1] + own("a", 3)), "b.py": "\n".join(SHARED[:1] + own("b", 9))}
    monkeypatch.setattr(repeated_lines, "read_scripts", lambda: sources)
    with pytest.raises(SystemExit) as stopped:
        repeated_lines.main()
    assert stopped.value.code == 1
    first, second = capsys.readouterr().out.splitlines()
    assert first.split()[:4] == ["a.py", "4", "lines", "25%"]
    assert second.split()[:4] == ["b.py", "10", "lines", "10%"]

    sources["a.py"] += "\n" + "\n".join(own("more", 1))
    repeated_lines.main()


def test_no_script_repeats_a_quarter_of_its_code_lines():
    shares = repeated_shares(read_scripts())
    assert len(shares) == 8
    assert max(shares.values()) < LIMIT
