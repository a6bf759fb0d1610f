"""Look over a config's data before a run does: `python -m data.check configs/caption_coco.yaml`

For each split: how many records and texts there are; records with wrong fields, and images that are missing or cannot
be read, each with file and record; ids that occur twice; and a contact sheet (PNG) to see whether texts fit their
images. The exit status is 0 when nothing is wrong, 1 when something is, 2 when the config cannot be read.

The task follows from the config's file name (pretrain, caption, retrieval, msrvtt, vqa, nlvr, nocaps) or from --task.
That an image exists is checked for all records; `--read` of a split's images, evenly spread, are decoded.
"""

import argparse
import json
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Generic, TypeVar

from PIL import Image

from data.caption import CaptionEval
from data.check.contact_sheet import contact_sheet
from data.check.tasks import TASKS, Record, Task, task_of
from data.config import CaptionData, DataConfig, PretrainData, VideoData, VQAData
from data.media.image_file import BadImage, open_image
from data.media.video import read_frames
from data.records.annotations import AnnotationError, records
from data.records.shards import Shards, shard_files
from data.vqa import answer_list
from files import atomic_write, resolve
from settings import ConfigError, MissingPackage, load_config
from transform.image import EvalTransform

Thing = TypeVar("Thing")

_SHOWN = 10  # problems of a kind that are printed
_SHEET = 24  # pictures of a contact sheet
_COCO_TRUTH = '{"images": [{"id": 1}], "annotations": [{"image_id": 1, "id": 1, "caption": "a cat"}]}'


class Findings:
    """What was counted and what is wrong in one split."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.problems: dict[str, list[str]] = {}

    def count(self, what: str, number: int = 1) -> None:
        self.counts[what] = self.counts.get(what, 0) + number

    def problem(self, kind: str, where: str) -> None:
        self.problems.setdefault(kind, []).append(where)

    def __str__(self) -> str:
        lines = ["  " + ", ".join(f"{number:,} {what}" for what, number in self.counts.items() if number)]
        for kind, places in self.problems.items():
            lines += [f"  {len(places):,} x {kind}", *(f"      {place}" for place in places[:_SHOWN])]
            if len(places) > _SHOWN:
                lines.append(f"      ... and {len(places) - _SHOWN:,} more")
        return "\n".join(lines)


def check_split(task: Task, config: DataConfig, split: str, read: int) -> tuple[Findings, Image.Image | None]:
    """Everything that is wrong with a split, and its contact sheet (None where no picture can be read)."""
    findings = Findings()
    unique = task.unique + (() if split == "train" else task.unique_in_evaluation)
    first_of: dict[tuple[str, object], str] = {}
    sample: _Sample[tuple[str, str, list[str]]] = _Sample(read)
    for place, record in _good_records(task, config, split, findings):
        for name in unique:
            if record[name] is not None and first_of.setdefault((name, record[name]), place) != place:
                findings.problem(f"{name} that an earlier record has", f"{place}: {record[name]!r}")
        missing = [file for file in task.files(config, record) if not os.path.exists(file)]
        if missing:
            findings.problem("missing image", f"{place}: {', '.join(missing)}")
        else:
            sample.offer((place, task.text(record), task.files(config, record)))
    shown: _Sample[tuple[Image.Image, str]] = _Sample(_SHEET)  # no more of the pictures stay in memory
    for place, text, files in sample.kept:
        picture = _read(config, place, files, findings)
        if picture is not None:
            shown.offer((picture, text))
    try:
        if isinstance(config, PretrainData):
            _read_shards(config, read, findings, shown)
        elif isinstance(config, CaptionData) and split != "train":
            _check_ground_truth(config, split, findings)
        elif isinstance(config, VQAData) and split != "train" and (config.answer_list or not config.train_file):
            findings.count("candidate answers", len(answer_list(config.answer_file())))
    except (OSError, ValueError) as error:
        findings.problem("broken file", str(error))
    return findings, contact_sheet(*zip(*shown.kept, strict=True)) if shown.kept else None


class _Sample(Generic[Thing]):
    """An even choice of at most `size` of the things offered, in their order, whose number nobody knows beforehand."""

    def __init__(self, size: int) -> None:
        self.size, self.every, self.offered = size, 1, 0
        self.kept: list[Thing] = []

    def offer(self, thing: Thing) -> None:
        if self.offered % self.every == 0:
            if len(self.kept) == self.size:  # full: keep every second one, and choose half as often from here on
                self.kept, self.every = self.kept[::2], 2 * self.every
            if self.offered % self.every == 0:
                self.kept.append(thing)
        self.offered += 1


def _good_records(task: Task, config: DataConfig, split: str, findings: Findings) -> Iterator[tuple[str, Record]]:
    """The records that are in their format, each with its place; the others become problems."""
    format = task.formats[split]
    files = config.annotations(split) + (config.laion_files() if isinstance(config, PretrainData) else [])
    for file in files:
        try:
            for number, raw in enumerate(records(file), start=1):
                place = f"{file}, record {number}"
                findings.count("records")
                try:
                    record = format.restored(format.row(raw))
                except ValueError as error:
                    findings.problem("wrong field", f"{place}: {error}")
                    continue
                findings.count("captions", len(record.get("caption") or []))
                if record.get("label", "True") not in ("True", "False"):
                    findings.problem("label that is neither 'True' nor 'False'", f"{place}: {record['label']!r}")
                yield place, record
        except (AnnotationError, OSError) as error:
            findings.problem("broken file", str(error))


def _read(config: DataConfig, place: str, files: list[str], findings: Findings) -> Image.Image | None:
    """The record's picture (the first frame of a clip, two pictures side by side); None if it cannot be read."""
    findings.count("records whose images were read")
    try:
        if isinstance(config, VideoData):
            return read_frames(files[0], config.num_frm_test)[0]
        pictures = [open_image(file) for file in files]
    except BadImage as error:
        findings.problem("unreadable image", f"{place}: {error}")
        return None
    side = max(max(picture.size) for picture in pictures)
    return pictures[0] if len(pictures) == 1 else _side_by_side([p.resize((side, side)) for p in pictures])


