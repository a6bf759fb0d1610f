"""The number of loader processes that `num_workers: auto` comes to."""

import logging
import math
import os

import pytest

from data import workers
from data.config import CaptionData
from data.workers import automatic_workers, control_group_limit, processes_here, resolve_workers, usable_processors


@pytest.mark.parametrize(
    ("processors", "processes", "each"),
    [(1, 1, 1), (2, 1, 1), (8, 1, 7), (8, 8, 1), (4, 8, 1), (64, 8, 7), (96, 8, 11), (256, 1, 16)],
)
def test_each_process_has_workers_on_its_share_of_the_processors(processors, processes, each):
    assert automatic_workers(processors, processes) == each


@pytest.mark.parametrize(
    ("environ", "processes"),
    [
        ({}, 1),
        ({"RANK": "3", "WORLD_SIZE": "16", "LOCAL_WORLD_SIZE": "8"}, 8),
        ({"RANK": "0", "WORLD_SIZE": "1"}, 1),
        ({"SLURM_NTASKS": "8"}, 1),  # a batch script
        ({"SLURM_STEP_NUM_TASKS": "28", "SLURM_STEP_TASKS_PER_NODE": "8(x3),4"}, 8),
        ({"SLURM_STEP_NUM_TASKS": "20", "SLURM_STEP_TASKS_PER_NODE": "2(x10)"}, 2),
        ({"SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_TASKS_PER_NODE": "8", "SLURM_CPUS_PER_TASK": "12"}, 1),
    ],
)
def test_processes_are_those_that_share_the_processors(environ, processes):
    assert processes_here(environ) == processes


@pytest.mark.parametrize(
    ("own", "files", "limit"),
    [
        ("0::/", {"cpu.max": "250000 100000\n"}, 2.5),
        ("0::/", {"cpu.max": "max 100000\n"}, math.inf),
        ("0::/job/step", {"job/cpu.max": "400000 100000", "job/step/cpu.max": "max 100000"}, 4),
        ("0::/host/docker/1", {"cpu.max": "150000 100000"}, 1.5),  # the path is the host's
        ("9:memory:/a\n4:cpu,cpuacct:/a", {"cpu,cpuacct/a/cpu.cfs_quota_us": "50000"}, 0.5),
        ("4:cpu:/a\n0::/", {"cpu/a/cpu.cfs_quota_us": "-1"}, math.inf),
        ("4:cpuset:/a", {"cpuset/a/cpu.max": "100000 100000"}, math.inf),
        ("nonsense\n0::/", {"cpu.max": "damaged"}, math.inf),
    ],
)
def test_the_least_of_all_control_groups_limits_counts(tmp_path, own, files, limit):
    (tmp_path / "own").write_text(own)
    for name, content in files.items():
        file = tmp_path / "groups" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
        if "quota" in name:
            (file.parent / "cpu.cfs_period_us").write_text("100000")
    assert control_group_limit(tmp_path / "groups", tmp_path / "own") == limit
    assert control_group_limit(tmp_path / "groups", tmp_path / "missing") == math.inf


def test_a_limit_below_the_processors_that_may_be_used_counts(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(6)), raising=False)
    for limit, usable in ((math.inf, 6), (3.9, 3), (0.5, 1), (12.0, 6)):
        monkeypatch.setattr(workers, "control_group_limit", lambda *places, limit=limit: limit)
        assert usable_processors() == usable


def test_what_auto_comes_to_is_logged_once(monkeypatch, caplog):
    workers._automatic.cache_clear()
    monkeypatch.setattr(workers, "usable_processors", lambda: 12)
    monkeypatch.setattr(workers, "processes_here", lambda environ: 2)
    with caplog.at_level(logging.INFO, "blip.data"):
        assert [resolve_workers(wanted) for wanted in (0, 7, "auto", "auto")] == [0, 7, 5, 5]
        assert CaptionData().workers() == 5
    assert caplog.messages == ["num_workers: auto is 5 here: 12 processor(s), 2 process(es)"]
    workers._automatic.cache_clear()
