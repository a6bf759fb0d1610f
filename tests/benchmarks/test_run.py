"""The command that measures, as it runs on a GPU's machine: with the packages that are there, and tiny models here."""

import itertools
import json
import subprocess
import sys
from importlib.metadata import packages_distributions

import pytest
from packaging.utils import canonicalize_name

from benchmarks import run
from benchmarks.checks import CHECKS, Finding, run_check
from benchmarks.jobs import JOBS
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
    monkeypatch.setattr("benchmarks.run.time.monotonic", itertools.count(0, 10).__next__)
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

    jobs = (run.JOBS[0].__class__("first", "steps", broken), run.JOBS[0].__class__("second", "steps", missing))
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