def _side_by_side(pictures: list[Image.Image]) -> Image.Image:
    page = Image.new("RGB", (sum(picture.width for picture in pictures), pictures[0].height))
    for number, picture in enumerate(pictures):
        page.paste(picture, (number * pictures[0].width, 0))
    return page


def _read_shards(config: PretrainData, read: int, findings: Findings, shown: _Sample[tuple[Image.Image, str]]) -> None:
    if not config.shards:
        return
    shards = Shards(shard_files(config.shards))
    findings.count("shards", len(shards.files))
    findings.count("samples in shards", len(shards))
    if not len(shards):
        raise ValueError(f"no sample with a picture and a caption in shards: {', '.join(config.shards)}")
    for row in range(0, len(shards), -(-len(shards) // read)):
        sample = shards[row]
        try:
            shown.offer((open_image(sample["image"], sample["name"]), sample["caption"][0]))
        except BadImage as error:
            findings.problem("unreadable image", str(error))


def _check_ground_truth(config: CaptionData, split: str, findings: Findings) -> None:
    """That the split's ground truth speaks of the split's images."""
    file = config.ground_truth(split)
    if file is None or findings.problems:  # with wrong records or ids there is nothing to compare
        return
    try:
        known = {caption["image_id"] for caption in json.loads(file.read_text(encoding="utf-8"))["annotations"]}
    except (TypeError, KeyError):
        raise ValueError(f"{file}: expected ground truth as COCO has it: {_COCO_TRUTH}") from None
    findings.count("images with ground truth", len(known))
    for image_id in CaptionEval(config.annotations(split), config.image_root, EvalTransform(1)).image_ids:
        if image_id not in known:
            findings.problem(f"image without a caption in {file}", f"image_id {image_id!r}")


def _has(config: DataConfig, split: str) -> bool:
    """Whether the split has annotations of its own, own or published."""
    try:
        own = config.own_split(split)
    except ValueError:  # an own val or test alone, to evaluate on
        return False
    return own == split or (own is None and (split == "train" or split in config.published))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m data.check", description=__doc__.partition("\n")[0])
    parser.add_argument("config", type=Path, help="YAML file of a task")
    parser.add_argument("--task", choices=TASKS, help="what the config is for, where its name does not tell")
    parser.add_argument("--out", type=Path, default=Path("output/check"), help="folder of the contact sheets")
    parser.add_argument("--read", type=int, default=20_000, help="images of a split that are decoded (default 20,000)")
    options = parser.parse_args(arguments)
    if options.read < 1:
        parser.error(f"--read {options.read}: it must be at least 1")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    file = resolve(options.config)
    name = options.task or task_of(file)
    if name is None:
        parser.error(f"the name {file.name} does not tell the task: add --task, one of {', '.join(TASKS)}")
    try:
        config = load_config(TASKS[name].config, file, part=True)  # the scripts read the model's and training's keys
    except ConfigError as error:
        parser.error(str(error))

    good = True
    for split in TASKS[name].formats:
        if not _has(config, split):
            continue
        print(f"{split}: {name} data of {file}")
        try:
            findings, sheet = check_split(TASKS[name], config, split, options.read)
        except MissingPackage as error:
            parser.error(str(error))
        except (OSError, ValueError) as error:
            print(f"  {error}")
            good = False
            continue
        print(findings)
        good = good and not findings.problems and bool(findings.counts)
        if sheet is not None:
            page = options.out / f"{file.stem}_{split}.png"
            with atomic_write(page) as temporary:
                sheet.save(temporary)
            print(f"  contact sheet: {page}")
    print("nothing is wrong" if good else "something is wrong, see above")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
