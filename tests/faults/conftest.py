"""Counts of the faults, which a run of all of them writes into docs/reliability.md."""

from collections.abc import Iterator

import pytest

from files import REPOSITORY

PAGE = REPOSITORY / "docs" / "reliability.md"
BEGIN, END = "<!-- counts: written by make test-faults -->\n", "<!-- end of counts -->\n"
COUNTS = pytest.StashKey[dict[tuple[str, str], list[int]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-counts", action="store_true", help="write the counts into docs/reliability.md")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[COUNTS] = {}


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Count a test, or the `tried` cases inside it, under what its mark says."""
    outcome = yield
    report = outcome.get_result()
    mark = item.get_closest_marker("faults")
    if mark is None or not (report.when == "call" or (report.when == "setup" and not report.passed)):
        return
    tried = dict(item.user_properties).get("tried", 1)
    counts = item.config.stash[COUNTS].setdefault(mark.args, [0, 0, 0])
    for place, happened in enumerate((report.passed, report.failed, report.skipped)):
        counts[place] += tried * happened


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    rows = {}
    for (fault, end), (passed, failed, skipped) in config.stash[COUNTS].items():
        tried = f"{passed + failed}" + (f" ({skipped} not possible there)" if skipped else "")
        rows[fault] = f"| {fault} | {end} | {tried} | {passed} |"
    terminalreporter.write_line("\n".join(rows.values()))
    if config.getoption("--write-counts"):
        write_counts(rows)


def write_counts(rows: dict[str, str]) -> None:
    """Write the rows of the faults that were tried; those of a part that was not run stay as they are."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    table, _, after = rest.partition(END)
    earlier = {line.split(" | ")[0][2:]: line for line in table.splitlines() if line.startswith("| ")}
    head = ["| fault | what then holds | tried | held |", "| --- | --- | --- | --- |"]
    body = {**{fault: line for fault, line in earlier.items() if line not in head}, **rows}
    PAGE.write_text(f"{before}{BEGIN}\n" + "\n".join([*head, *body.values()]) + f"\n\n{END}{after}", encoding="utf-8")


@pytest.fixture(scope="session")
def with_dropout(quick: list[str]) -> list[str]:
    """A small model whose steps draw random numbers, which a resumed run must draw again."""
    return [text.replace("dropout_prob: 0.0", "dropout_prob: 0.1") for text in quick]
