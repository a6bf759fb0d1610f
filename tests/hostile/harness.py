"""Bad input, thrown at an entry (a script, a tool, a factory), and what must hold afterwards whatever it was.

A case writes files into a folder of its own and gives a command line. It is refused (status 1 or 2) or accepted
(status 0), and either way

- nothing but SystemExit leaves the entry, within 30 seconds,
- a refusal is a short message without a traceback that names what is wrong,
- no file is left half-written, and no input is changed,
- what is accepted is right, as far as the case can tell.
"""

import contextlib
import io
import os
import re
import signal
import sys
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

SECONDS = 30  # that a case may take
LINES, CHARACTERS = 15, 1500  # that a message may have, and one of its lines
_BUSY = 0.2  # seconds of work in that time, below which it is waiting
_HALF_WRITTEN = re.compile(r"\.[0-9a-f]{8}\..*|.*\.(part|tmp|incomplete)")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_USAGE = re.compile(r"usage: .*?(?=^[^\n]*: error: |\Z)", re.MULTILINE | re.DOTALL)  # argparse's

Arguments = Sequence[Any]


@dataclass(frozen=True)
class Outcome:
    """What an entry did."""

    status: int
    output: str
    message: str
    seconds: float
    error: str = ""  # the traceback of an exception that came out


@dataclass(frozen=True)
class Case:
    """One bad input.

    Attributes:
        entry: what it is thrown at: a key of `ENTRIES`.
        kind: the kind of input: 'override', 'annotations', 'picture', ...
        name: which one, in words; unique among those of its entry and kind.
        make: writes the case's files into its folder, which it is given with numbers of its own, and returns the
            command line.
        expected: what becomes of it, where that is sure.
        named: texts of which the message of a refusal holds at least one; any message will do if there is none.
        right: what is wrong with what was accepted, given the folder and the outcome; None or '' if nothing is.
    """

    entry: str
    kind: str
    name: str
    make: Callable[[Path, np.random.Generator], Arguments]
    expected: Literal["refused", "accepted", "either"] = "either"
    named: tuple[str, ...] = ()
    right: Callable[[Path, Outcome], str | None] | None = None

    @property
    def seed(self) -> int:
        return zlib.crc32(f"{self.entry}/{self.kind}/{self.name}".encode("utf-8", "surrogatepass"))

    def __str__(self) -> str:
        return f"{self.entry}, {self.kind}: {ascii(self.name)}"


class TooLong(BaseException):
    """A case that took more than its time."""


def run_entry(entry: Callable[[Arguments], Any], arguments: Arguments) -> Outcome:
    """Run an entry in this process, with its output and its exit status caught."""
    output, message, error = io.StringIO(), io.StringIO(), ""
    began, worked = time.monotonic(), [time.process_time()]

    def end(*_: object) -> None:
        """End what waits, and what has worked too long; other programs on the machine slow this one down."""
        worked.append(time.process_time())
        if worked[-1] - worked[-2] < _BUSY or worked[-1] - worked[0] > SECONDS:
            raise TooLong
        signal.alarm(SECONDS)

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(SECONDS)
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(message):
            status = entry(arguments) or 0
    except SystemExit as end_of_it:
        if isinstance(end_of_it.code, str):
            message.write(end_of_it.code + "\n")
        status = 1 if isinstance(end_of_it.code, str) else int(end_of_it.code or 0)
    except TooLong:
        status, error = -1, f"still running after {SECONDS} s"
    except BaseException:
        status, error = -1, traceback.format_exc(limit=-4)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    return Outcome(status, output.getvalue(), message.getvalue(), time.monotonic() - began, error)


def faults_of(case: Case, outcome: Outcome, folder: Path) -> Iterator[str]:
    """What is wrong with how a case ended."""
    said = _USAGE.sub("", outcome.message)
    if outcome.error:
        yield outcome.error
        return
    if outcome.status not in (0, 1, 2):
        yield f"status {outcome.status}"
    if "Traceback (most" in outcome.message + outcome.output:
        yield f"a traceback: {outcome.message[-1500:]}"
    if _CONTROL.search(said.replace("\x1b[A", "")):
        yield f"control characters reach the terminal: {ascii(said[-300:])}"
    if outcome.status:
        both = said + outcome.output
        lines = [line for line in said.splitlines() if not re.match(r"\d\d:\d\d:\d\d I ", line)]
        if not both.strip():
            yield f"status {outcome.status} without a message"
        if len(lines) > LINES or any(len(line) > CHARACTERS for line in lines):
            yield f"a message of {len(lines)} lines, {len(said):,} characters: {said[:300]!r}"
        paths = both.replace("//", "/")  # as pathlib writes an address that is taken for a path
        if case.named and not any(name.replace("//", "/") in paths for name in case.named):
            yield f"the message names none of {case.named}: {both[-600:]!r}"
        if case.expected == "accepted":
            yield f"refused: {both[-600:]}"
    else:
        if case.expected == "refused":
            yield f"accepted: {(outcome.message + outcome.output)[-300:]}"
        if case.right and (wrong := case.right(folder, outcome)):
            yield f"accepted, but {wrong}"


