"""CapFilt's worth, on the embedded world: the paper's Table 1 with a web of which 40% of the captions are wrong.

    python -m demo.bootstrap [--quick] [--seed S] [--folder DIR]

A model is pre-trained on the noisy web (the arm `none`), and fine-tuned on a small clean set, once as the captioner and
once as the filter. CapFilt captions and scores the web. Then a model is pre-trained anew on what is kept (the arms
`filter`, `captioner`, `both`). All arms are pre-trained on equally many pairs at the same learning rates, then
fine-tuned for captioning and retrieval in the same way, shorter than captioner and filter are.
"""

import argparse
import json
import logging
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from data.shapes import build_world
from demo.bootstrap_scores import arm_scores, filter_scores, plot, table, write_truth
from demo.recipe import FULL, LEVEL, QUICK, SEEDS, Size, Step, execute, relocated, timed
from engine.failure import exit_on_user_error
from files import REPOSITORY, atomic_write
from settings import ConfigError, UserError
from settings.flags import Parser, seed

logger = logging.getLogger("blip.demo")

NOISE = 0.4  # share of the web's captions that belong to another picture
EPOCHS = {False: 5, True: 1}  # of pre-training, by whether the run is quick
ARMS: Mapping[str, tuple[str, tuple[str, ...]]] = {  # arm -> the list it trains on, and the choice that makes it
    "none": ("web/pretrain.json", ()),
    "filter": ("filter/selected/filtered_web.json", ("threshold=0.5",)),
    "captioner": ("captioner/selected/both.json", ("threshold=0",)),
    "both": ("both/selected/both.json", ("threshold=0.5",)),
}
FINE_TUNED = ("caption", "retrieval")
MODELS: Mapping[str, tuple[str, ...]] = {  # of CapFilt, by task: what they are trained longer or otherwise with
    "caption": ("max_epoch=10", "init_lr=6e-4"),
    "retrieval": ("max_epoch=6", "init_lr=8e-4"),
}


def run(folder: Path, size: Size, quick: bool, seed: int) -> Iterator[Step]:
    """Run everything into `folder`, yielding each step when it is done."""
    yield from _draw(folder, size, seed)
    for arm, (file, choice) in ARMS.items():
        if choice:
            truth = folder / "truth.json"
            if not truth.exists():
                yield from _train_models(folder, size, seed)
                yield _step("CapFilt: caption and score the web", _capfilt(folder, seed))
                write_truth(folder, truth)
            if quick and "threshold=0.5" in choice:  # its filter has learned nothing: all may be on one side of it
                choice = ("keep=0.6", "by_source=true")
            keys = [f"out={folder / arm / 'selected'}", f"truth={truth}", *choice]
            yield _step(f"{arm}: choose", ["python", "capfilt.py", "select", str(folder / "capfilt"), *keys])
        _write_epochs(folder / arm / "pairs", _read(folder / file), size.web_images, EPOCHS[quick], seed)
        lists = ["train_file=[]", f"laion_path={folder / arm / 'pairs'}", f"max_epoch={EPOCHS[quick]}"]
        yield _step(f"{arm}: pre-train", _training(folder, arm, "pretrain", size, seed, lists))
        for task in FINE_TUNED:
            start = [f"pretrained={folder / arm / 'pretrain' / 'checkpoint_last.pth'}"]
            yield _step(f"{arm}: fine-tune {task}", _training(folder, arm, task, size, seed, start))


def _train_models(folder: Path, size: Size, seed: int) -> Iterator[Step]:
    """Fine-tune the captioner and the filter from the model that was pre-trained on the noisy web."""
    start = f"pretrained={folder / 'none' / 'pretrain' / 'checkpoint_last.pth'}"
    # The web's captions are shorter than those that tell a picture from all others: the filter has to know both kinds.
    clean = [record for name in FINE_TUNED for record in _read(folder / "world" / f"{name}_train.json")]
    with atomic_write(folder / "world" / "filter_train.json") as file:
        file.write_text(json.dumps(clean), encoding="utf-8")
    for task, longer in MODELS.items():
        texts = [f"train_file={folder / 'world' / 'filter_train.json'}"] if task == "retrieval" else []
        overrides = [start, *texts, *(size.overrides or longer)]
        yield _step(f"CapFilt: fine-tune its model of {task}", _training(folder, "models", task, size, seed, overrides))


def _draw(folder: Path, size: Size, seed: int) -> Iterator[Step]:
    for name, images, world_seed, noise in (
        ("web", size.web_images, 2 * seed, NOISE),
        ("world", size.task_images, 2 * seed + 1, 0.0),
    ):
        options: dict[str, Any] = {"images": images, "seed": world_seed, "noise": noise, **LEVEL}
        flags = [part for key, value in options.items() for part in (f"--{key}", str(value))]
        command = ["python", "-m", "data.shapes", "--out", f"{folder / name}", *flags]
        shutil.rmtree(folder / name, ignore_errors=True)
        yield timed(f"Draw {images:,} scenes", command, lambda n=name, o=options: build_world(folder / n, **o))


