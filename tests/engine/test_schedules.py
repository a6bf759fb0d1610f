"""Learning rates equal the recorded ones."""

import json

import pytest

from engine.schedules import cosine_lr, step_lr, warmup_lr


def test_schedules_equal_the_reference(golden):
    expected = json.loads(golden("lr_schedules/expected.json").read_text())
    for case in expected["cosine"]:
        values = [cosine_lr(e, case["max_epoch"], case["init_lr"], case["min_lr"]) for e in case["epochs"]]
        assert values == pytest.approx(case["lr"], rel=1e-12)
    for case in expected["warmup"]:
        values = [warmup_lr(s, case["max_step"], case["init_lr"], case["max_lr"]) for s in case["steps"]]
        assert values == pytest.approx(case["lr"], rel=1e-12)
    for case in expected["step"]:
        values = [step_lr(e, case["init_lr"], case["min_lr"], case["decay_rate"]) for e in case["epochs"]]
        assert values == pytest.approx(case["lr"], rel=1e-12)


def test_no_warm_up_starts_at_the_full_rate():
    assert warmup_lr(0, 0, 1e-6, 3e-4) == 3e-4
