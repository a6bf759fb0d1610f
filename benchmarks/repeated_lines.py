"""How much of each script stands in another script too.

    python -m benchmarks.repeated_lines

For each script at the repository's root: its number of lines, and the share of its code lines that another of them has
as well. Imports, docstrings, comments and blank lines are no code lines, nor are lines of 25 characters or fewer, which
are alike by chance (`return metrics`), nor `if __name__ == "__main__":`. Indentation is ignored. The exit status
is 1 where a share is 25% or more.
"""

import ast
import io
import sys
import tokenize
from collections.abc import Mapping
from pathlib import Path
from typing import TypeGuard

from files import REPOSITORY

SCRIPTS = ("pretrain.py", "train_*.py", "eval_*.py", "predict.py")
LIMIT = 0.25  # from which share on a script repeats too much
IDIOM = 'if __name__ == "__main__":'
SHORT = 25  # characters: lines of so many or fewer do not count


def read_scripts(folder: Path = REPOSITORY) -> dict[str, str]:
    """The source of each script in `folder`, by its file name."""
    paths = sorted(path for pattern in SCRIPTS for path in folder.glob(pattern))
    return {path.name: path.read_text(encoding="utf-8") for path in paths}


def code_lines(source: str) -> list[str]:
    """The lines of a Python source that count, stripped of indentation and comments."""
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom) or _is_docstring(node):
            for row in range(node.lineno, (node.end_lineno or node.lineno) + 1):
                lines[row - 1] = ""
    return [line for line in map(str.strip, lines) if len(line) > SHORT and line != IDIOM]


def _is_docstring(node: ast.AST) -> TypeGuard[ast.Expr]:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def repeated_shares(sources: Mapping[str, str]) -> dict[str, float]:
    """For each source, by its name, the share of its code lines that stand in another one too."""
    lines = {name: code_lines(source) for name, source in sources.items()}
    shares = {}
    for name, own in lines.items():
        elsewhere = {line for other in lines if other != name for line in lines[other]}
        shares[name] = sum(line in elsewhere for line in own) / max(1, len(own))
    return shares


def main() -> None:
    sources = read_scripts()
    shares = repeated_shares(sources)
    for name, share in shares.items():
        print(
            f"{name:24} {len(sources[name].splitlines()):4} lines  {share:4.0%} of its code lines stand elsewhere too"
        )
    if max(shares.values()) >= LIMIT:
        sys.exit(1)


if __name__ == "__main__":
    main()
