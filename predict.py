"""Describe, question, match or embed pictures with a BLIP checkpoint, and show where it looks.

    python predict.py caption  photo.jpg holiday/ 'more/*.png' [--out captions.jsonl | --sidecar .txt]
    python predict.py vqa      photo.jpg --question "what is on the table?"
    python predict.py match    photo.jpg --text "a cat on a sofa" --text "a dog"
    python predict.py features holiday/ --out features.safetensors
    python predict.py explain  photo.jpg [--text "a cat on a sofa" | --question "what is this?"] --out map.png

`--checkpoint` is a released name (docs/checkpoints.md), a path, a URL or a Hugging Face hub name; without it the
released model for the task is downloaded once. demo_caption, demo_vqa and demo_match come along: small models of drawn
shapes, for the pictures in demo/pictures. Sizes and vocabulary are read from the checkpoint; of an older one that was
trained with a vocabulary of its own, `--vocab_file` names the file.

A line about a picture is in `--out` as soon as it is found. After an interruption the same command with `--resume`
skips the pictures that are done.

Exit status: 0 if every picture was read, 1 if some were not (they are named, the others are done), 2 if nothing could
be done or an error ended the run, 130 if it was interrupted.
"""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    from settings.interrupts import exit_at_once_in_imports

    exit_at_once_in_imports()

import torch
from tqdm import tqdm

from data.media.folder import find_pictures
from engine.device import choose_device
from files import DownloadError, cache_dir, resolve
from models.weights.included import INCLUDED
from models.weights.released import find_released
from prediction.explain import Explain
from prediction.predictor import PRECISIONS, Model, Predictor, load_model
from prediction.tasks import Answer, Caption, Features, LineTask, Match, PredictionTask
from prediction.writers import check_outputs
from settings import ConfigError, UserError
from settings.flags import Parser, add_flags, at_least, flag, values_of
from settings.interrupts import INTERRUPTED
from settings.messages import message, printable


@dataclass(frozen=True, kw_only=True)
class SharedFlags:
    """What every task is told: the pictures, and the model that looks at them."""

    images: list[str]
    checkpoint: str | None = flag(None, "released name, path, URL or hub name (default: the task's released model)")
    vocab_file: str | None = flag(
        None, "vocabulary of an older checkpoint that carries none: its file, or a checkpoint that carries it"
    )
    batch_size: int = flag(32, "pictures at once (default: %(default)s)", type=at_least(1))
    device: str = flag("auto", "auto, cpu, cuda or mps (default: %(default)s)")
    precision: str = flag("fp32", "default: %(default)s", choices=PRECISIONS)


TASKS: dict[str, tuple[type[PredictionTask[Any]], str]] = {
    "caption": (Caption, "describe pictures"),
    "vqa": (Answer, "answer questions"),
    "match": (Match, "compare pictures with texts"),
    "features": (Features, "write unit vectors"),
    "explain": (Explain, "draw where the model looks for each word"),
}


def parse(arguments: Sequence[str] | None) -> tuple[SharedFlags, PredictionTask[Any]]:
    """The command line as what every task is told and what the chosen one is told."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
    """Do the task; the exit status."""
    paths = find_pictures(shared.images)
    source = shared.checkpoint or task.released
    vocab_file = resolve(shared.vocab_file) if shared.vocab_file else None
    read = (*paths, *task.inputs(), *_checkpoint_files(source), *([vocab_file] if vocab_file else []))
    check_outputs(task.outputs(paths), read)
    device = choose_device(shared.device)
    task = task.prepare(paths, device)
    remaining = task.remaining(paths)
    if len(remaining) < len(paths):
        _say(f"{len(paths) - len(remaining)} of {len(paths)} pictures are done already")
    if not remaining:
        return 0
    model = load_model(task.kind, source, vocab_file, warn=_say)
    predictor, unreadable = Predictor(model, device, shared.precision, shared.batch_size), 0
    with (
        predictor.computing(),
        task.writer(model) as write,
        tqdm(total=len(remaining), unit="picture", disable=None) as bar,
        closing(predictor.batches(remaining)) as batches,
    ):
        for names, image, broken in batches:
            for error in broken:
                tqdm.write(
                    f"predict.py: skipped {message(printable(str(error)), sys.stderr.encoding)}", file=sys.stderr
                )
            predicted = task.predict(model, image) if names else []
            for name, record in zip(names, predicted, strict=True):
                write({"image": str(name), **record})
            unreadable += len(broken)
            bar.update(len(names) + len(broken))
    if unreadable:
        _say(f"{unreadable} of {len(remaining)} pictures could not be read")
    return 2 if unreadable == len(paths) else 1 if unreadable else 0


def _checkpoint_files(source: str) -> Iterator[Path]:
    """The files of a checkpoint that are here already."""
    path = Path(os.path.expanduser(source))
    if os.path.isdir(path):
        yield from path.iterdir()
    elif source in INCLUDED:
        yield INCLUDED[source]
    elif entry := find_released(source):
        yield cache_dir() / f"{entry.name}.pth"
    yield path


def _say(text: str) -> None:
    print(f"predict.py: {message(text, sys.stderr.encoding)}", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    shared, task = parse(arguments)
    try:
        return run(shared, task)
    except KeyboardInterrupt:
        goes_on = isinstance(task, LineTask) and (task.out or getattr(task, "sidecar", None))
        _say("interrupted; go on with --resume" if goes_on else "interrupted")
        return INTERRUPTED
    except BrokenPipeError:  # whoever read our lines, such as `head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains of it while it ends
    except DownloadError as error:
        _say(
            f"{error}\nTo see everything work without a download, ask what comes along, {', '.join(INCLUDED)}: "
            "predict.py caption demo/pictures --checkpoint demo_caption"
        )
    except torch.OutOfMemoryError as error:
        _say(f"the device's memory is too small: lower --batch_size ({str(error).splitlines()[0]})")
    except OSError as error:
        _say(f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error))
    except UserError as error:
        _say(str(error))
    return 2


if __name__ == "__main__":
    sys.exit(main())
