"""Batches on their way to a GPU: which stream does what, in which order. No GPU is needed: a journal stands for it."""

import contextlib

import pytest
import torch
from torch import Tensor

from engine.transfer import Transfer


@pytest.fixture
def journal(monkeypatch):
    """What is asked of a GPU, in order: copies with their stream, events, waits, and memory that a stream uses."""
    entries, current = [], ["compute"]

    class Stream:
        def __init__(self, name):
            self.name = name

        def wait_event(self, event):
            entries.append(f"{self.name} waits for {event.copied}")

    class Event:
        def record(self, stream):
            self.copied = next(entry for entry in reversed(entries) if entry.startswith("copy")).split()[1]
            entries.append(f"{stream.name} has copied {self.copied}")

    @contextlib.contextmanager
    def inside(stream):
        current.append(stream.name)
        yield
        current.pop()

    def to(self, device, non_blocking):
        assert (device.type, non_blocking) == ("cuda", True)
        entries.append(f"copy {int(self)} on {current[-1]}")
        return self.clone()

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream("side"))
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "stream", inside)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream(current[-1]))
    monkeypatch.setattr(Tensor, "to", to)
    monkeypatch.setattr(Tensor, "record_stream", lambda self, stream: entries.append(f"{stream.name} uses {int(self)}"))
    return entries


def moved(number):
    return [f"copy {number} on side", f"side has copied {number}"]


def used(number):
    return [f"compute waits for {number}", f"compute uses {number}"]


def test_a_batch_is_copied_on_a_stream_of_its_own_for_which_the_computing_one_waits(journal):
    batch = Transfer(torch.device("cuda", 0)).move({"image": torch.tensor(7), "caption": ["a dog"]})
    assert journal == [*moved(7), *used(7)]
    assert (int(batch["image"]), batch["caption"]) == (7, ["a dog"])


def test_an_evaluation_copies_a_batch_while_the_one_before_it_is_worked_on(journal):
    for batch in Transfer(torch.device("cuda", 0)).ahead({"image": torch.tensor(number)} for number in (1, 2, 3)):
        journal.append(f"work on {int(batch['image'])}")
    assert journal == [
        *[*moved(1), *moved(2), *used(1), "work on 1"],
        *[*moved(3), *used(2), "work on 2"],
        *[*used(3), "work on 3"],
    ]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_elsewhere_nothing_is_read_ahead(count):
    read = []
    batches = ({"image": torch.tensor(read.append(number) or number)} for number in range(count))
    seen = [(int(batch["image"]), list(read)) for batch in Transfer(torch.device("cpu")).ahead(batches)]
    assert seen == [(number, list(range(number + 1))) for number in range(count)]