def half_written(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in _files(folder) if _HALF_WRITTEN.fullmatch(path.name)]


def contents(folder: Path) -> dict[str, Any]:
    """What is in a folder: each file's size, time and (for small ones) content."""
    found: dict[str, Any] = {}
    for path in _files(folder):
        status = path.lstat()
        small = path.is_file() and status.st_size < 1 << 20
        found[str(path)] = (status.st_size, status.st_mtime_ns, zlib.crc32(path.read_bytes()) if small else None)
    return found


def _files(folder: Path) -> Iterator[Path]:
    for parent, _, files in os.walk(folder):
        yield from (Path(parent, file) for file in files)


class Table:
    """Counts by entry and kind: cases, refused with a message, accepted and right, wrong."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, str], Counter[str]] = {}
        self.seconds = 0.0

    def add(self, case: Case, outcome: Outcome, faults: list[str]) -> None:
        verdict = "wrong" if faults else "refused" if outcome.status else "accepted"
        self.counts.setdefault((case.entry, case.kind), Counter())[verdict] += 1
        self.seconds += outcome.seconds

    def markdown(self) -> str:
        lines = [
            "| entry | input | cases | refused with a message | accepted, and right | wrong |",
            "| --- | --- | ---: | ---: | ---: | ---: |",
        ]
        total: Counter[str] = Counter()
        for (entry, kind), count in sorted(self.counts.items()):
            total += count
            lines.append(_row(f"`{entry}`", kind, count))
        return "\n".join([*lines, _row("all", "", total)])


def _row(entry: str, kind: str, count: Counter[str]) -> str:
    numbers = (sum(count.values()), count["refused"], count["accepted"], count["wrong"])
    return " | ".join(("| " + entry, kind, *(f"{number:,}" for number in numbers))) + " |"


def run_cases(
    cases: Iterable[Case],
    entries: dict[str, Callable[[Arguments], Any]],
    home: Path,
    scratch: Path,
    table: Table,
    tell: Callable[[str], None] = lambda _: None,
) -> list[str]:
    """Run cases in `home`; returns what is wrong, each with its case."""
    wrong: list[str] = []
    inputs = contents(home)
    for number, case in enumerate(cases):
        folder = folder_of(scratch, number)
        folder.mkdir(parents=True, exist_ok=True)
        os.chdir(home)
        sys_argv = sys.argv
        try:
            arguments = case.make(folder, np.random.default_rng(case.seed))
            made = {name: what for name, what in contents(folder).items() if not name.startswith(f"{folder / 'out'}")}
            sys.argv = [case.entry, *map(str, arguments)]
            outcome = run_entry(entries[case.entry], arguments)
        finally:
            sys.argv = sys_argv
        os.chdir(home)
        faults = list(faults_of(case, outcome, folder))
        faults += [f"left half-written: {name}" for name in (*half_written(folder), *half_written(home))]
        after = contents(folder)
        faults += [f"its input {name} is changed" for name, was in made.items() if after.get(name) != was]
        if (now := contents(home)) != inputs:
            faults.append(f"changed in the home: {sorted(str(x) for x in set(now.items()) ^ set(inputs.items()))[:3]}")
            inputs = now
        table.add(case, outcome, faults)
        if faults:
            shown = " ".join(ascii(str(argument)[:200])[1:-1] for argument in arguments)
            wrong.append(f"{case}\n  {case.entry} {shown}\n  " + "\n  ".join(faults))
            tell(wrong[-1])
        _remove(folder)
    return wrong


def folder_of(scratch: Path, number: int) -> Path:
    """Where a case writes its files."""
    return scratch / f"case{number}"


def _remove(folder: Path) -> None:
    for parent, folders, files in os.walk(folder, topdown=False):
        for name in files:
            os.unlink(os.path.join(parent, name))
        for name in folders:
            path = os.path.join(parent, name)
            os.unlink(path) if os.path.islink(path) else os.rmdir(path)
    folder.rmdir()
