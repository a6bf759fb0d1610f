"""The command that measures, as it runs on a GPU's machine: with the packages that are there, and tiny models here."""

import contextlib
import itertools
import json
import subprocess
import sys
import time
from importlib.metadata import packages_distributions

import pytest
from packaging.utils import canonicalize_name

from benchmarks import budget, measurement, run
from benchmarks.checks import CHECKS, Finding, run_check
from benchmarks.jobs import JOBS, Job
from benchmarks.session import Session
from files import REPOSITORY
from tests.test_optional_packages import brought_along

PRESENT = ["torch", "torchvision", "timm", "transformers", "safetensors", "tokenizers"]
STEPS = ("pretrain_base", "retrieval_step", "caption_step", "vqa_step", "nlvr_step")
SLOW = "compiled"  # minutes of a C++ compiler; tests/engine/test_compile.py has the same on a CPU


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """What a run of all jobs with baselines that are not compiled wrote, and printed."""
    kept = brought_along(PRESENT)
    hidden = [
        module
        for module, distributions in packages_distributions().items()
        if kept.isdisjoint(map(canonicalize_name, distributions))
    ]
    assert {"ruamel", "pyarrow", "webdataset", "tensorboard"} <= set(hidden)
    out = tmp_path_factory.mktemp("results")
    checks = [check.__name__ for check in CHECKS if check.__name__ != SLOW]
    jobs = [job.name for job in JOBS if job.group != "compile" and job.name not in ("pretrain_large", "loader_384")]
    command = [sys.executable, REPOSITORY / "tests" / "hidden_packages.py", ",".join(hidden)]
    flags = ["--device=cpu", "--sizes=tiny", "--rounds=1", f"--out={out}", "--only", *checks, *jobs]
    done = subprocess.run(
        [*command, REPOSITORY / "benchmarks" / "run.py", *flags], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return {file.stem: json.loads(file.read_text()) for file in out.glob("*.json")}, done.stdout


def test_every_job_runs_with_a_gpu_machines_packages_alone(measured):
    results, printed = measured
    names = {name.removesuffix("-cpu-fp32").removesuffix("-cpu") for name in results}
    expected = {*STEPS, "rerank", "caption_beams", "caption_nucleus", "vqa_rank", "capfilt", "checks"}
    assert expected <= names
    assert {name for name in names - expected if not name.startswith("loader_224")} == set()
    assert "\nleft out: " not in printed


def test_ours_computes_less_than_the_textbook_way_and_the_same(measured):
    results, _ = measured
    for name in (*STEPS, "rerank", "caption_beams", "caption_nucleus", "vqa_rank"):
        result = results[f"{name}-cpu-fp32"]
        ours, textbook = result["ways"]["ours"], result["ways"]["textbook"]
        samples = result["samples"]
        assert ours["flops"] / samples["ours"] < textbook["flops"] / samples["textbook"], name
        assert max(result["largest_differences"]["textbook"].values()) < 1e-4, name
        assert result["machine"]["threads"] == 1
        assert result["commit"]
    assert results["retrieval_step-cpu-fp32"]["ways"]["ours"]["recomputed_flops"] > 0


def test_all_checks_pass(measured):
    results, printed = measured
    assert {name for name, found in results["checks-cpu"]["checks"].items() if found["passed"]} == {
        check.__name__ for check in CHECKS if check.__name__ != SLOW
    }
    assert printed.count("\npass  ") + printed.startswith("pass  ") == len(CHECKS) - 1


def test_without_time_every_job_is_named_as_left_out(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(run, "BEGAN", 0)
    monkeypatch.setattr("benchmarks.session.time.monotonic", itertools.count(10).__next__)
    with pytest.raises(SystemExit) as ended:
        run.main(["--sizes=tiny", "--budget=1", f"--out={tmp_path}", "--only", "nlvr_step", "resuming"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert "left out: check resuming: the budget is used up" in printed
    assert "left out: nlvr_step: the budget is used up" in printed
    assert list(tmp_path.iterdir()) == []


def test_a_job_that_fails_is_named_and_the_others_go_on(tmp_path, capsys, monkeypatch):
    def broken(_):
        raise RuntimeError("no kernel image")

    def missing(_):
        raise ModuleNotFoundError("No module named 'transformers'")

    jobs = (Job("first", "steps", broken), Job("second", "steps", missing))
    monkeypatch.setattr(run, "JOBS", jobs)
    with pytest.raises(SystemExit) as ended:
        run.main(["--sizes=tiny", f"--out={tmp_path}", "--only", "steps"])
    assert ended.value.code == 1
    printed = capsys.readouterr().out
    assert "FAILED: first: RuntimeError: no kernel image" in printed
    assert "left out: second: No module named 'transformers'" in printed


def test_a_check_that_raises_is_one_that_failed(capsys):
    assert run_check(lambda _: 1 / 0, run.Context(run.torch.device("cpu"), "fp32", True, REPOSITORY)) == Finding(
        False, "ZeroDivisionError: division by zero"
    )
    assert "Traceback" in capsys.readouterr().err


def session_of(tmp_path, monkeypatch, deadline=float("inf"), device="cpu"):
    """A session that has not measured the device's peak."""
    monkeypatch.setattr("benchmarks.session.matrix_product_rate", lambda *_: 1e12)
    context = run.Context(run.torch.device(device), "fp32", True, tmp_path)
    return Session(context, tmp_path, rounds=1, deadline=deadline)


def test_what_runs_when_the_budget_ends_is_ended_and_named(tmp_path, monkeypatch):
    def compiles(_):
        while True:
            with contextlib.suppress(Exception):  # as compilers do
                time.sleep(10)

    compiles.__name__ = "compiled"
    monkeypatch.setattr("benchmarks.session.CHECKS", (compiles,))
    began = time.monotonic()
    session = session_of(tmp_path, monkeypatch, began + 0.2)
    session.check({"compiled"})
    assert session.left_out == ["check compiled: the budget ended while it ran"]
    session.deadline = time.monotonic() + 0.2
    session.run(Job("endless", "compile", compiles))
    session.run(Job("next", "compile", compiles))
    assert session.left_out[1:] == ["endless: the budget ended while it ran", "next: the budget is used up"]
    assert time.monotonic() - began < 50
    assert session.failed == []
    assert session.summary() == 0


def test_the_budget_does_not_end_what_comes_after_it(monkeypatch):
    with budget.ends_at(time.monotonic() + 0.05):
        pass
    time.sleep(0.1)
    with pytest.raises(budget.BudgetEnded), budget.ends_at(time.monotonic() - 1):  # used up already
        time.sleep(5)
    monkeypatch.setattr(budget.signal, "setitimer", None)
    with budget.ends_at(float("inf")):  # asks for no signal
        pass


def test_checks_are_written_one_by_one_and_a_missing_package_is_named(tmp_path, monkeypatch):
    def right(_):
        return Finding(True, "as it should be")

    def lacks(_):
        raise ModuleNotFoundError("No module named 'triton'")

    monkeypatch.setattr("benchmarks.session.CHECKS", (right, lacks))
    session = session_of(tmp_path, monkeypatch)
    monkeypatch.setattr("benchmarks.session.save", lambda _, result: written.append(list(result["checks"])))
    written: list[list[str]] = []
    session.check({"right"})
    session.check({"lacks"})
    assert written == [["right"]]
    assert session.left_out == ["check lacks: No module named 'triton'"]
    assert session.failed == []


def test_a_gpu_that_does_nothing_more_after_an_error_does_not_end_the_run(tmp_path, monkeypatch):
    def fails(*_):
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(run.torch.cuda, "empty_cache", fails)
    session = session_of(tmp_path, monkeypatch, device="cuda")
    session.run(Job("first", "steps", fails))
    session.run(Job("second", "steps", fails))
    assert [failure.partition(":")[0] for failure in session.failed] == ["first", "second"]
    assert session.summary() == 1


def test_what_takes_minutes_or_needs_no_gpu_comes_last(tmp_path, monkeypatch):
    order: list[str] = []
    monkeypatch.setattr(Session, "__init__", lambda *_: None)
    monkeypatch.setattr(Session, "check", lambda _, names: order.extend(sorted(names)))
    monkeypatch.setattr(Session, "run", lambda _, job, jobs_left: order.append(f"{job.name} {jobs_left}"))
    monkeypatch.setattr(Session, "summary", lambda _: 0)
    with pytest.raises(SystemExit):
        run.main(["--device=cpu", "--sizes=tiny", f"--out={tmp_path}"])
    names = [entry.partition(" ")[0] for entry in order]
    jobs = [job.name for job in JOBS]
    assert names[:5] == sorted(check.__name__ for check in CHECKS if check.__name__ != SLOW)
    assert names[5:] == [*jobs[:-3], SLOW, "pretrain_base_compiled", "loader_224", "loader_384"]
    assert order[5] == f"{jobs[0]} {len(jobs)}"
    assert order[-1] == "loader_384 1"


def test_the_commit_of_all_results_is_that_of_the_start_though_they_change_the_tree(monkeypatch):
    answers = (subprocess.CompletedProcess(["git"], 0, stdout) for stdout in ("0123456789", "0123456789+"))
    monkeypatch.setattr(measurement.subprocess, "run", lambda *_, **__: next(answers))
    measurement.commit.cache_clear()
    assert [measurement.commit(), measurement.commit()] == ["0123456789", "0123456789"]
    measurement.commit.cache_clear()