def _write_epochs(folder: Path, pairs: Sequence[Any], per_epoch: int, epochs: int, seed: int) -> None:
    """Write the pairs of each epoch; over all epochs every pair comes equally often, or once more."""
    if not pairs:
        raise UserError(f"{folder}: there is no pair to train on, as no text was kept")
    rng = random.Random(seed)
    drawn: list[Any] = []
    while len(drawn) < epochs * per_epoch:
        drawn += rng.sample(pairs, len(pairs))
    folder.mkdir(parents=True, exist_ok=True)
    for epoch in range(epochs):
        with atomic_write(folder / f"{epoch}.json") as file:
            file.write_text(json.dumps(drawn[epoch * per_epoch : (epoch + 1) * per_epoch]), encoding="utf-8")


def _capfilt(folder: Path, seed: int) -> list[str]:
    config = "configs/demo/capfilt.yaml"
    flags = ["--config", config, "--output_dir", str(folder / "capfilt"), "--seed", str(seed), "--device", "cpu"]
    models = zip(("captioner", "filter"), MODELS, strict=True)
    best = [f"{key}={folder / 'models' / task / 'checkpoint_best.pth'}" for key, task in models]
    moved = [one for one in relocated(config, folder) if one.partition("=")[0] not in ("captioner", "filter")]
    return [*_launch(2), "capfilt.py", *flags, *moved, *best]


def _training(folder: Path, arm: str, task: str, size: Size, seed: int, overrides: Sequence[str]) -> list[str]:
    """The command of a phase, in a folder of its arm; its overrides replace those of the recipe."""
    config = f"configs/demo/{task}.yaml"
    given = {override.partition("=")[0] for override in overrides}
    moved = [one for one in (*relocated(config, folder), *size.overrides) if one.partition("=")[0] not in given]
    script = "pretrain.py" if task == "pretrain" else f"train_{task}.py"
    output = folder / arm / task
    shutil.rmtree(output, ignore_errors=True)
    flags = ["--config", config, "--output_dir", str(output), "--seed", str(seed), "--device", "cpu"]
    return [*_launch(2 if task == "pretrain" else size.processes), script, *flags, *moved, *overrides]


def _launch(processes: int) -> list[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    return ["python", *(launcher if processes > 1 else [])]


def _step(title: str, command: list[str]) -> Step:
    return timed(title, command, lambda: execute(command))


def _read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def _compared(folders: list[str]) -> str:
    """The table of the runs in these folders, of which a plot is made; ConfigError for results that are none."""
    try:
        found = [_read(Path(folder) / "results.json") for folder in folders]
        shown = table(found)
        plot(found, Path("capfilt.png"))
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ConfigError(f"--table {' '.join(folders)}: a results.json there is no comparison's ({reason})") from None
    return shown


def report(folder: Path) -> None:
    """Log and write the table of one run, with what the filter found."""
    record = _read(folder / "run.json")
    results = {
        "seed": record["seed"],
        "minutes": sum(step["seconds"] for step in record["steps"]) / 60,
        "arms": {arm: arm_scores(folder, arm) for arm in ARMS},
        "filter": filter_scores(folder),
    }
    with atomic_write(folder / "results.json") as file:
        file.write_text(json.dumps(results, indent=1), encoding="utf-8")
    logger.info("%s", table([results]))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = Parser(
        prog="python -m demo.bootstrap", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small worlds and few steps: shows that all parts work")
    parser.add_argument("--seed", type=seed, default=0, help="of the worlds and of every training (default 0)")
    parser.add_argument("--folder", help="where everything is written (default output/bootstrap/seed_S)")
    parser.add_argument(
        "--table", nargs="+", metavar="DIR", help="run nothing: print the table of these folders' runs, with a plot"
    )
    flags = parser.parse_args(arguments)
    if flags.seed >= SEEDS:
        parser.error(f"--seed {flags.seed} must be below 2**62")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    with exit_on_user_error(None, 0):
        if flags.table:
            print(_compared(flags.table))
            return
        name = f"output/bootstrap/{'quick_' if flags.quick else ''}seed_{flags.seed}"
        here = not flags.folder and Path.cwd() == REPOSITORY  # then the printed commands have short paths
        folder = Path(name) if here else Path(flags.folder or name).absolute()
        _claim(folder)
        os.chdir(REPOSITORY)  # the configs' paths start from there
        try:
            steps = list(run(folder, QUICK if flags.quick else FULL, flags.quick, flags.seed))
        except subprocess.CalledProcessError as error:
            sys.exit(f"demo.bootstrap: {error.cmd[-1]} ended with status {error.returncode}; its output stands above")
        with atomic_write(folder / "run.json") as file:
            file.write_text(json.dumps({"seed": flags.seed, "steps": [asdict(step) for step in steps]}, indent=1))
        report(folder)


def _claim(folder: Path) -> None:
    """Empty the folder of an earlier comparison, or make it; raises ConfigError for one that holds anything else."""
    mark = folder / ".bootstrap"
    if folder.is_dir() and any(folder.iterdir()) and not mark.exists():
        raise ConfigError(f"--folder {folder} holds files of others, which would be deleted: choose another")
    folder.mkdir(parents=True, exist_ok=True)
    mark.touch()
    for name in ("capfilt", "models", *ARMS):
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / "truth.json").unlink(missing_ok=True)


if __name__ == "__main__":
    main()
