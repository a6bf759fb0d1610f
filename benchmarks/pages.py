"""Bring the tables of README.md and of pages in docs/ up to date with benchmarks/results.

    python -m benchmarks.pages

A table stands between two marks, `<!-- benchmarks: NAME -->` and `<!-- end of benchmarks: NAME -->`; what is between
them is replaced.
"""

import json
import re
from pathlib import Path

from benchmarks.measurement import RESULTS
from benchmarks.scale_tables import annotations, checkpoints, choice, readers, startup
from benchmarks.scaling_table import scaling
from benchmarks.speed_tables import checks, comparisons, deploy, goals, predict, summary
from benchmarks.tables import Results
from files import REPOSITORY, atomic_write

PAGES = ("README.md", "docs/performance.md", "docs/scaling.md", "docs/deploy.md")


def read_results(folder: Path = RESULTS) -> Results:
    """All results of a folder."""
    return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.json"))}


def page(text: str, results: Results) -> str:
    """The text of a page with its tables made anew.

    Raises:
        ValueError: a mark without its end, or a table that does not exist.
    """

    def made_anew(found: re.Match[str]) -> str:
        if found["name"] not in TABLES:
            raise ValueError(f"no table {found['name']!r}: there are {', '.join(TABLES)}")
        return f"{found['mark']}\n\n{TABLES[found['name']](results)}\n\n{found['end']}"

    marks = r"(?P<mark><!-- benchmarks: (?P<name>\w+) -->)\n.*?(?P<end><!-- end of benchmarks: (?P=name) -->)"
    replaced, count = re.subn(marks, made_anew, text, flags=re.DOTALL)
    if count != text.count("<!-- benchmarks: "):
        raise ValueError("a mark `<!-- benchmarks: NAME -->` has no end `<!-- end of benchmarks: NAME -->`")
    return replaced


_PARTS = (
    summary,
    comparisons,
    goals,
    checks,
    annotations,
    checkpoints,
    choice,
    scaling,
    startup,
    readers,
    deploy,
    predict,
)
TABLES = {part.__name__: part for part in _PARTS}


def main() -> None:
    results = read_results()
    for name in PAGES:
        path = REPOSITORY / name
        before = path.read_text(encoding="utf-8")
        after = page(before, results)
        if after != before:
            with atomic_write(path) as temporary:
                temporary.write_text(after, encoding="utf-8")
        print(f"{name}: {'as it was' if after == before else 'brought up to date'}")


if __name__ == "__main__":
    main()
