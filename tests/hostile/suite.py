"""All cases, the machine they run on, and the page that their counts go to."""

import importlib
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import torch

from tests.hostile.harness import Case, Table

_MEMORY = 12 * 2**30  # of addresses: what would fill the machine fails here
_BEGIN, _END = "<!-- counts of tests/hostile -->\n", "<!-- end of counts of tests/hostile -->\n"


MODULES = (
    "config_cases",
    "annotation_cases",
    "picture_cases",
    "shard_cases",
    "checkpoint_cases",
    "predict_cases",
    "tool_cases",
    "capfilt_cases",
)


def all_cases() -> list[Case]:
    """Every case; call it in the folder of `build_home`, whose files are made worse."""
    return [case for name in MODULES for case in some_cases(name, 1)]


def some_cases(module: str, share: int) -> list[Case]:
    """Of each entry and kind of a module's cases every `share`-th, and one at least."""
    counts: dict[tuple[str, str], int] = {}
    chosen: list[Case] = []
    for case in importlib.import_module(f"tests.hostile.{module}").cases():
        number = counts.get((case.entry, case.kind), 0)
        counts[case.entry, case.kind] = number + 1
        if number % share == 0:
            chosen.append(case)
    return chosen


@contextmanager
def limited_machine(scratch: Path) -> Iterator[None]:
    """No network, no Java, a cache of its own, one thread, and an end to memory."""
    environment = {"BLIP_CACHE": str(scratch / "cache"), "BLIP_OFFLINE": "1", "HF_HUB_OFFLINE": "1", "PATH": ""}
    before, threads, here = resource.getrlimit(resource.RLIMIT_AS), torch.get_num_threads(), os.getcwd()
    torch.set_num_threads(1)
    with mock.patch.dict(os.environ, environment):
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_AS, before)
            torch.set_num_threads(threads)
            os.chdir(here)


def put_into(page: Path, table: Table) -> None:
    """Replace the counts between the two marks of a page."""
    text = page.read_text(encoding="utf-8")
    start, end = text.index(_BEGIN) + len(_BEGIN), text.index(_END)
    page.write_text(text[:start] + "\n" + table.markdown() + "\n\n" + text[end:], encoding="utf-8")
