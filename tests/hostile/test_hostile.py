"""Whatever is thrown at an entry: a short message and a status, or a right result; nothing half-written, no hang.

`make test` throws a share of the cases, `make test-faults` all of them; `python -m tests.hostile` prints the table.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from files import REPOSITORY
from tests.hostile.harness import SECONDS, Case, Outcome, Table, faults_of, half_written, run_cases
from tests.hostile.home import ENTRIES, build_home, command_of
from tests.hostile.suite import MODULES, limited_machine, put_into, some_cases

_SHARE = 20  # of the cases of an entry and kind, how many for one that every test run throws
_BY_HAND = 120  # how many for one that is also called as a person would
_table = Table()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Path]:
    scratch = tmp_path_factory.mktemp("hostile")
    with limited_machine(scratch):
        yield build_home(scratch / "home")
    print("\n" + _table.markdown())
    if request.config.getoption("--write-counts", default=False):
        put_into(REPOSITORY / "docs" / "reliability.md", _table)


@pytest.mark.parametrize("name", MODULES)
def test_a_share_of_bad_input_ends_well(home, tmp_path, name):
    os.chdir(home)
    wrong = run_cases(some_cases(name, _SHARE), ENTRIES, home, tmp_path, _table)
    assert not wrong, "\n\n".join(wrong)


@pytest.mark.faults
@pytest.mark.parametrize("name", MODULES)
def test_all_bad_input_ends_well(home, tmp_path, name):
    os.chdir(home)
    wrong = run_cases(some_cases(name, 1), ENTRIES, home, tmp_path, _table)
    assert not wrong, "\n\n".join(wrong)


@pytest.mark.faults
@pytest.mark.parametrize("name", MODULES)
def test_bad_input_ends_the_same_in_a_process_of_its_own(home, tmp_path, name):
    """The exit status and what a person sees, where nothing is caught for a test."""
    os.chdir(home)
    wrong: list[str] = []
    for number, case in enumerate(some_cases(name, _BY_HAND)):
        if case.entry == "hubconf":
            continue  # no command
        folder = tmp_path / str(number)
        folder.mkdir()
        arguments = [str(argument) for argument in case.make(folder, np.random.default_rng(case.seed))]
        try:
            outcome = _called(case, arguments, home)
        except ValueError:  # no command line holds a NUL, or a surrogate that no byte stands for
            continue
        wrong += [f"{case}: {fault}" for fault in (*faults_of(case, outcome, folder), *half_written(folder))]
    assert not wrong, "\n\n".join(wrong)


def _called(case: Case, arguments: list[str], home: Path) -> Outcome:
    done = subprocess.run(
        [*command_of(case.entry), *arguments],
        cwd=home,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=4 * SECONDS,  # of which importing torch takes its part
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr, 0.0)


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        (lambda _: 1 / 0, "ZeroDivisionError"),
        (lambda _: sys.exit("\x1b[31mred"), "control characters"),
        (lambda _: sys.exit("\n" * 40 + "x"), "a message of"),
        (lambda _: sys.exit(3), "status 3"),
        (lambda _: sys.exit(1), "without a message"),
        (lambda _: sys.exit("something is wrong"), "names none"),
        (lambda _: 0, "accepted"),
        (lambda _: Path("out.txt").write_text("x") and sys.exit("the key"), "changed in the home"),
        (lambda _: Path("../case/.0a1b2c3d.out.txt").write_text("x") and sys.exit("the key"), "half-written"),
    ],
)
def test_the_harness_sees_what_ends_badly(tmp_path, monkeypatch, entry, fault):
    home, scratch = tmp_path / "home", tmp_path
    home.mkdir()
    (scratch / "case").mkdir()
    monkeypatch.chdir(home)
    monkeypatch.setattr("tests.hostile.harness.folder_of", lambda scratch, _: scratch / "case", raising=True)
    case = Case("entry", "kind", "name", lambda folder, _: [], "refused", ("the key",))
    wrong = run_cases([case], {"entry": entry}, home, scratch, Table())
    assert len(wrong) == 1
    assert fault in wrong[0]


def test_the_harness_lets_a_good_refusal_pass(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home").mkdir()
    case = Case("entry", "kind", "name", lambda folder, _: [], "refused", ("the key",))
    table = Table()
    refuse = {"entry": lambda _: sys.exit("config.yaml line 3: the key is wrong")}
    assert run_cases([case], refuse, tmp_path / "home", tmp_path / "cases", table) == []
    assert "| `entry` | kind | 1 | 1 | 0 | 0 |" in table.markdown()
