"""CapFilt's run, killed at random moments and started again with other numbers of processes: the same bytes."""

import random
import signal
import sys
import time
from pathlib import Path

import pytest

from files import REPOSITORY
from tests.faults.runs import SEED, Started, finish, os, script
from tests.small_capfilt import command_line, pairs_of_web, score_files, write_checkpoints

KILLS = 20
TRACED = "tests/faults/traced_capfilt.py"
_draw = random.Random(f"{SEED} capfilt")


@pytest.fixture(scope="module")
def arguments(demo_folder, tmp_path_factory):
    """The command line of a run of 24 units, each of which takes a few hundredths of a second."""
    checkpoints = write_checkpoints(tmp_path_factory.mktemp("checkpoints"))
    keys = {"unit_size": 2, "batch_size": 1, "captions_per_image": 3, "print_freq": 1}
    return lambda output: command_line(output, checkpoints, pairs_of_web(demo_folder), **keys)


@pytest.fixture(scope="module")
def whole(arguments, demo_folder, tmp_path_factory) -> tuple[dict[str, str], dict[str, bytes]]:
    """The hashes of the scores of a run that nothing befell, and its other files."""
    folder = tmp_path_factory.mktemp("whole")
    finish(script("capfilt.py", *arguments(folder)), demo_folder)
    return score_files(folder), other_files(folder)


def other_files(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in ("capfilt.json", "unusable.json")}


def finished(folder: Path) -> dict[str, int]:
    """When each score file was written that is there."""
    return {path.name: path.stat().st_mtime_ns for path in (folder / "scores").glob("[!.]*.parquet")}


def begun(trace: Path, since: int = 0) -> list[str]:
    """The units that were begun, those before the `since`-th left out."""
    return trace.read_text().splitlines()[since:] if trace.exists() else []


def assert_whole(folder: Path, whole) -> None:
    assert score_files(folder) == whole[0], "with nothing half-written beside them"
    assert other_files(folder) == whole[1]


@pytest.mark.faults(
    "CapFilt's run of 1, 2 or 4 processes killed (`kill -9`) at a random moment, started again with 1, 2 or 4",
    "the same bytes; at most one unit a process is done again",
)
def test_twenty_kills(arguments, whole, demo_folder, tmp_path, record_property):
    killed = number = redone = 0
    while killed < KILLS:
        folder, trace, number = tmp_path / str(number), tmp_path / f"{number}.txt", number + 1
        while set(finished(folder)) != set(whole[0]) and killed < KILLS:
            processes, one = _draw.choice((1, 1, 2, 2, 4)), _draw.random() < 0.5
            before, earlier = finished(folder), len(begun(trace))
            run = Started(script(TRACED, *arguments(folder), processes=processes), demo_folder, TRACE=str(trace))
            run.wait_for(lambda trace=trace, earlier=earlier: begun(trace, earlier), 300)
            time.sleep(_draw.uniform(0, 0.3))
            if run.process.poll() is None:
                if one and processes > 1:
                    os.kill(run.rank(_draw.randrange(processes)), signal.SIGKILL)
                    run.end(120)
                else:
                    run.kill()
                killed += 1
            now, began = finished(folder), begun(trace, earlier)
            assert {name: now[name] for name in before} == before, "what was finished is not done again"
            lost = {f"{unit}.parquet" for unit in began} - set(now)
            assert len(began) == len(set(began)), "each unit is drawn once"
            assert len(lost) <= processes
            redone += len(lost)
            hashes = score_files(folder)
            assert {name: hashes[name] for name in now} == {name: whole[0][name] for name in now}
        finish(script("capfilt.py", *arguments(folder), processes=_draw.choice((1, 2, 4))), demo_folder)
        assert_whole(folder, whole)
    assert redone > 0, "no kill hit a unit of work: nothing was tried"
    record_property("tried", KILLS)


@pytest.mark.faults("one process of CapFilt's run killed under torchrun's `--max-restarts`", "the same bytes, status 0")
@pytest.mark.parametrize("rank", [0, 1])
def test_torchrun_starts_all_anew(arguments, whole, demo_folder, tmp_path, rank):
    folder, trace = tmp_path / "out", tmp_path / "trace.txt"
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "--max-restarts=1"]
    command = [sys.executable, *launcher, str(REPOSITORY / TRACED), *arguments(folder)]
    run = Started(command, demo_folder, TRACE=str(trace))
    run.wait_for(lambda: len(begun(trace)) > 4, 300)
    os.kill(run.rank(rank), signal.SIGKILL)
    status, printed = run.end(300)
    assert status == 0, printed
    assert_whole(folder, whole)
    assert len(whole[0]) <= len(begun(trace)) <= len(whole[0]) + 2


@pytest.mark.faults("four processes of CapFilt under torchrun", "the bytes of one")
def test_four_processes(arguments, whole, demo_folder, tmp_path):
    finish(script("capfilt.py", *arguments(tmp_path / "out"), processes=4), demo_folder)
    assert_whole(tmp_path / "out", whole)
