"""A small house to throw bad input at: two worlds of pictures, a config and a checkpoint of each task, and the entries.

Everything is so small that a whole training takes a quarter of a second.
"""

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

import capfilt
import eval_nocaps
import eval_retrieval_video
import hubconf
import predict
import pretrain
import train_caption
import train_nlvr
import train_retrieval
import train_vqa
from data.check.__main__ import main as data_check
from data.shapes import build_world
from data.shapes.__main__ import main as data_shapes
from demo.__main__ import main as demo
from demo.bootstrap import main as demo_bootstrap
from demo.emoji import main as demo_emoji
from engine.failure import exit_on_user_error
from files import REPOSITORY
from tests.small_capfilt import write_checkpoints
from tests.small_model import TEXT, VIT

SCRIPTS = {
    "pretrain": pretrain,
    "train_caption": train_caption,
    "train_retrieval": train_retrieval,
    "train_vqa": train_vqa,
    "train_nlvr": train_nlvr,
    "eval_nocaps": eval_nocaps,
    "eval_retrieval_video": eval_retrieval_video,
}
PICTURE = "output/demo/world/images/val/shapes_val_000000000000.jpg"
TASK = {script: script.split("_")[-1] for script in (*SCRIPTS, "capfilt")}
TRAININGS = tuple(script for script in SCRIPTS if not script.startswith("eval"))

_SMALL = {
    "vit": VIT,
    "med_config": TEXT,
    "image_size": 32,
    "num_workers": 0,
}
_OF_TASK: dict[str, dict[str, Any]] = {
    "pretrain": {"queue_size": 8, "embed_dim": 8, "batch_size": 4},
    "caption": {"max_length": 12, "num_beams": 1},
    "retrieval": {"queue_size": 32, "embed_dim": 8, "k_test": 4},
    "vqa": {"k_test": 4},
    "nlvr": {},
    "nocaps": {"max_length": 12, "num_beams": 1, "max_epoch": None},
    "video": {"k_test": 3, "embed_dim": 8},
}


def build_home(folder: Path) -> Path:
    """Make the house in `folder`; configs are `TASK.yaml`, checkpoints `TASK.pth`."""
    for seed, name in enumerate(("world", "web")):
        build_world(folder / "output" / "demo" / name, images=24, seed=seed)
    os.chdir(folder)
    for script, module in SCRIPTS.items():
        task = TASK[script]
        values = YAML(typ="safe").load(REPOSITORY / f"configs/demo/{task}.yaml")
        values |= _SMALL | _OF_TASK[task]
        values["pretrained"] = (
            "" if task == "pretrain" else {"nocaps": "caption.pth", "video": "retrieval.pth"}.get(task, "pretrain.pth")
        )
        if script in TRAININGS:
            values |= {"tensorboard": False, "max_epoch": 1}
        values.pop("max_epoch") if values.get("max_epoch", 0) is None else None
        with open(folder / f"{task}.yaml", "w", encoding="utf-8") as file:
            YAML(typ="safe", pure=True).dump(values, file)
        module.main(["--config", f"{task}.yaml", "--output_dir", str(folder / "output" / "good" / task)])
        if script in TRAININGS:
            last = folder / "output" / "good" / task / "checkpoint_last.pth"
            (folder / f"{task}.pth").write_bytes(last.read_bytes())
    for script, module in SCRIPTS.items():
        if script != "pretrain":
            task = TASK[script]
            output = folder / "output" / "good" / f"{task}_evaluated"
            module.main(["--config", f"{task}.yaml", "--output_dir", str(output), "--evaluate"])
    _build_capfilt(folder)
    return folder


def _build_capfilt(folder: Path) -> None:
    """A config, checkpoints and the scores of CapFilt, by shards and by a list."""
    captioner, matcher = write_checkpoints(folder)
    web = folder / "output" / "demo" / "web"
    values = {
        "corpus": [str(web / "pretrain.json")],
        "image_root": str(web / "images"),
        "captioner": captioner.name,
        "filter": matcher.name,
        "max_length": 8,
        "num_workers": 0,
        "max_bad_images": 0.0,
    }
    with open(folder / "capfilt.yaml", "w", encoding="utf-8") as file:
        YAML(typ="safe", pure=True).dump(values, file)
    capfilt.main(["--config", "capfilt.yaml", "--output_dir", str(folder / "output" / "good" / "capfilt")])


def world(name: str) -> Path:
    return Path("output/demo/world", name)


def good(script: str, folder: Path, *overrides: str) -> list[str]:
    """The command line of a run that works, into `folder`/out."""
    return ["--config", f"{TASK[script]}.yaml", "--output_dir", str(folder / "out"), *overrides]


def figures(folder: Path) -> dict[str, Any]:
    """What a run found: its log and the predictions in `folder`, but for times and names of files."""
    found: dict[str, Any] = {}
    for file in sorted((*folder.glob("evaluate.txt"), *folder.glob("log.txt"), *folder.glob("result/*.json"))):
        lines = [file.read_text(encoding="utf-8")] if file.suffix == ".json" else file.read_text().splitlines()
        found[file.name] = [json.loads(line) for line in lines]
    return found


def _benchmark(name: str) -> Callable[[Sequence[str]], Any]:
    def run(_: Sequence[str]) -> Any:
        from importlib import import_module

        return import_module(f"benchmarks.{name}").main()

    return run


def _factory(arguments: Sequence[Any]) -> None:
    """Call a function of hubconf as a program would: (its name, its keyword arguments)."""
    name, options = arguments
    with exit_on_user_error(None, 0):
        getattr(hubconf, name)(**options)


def _main(main: Callable[..., Any]) -> Callable[[Sequence[str]], Any]:
    return lambda _: main()


BENCHMARKS = ("annotations", "run", "select")
ENTRIES: dict[str, Callable[[Sequence[Any]], Any]] = {
    **{name: _main(module.main) for name, module in SCRIPTS.items()},
    "predict": _main(predict.main),
    "capfilt": _main(capfilt.main),
    "data.check": _main(data_check),
    "data.shapes": _main(data_shapes),
    "demo": _main(demo),
    "demo.bootstrap": _main(demo_bootstrap),
    "demo.emoji": _main(demo_emoji),
    "hubconf": _factory,
    **{f"benchmarks.{name}": _benchmark(name) for name in BENCHMARKS},
}


def command_of(entry: str) -> list[str]:
    """How an entry is called by hand."""
    script = REPOSITORY / f"{entry}.py"
    return [sys.executable, *([str(script)] if script.is_file() else ["-m", entry])]
