"""Which checkpoint does which task of app.py."""

from collections.abc import Iterable

from models.weights.included import INCLUDED
from models.weights.released import find_released
from settings import ConfigError

OF_TASK = {"caption": "demo_caption", "vqa": "demo_vqa", "match": "demo_match"}
"""The tasks, as predict.py calls them, each with its model that comes along."""
_BY_RELEASED_TASK = {"caption": "caption", "vqa": "vqa", "retrieval": "match"}


def sources(named: Iterable[str]) -> dict[str, str]:
    """The checkpoint of each task: those that `--checkpoint` names, each `TASK=SOURCE` or a released name, and others.

    Raises:
        ConfigError: it is not known what one is for, or two are for the same task.
    """
    chosen: dict[str, str] = {}
    for text in named:
        task, source = _task_of(text)
        if task in chosen:
            raise ConfigError(f"--checkpoint {text}: {task} is to be done by {chosen[task]} already; name one of them")
        chosen[task] = source
    return OF_TASK | chosen


def _task_of(text: str) -> tuple[str, str]:
    task, equals, source = text.partition("=")
    if equals and task in OF_TASK:
        if not source:
            raise ConfigError(f"--checkpoint {text}: name a checkpoint after the '='")
        return task, source
    if (entry := find_released(text)) and entry.task in _BY_RELEASED_TASK:
        return _BY_RELEASED_TASK[entry.task], text
    known = {name: task for task, name in OF_TASK.items()}
    if text in known:
        return known[text], text
    raise ConfigError(f"--checkpoint {text}: say for which task it is, as in caption={text} ({', '.join(OF_TASK)})")


def comes_along(source: str) -> bool:
    """Whether it is one of the small models that know drawn shapes only."""
    return source in INCLUDED
