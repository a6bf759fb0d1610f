"""Describe, question, match or embed pictures with a BLIP checkpoint.

    python predict.py caption  photo.jpg holiday/ 'more/*.png' [--out captions.jsonl | --sidecar .txt]
    python predict.py vqa      photo.jpg --question "what is on the table?"
    python predict.py match    photo.jpg --text "a cat on a sofa" --text "a dog"
    python predict.py features holiday/ --out features.safetensors

`--checkpoint` is a released name (docs/checkpoints.md), a path, a URL or a Hugging Face hub name; without it the
released model for the task is downloaded once. Sizes are read from the checkpoint.

Exit status: 0 if every picture was read, 1 if some could not be (they are named, and the others predicted), 2 on any
other error.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tqdm import tqdm

from data.media.folder import find_pictures, read_batches
from engine.device import choose_device, precision_of
from files import DownloadError
from models.weights.build import build_from_checkpoint
from models.weights.released import find_released
from prediction.tasks import Answer, Caption, Features, Match, Model, PredictionTask
from settings import ConfigError, UserError
from settings.flags import add_flags, at_least, flag, values_of
from transform.image import normalize


@dataclass(frozen=True, kw_only=True)
class SharedFlags:
    """The flags of every task: which pictures, which model, and how it runs."""

    images: list[str]
    checkpoint: str | None = flag(None, "released name, path, URL or hub name (default: the task's released model)")
    batch_size: int = flag(32, "pictures at once (default: %(default)s)", type=at_least(1))
    device: str = flag("auto", "auto, cpu, cuda or mps (default: %(default)s)")
    precision: str = flag("fp32", "default: %(default)s", choices=["fp32", "bf16", "fp16"])


TASKS: dict[str, tuple[type[PredictionTask[Any]], str]] = {
    "caption": (Caption, "describe pictures"),
    "vqa": (Answer, "answer questions"),
    "match": (Match, "compare pictures with texts"),
    "features": (Features, "write unit vectors"),
}


def parse(arguments: Sequence[str] | None) -> tuple[SharedFlags, PredictionTask[Any]]:
    """Parse the command line -> the flags of every task, and the chosen task with its own flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tasks = parser.add_subparsers(dest="task", required=True, metavar="{" + ",".join(TASKS) + "}")
    for name, (kind, meaning) in TASKS.items():
        task = tasks.add_parser(name, help=meaning)
        task.add_argument("images", nargs="+", help="files, folders and globs")
        add_flags(task, SharedFlags)
        add_flags(task, kind)
    flags = parser.parse_args(arguments)
    kind, _ = TASKS[flags.task]
    try:
        return SharedFlags(**values_of(SharedFlags, flags)), kind(**values_of(kind, flags))
    except ConfigError as error:
        parser.error(str(error))


def run(shared: SharedFlags, task: PredictionTask[Model]) -> int:
    """Run the task -> the exit status."""
    paths = find_pictures(shared.images)
    device = choose_device(shared.device)
    task = task.prepare(paths, device)
    model = load_model(task.kind, shared.checkpoint or task.released).to(device).eval()

    dtype, unreadable = precision_of(shared.precision, device), 0
    autocast = torch.autocast(device.type, dtype=dtype, enabled=dtype is not torch.float32)
    with (
        torch.inference_mode(),
        autocast,
        task.writer(model) as write,
        tqdm(total=len(paths), unit="picture", disable=None) as bar,
    ):
        for names, pixels, broken in read_batches(paths, model.visual_encoder.image_size, shared.batch_size):
            for error in broken:
                tqdm.write(f"predict.py: skipped {error}", file=sys.stderr)
            predicted = task.predict(model, normalize(pixels.to(device))) if names else []
            for name, record in zip(names, predicted, strict=True):
                write({"image": str(name), **record})
            unreadable += len(broken)
            bar.update(len(names) + len(broken))
    if unreadable:
        print(f"predict.py: {unreadable} of {len(paths)} pictures could not be read", file=sys.stderr)
    return 1 if unreadable else 0


def load_model(kind: type[Model], source: str) -> Model:
    """Build the model of a checkpoint, with a warning if it was not fine-tuned for any task."""
    entry = find_released(source)
    if entry and entry.task == "pretrain":
        print(f"predict.py: {entry.name} was not fine-tuned; expect poor results", file=sys.stderr)
    return build_from_checkpoint(kind, source)


def main(arguments: Sequence[str] | None = None) -> int:
    shared, task = parse(arguments)
    try:
        return run(shared, task)
    except DownloadError as error:
        print(f"predict.py: {error}\nTo see everything work without a download, run `make demo`.", file=sys.stderr)
    except (UserError, OSError) as error:
        print(f"predict.py: {error}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
