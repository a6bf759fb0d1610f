"""A NaN in one pixel of one sample: the run names the sample, and prints one command that does the step again."""

import json
import re

import pytest

from files import REPOSITORY
from tests.faults.runs import one_line_of, run, script
from tests.faults.test_signals import TRAININGS

PRETRAIN = ["--config", "configs/demo/pretrain.yaml", "queue_size=48", "batch_size=8"]
PRINTED = re.compile(r"^  (cd .+ && .+ --replay .+)$", re.MULTILINE)


@pytest.mark.faults("NaN in one pixel of one sample", "the sample named, the step replayed by the printed command")
@pytest.mark.parametrize(
    ("name", "processes", "options"),
    [
        ("pretrain", 1, []),
        ("pretrain", 2, ["queue_size=32"]),
        ("pretrain", 2, ["queue_size=32", "accumulation_steps=2"]),
        ("train_caption", 1, ["accumulation_steps=2"]),
        ("train_retrieval", 1, []),
        ("train_vqa", 2, []),
        ("train_nlvr", 1, ["precision=bf16"]),
    ],
)
def test_a_sample_that_is_not_finite(demo_folder, with_dropout, tmp_path, name, processes, options):
    settings = TRAININGS.get(f"{name}.py", PRETRAIN)
    world = demo_folder / "output/demo" / ("web" if name == "pretrain" else "world")
    records = json.loads((world / f"{name.removeprefix('train_')}{'_train' * (name != 'pretrain')}.json").read_text())
    record = records[len(records) // 2]
    picture = record["images"][1] if "images" in record else record["image"]
    driver = {"SCRIPT": name, "POISONED": f"/{picture.rpartition('/')[2]}"}
    arguments = [*settings, *with_dropout, "pretrained=", "max_epoch=1", "tensorboard=false", "num_workers=1", *options]
    command = script("tests/faults/poisoned.py", *arguments, "--output_dir", tmp_path, processes=processes)
    status, printed = run(command, demo_folder, **driver)
    assert status == 1
    assert picture in printed, printed
    assert re.search(
        r"poisoned.py( \(process \d\))?: step \d+: the loss or its gradient", one_line_of(printed, "poisoned.py")
    )
    (again,) = PRINTED.findall(printed.partition("ChildFailedError")[0])

    status, replayed = run(["/bin/sh", "-c", again], REPOSITORY, **driver)
    assert status == 1, replayed
    line = one_line_of(replayed, "poisoned.py")
    (step,) = re.findall(r"step (\d+): the loss or its gradient", printed.partition("ChildFailedError")[0])
    assert line == f"poisoned.py: step {step}, replayed: the loss or its gradient is not finite."
    found = re.findall(r"first not finite: (.*)", replayed.partition("poisoned.py: step")[2])
    assert found  # of each process that got the picture
    for place in found:
        assert re.fullmatch(r"'image' of the batch, \[\d+, 3, 64, 64\], in rows (\d+ \(\S+\)(, )?)+", place)
        assert f"{picture})" in place
    named = re.compile(r"^  (process \d): (.*); files:\n((?: {6}.*\n)+)", re.MULTILINE)
    guilty = [set(named.findall(text)) for text in (printed, replayed)]
    at_replay = {process: (losses, files) for process, losses, files in guilty[1]}
    at_first = {process: (losses, files) for process, losses, files in guilty[0]}
    assert at_replay
    for process, (losses, files) in at_replay.items():
        assert files == at_first[process][1]
        assert nan_of(losses) == nan_of(at_first[process][0])


def nan_of(losses: str) -> set[str]:
    """The names of the values that are NaN, of `name=value name=value`."""
    return set(re.findall(r"(\w+)=nan", losses))
