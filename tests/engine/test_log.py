"""A resumed run draws its curves once, and in the same place."""

import json
import sys
import time
from types import SimpleNamespace

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from engine.log import EpochLog, Events, write_json
from settings import ConfigError


def test_steps_that_a_killed_run_repeats_are_drawn_once(tmp_path):
    config = {"tensorboard": True, "wandb": None}
    for steps_done, last in ((0, 5), (3, 6)):  # killed after step 5, resumed from a checkpoint of step 3
        events = Events(tmp_path, config, steps_done, is_first=True)
        for step in range(steps_done + 1, last + 1):
            events.write({"loss": steps_done + step / 10}, step)
        events.close()
        time.sleep(1)  # files are read in the order of their names, which begin with the second
    curves = EventAccumulator(str(tmp_path)).Reload()
    drawn = [(event.step, round(event.value, 3)) for event in curves.Scalars("loss")]
    assert drawn == [(1, 0.1), (2, 0.2), (3, 0.3), (4, 3.4), (5, 3.5), (6, 3.6)]


def test_weights_and_biases_goes_on_in_the_run_of_the_folder(tmp_path, monkeypatch):
    runs, logged = [], []
    axes = []
    run = SimpleNamespace(
        define_metric=lambda name, step_metric: axes.append((name, step_metric)),
        log=lambda values: logged.append((values["loss"], values["step"])),
        finish=lambda: logged.append("end"),
    )
    service = SimpleNamespace(init=lambda **arguments: runs.append(arguments) or run, Error=RuntimeError)
    monkeypatch.setitem(sys.modules, "wandb", service)
    config = {"tensorboard": False, "wandb": "my-project"}
    for steps_done in (0, 3, 0):  # a run, resumed; then another in the same folder
        events = Events(tmp_path, config, steps_done, is_first=True)
        events.write({"loss": 1.5}, steps_done + 1)
        events.close()
    Events(tmp_path, config, 0, is_first=False).write({"loss": 9.0}, 1)  # other processes say nothing
    assert logged == [(1.5, 1), "end", (1.5, 4), "end", (1.5, 1), "end"]
    assert axes == [("*", "step")] * 3
    first, resumed, other = (arguments["id"] for arguments in runs)
    assert first == resumed != other
    expected = {"project": "my-project", "name": tmp_path.name, "dir": tmp_path, "config": config, "resume": "allow"}
    assert runs[0] == expected | {"id": first}


def test_what_weights_and_biases_refuses_is_told(tmp_path, monkeypatch):
    def refuse(**_):
        raise RuntimeError("no API key configured")

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=refuse, Error=RuntimeError))
    with pytest.raises(ConfigError, match="wandb = 'my-project': no API key configured"):
        Events(tmp_path, {"tensorboard": False, "wandb": "my-project"}, 0, is_first=True)


def test_a_missing_weights_and_biases_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=r"wandb = 'my-project' needs a package: `pip install wandb`"):
        Events(tmp_path, {"tensorboard": False, "wandb": "my-project"}, 0, is_first=True)


def test_numbers_that_json_lacks_are_null_in_what_a_run_writes(tmp_path):
    values = {"epoch": 0, "loss": float("nan"), "figures": [float("inf"), 1.5], "name": "a", "pair": (1, -float("inf"))}
    EpochLog(tmp_path / "log.txt", 0).write(values)
    write_json(tmp_path / "evaluate.txt", values)
    for name in ("log.txt", "evaluate.txt"):
        content = json.loads((tmp_path / name).read_text(), parse_constant=pytest.fail)
        assert content == {"epoch": 0, "loss": None, "figures": [None, 1.5], "name": "a", "pair": [1, None]}
