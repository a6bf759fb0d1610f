"""The recipe: which scripts run with which configs, in which order. Each is a command that works by hand too."""

import logging
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ruamel.yaml import YAML

from data.shapes import build_world
from files import REPOSITORY

logger = logging.getLogger("blip.demo")

SEEDS = 2**62  # the worlds take twice a seed and one more, and seeds have 63 bits
FOLDER = Path("output/demo")  # where configs/demo/*.yaml look for the worlds and for each other's checkpoints
LEVEL = {"level": 1, "max_objects": 2}  # shape, color and place of one or two things


@dataclass(frozen=True)
class Size:
    """How long the recipe takes.

    Attributes:
        web_images: pictures of the world that is pre-trained on (a part is held out and unused).
        task_images: pictures of another world, with the annotations of every task; a tenth each (at most 500) for
            validation and test.
        processes: how many fine-tune. Pre-training always takes two.
        overrides: of every config.
    """

    web_images: int
    task_images: int
    processes: int = 2
    overrides: tuple[str, ...] = ()


FULL = Size(web_images=12_000, task_images=5_000)
QUICK = Size(web_images=240, task_images=120, processes=1, overrides=("max_epoch=1",))


@dataclass(frozen=True)
class Phase:
    """One run of one script.

    Attributes:
        name: its folder under the demo's.
        title: what the report calls it.
        task: the script's name and its config's.
        arguments: beyond config and output folder.
        evaluates: evaluates a checkpoint in its folder, and trains nothing.
    """

    name: str
    title: str
    task: str
    arguments: tuple[str, ...] = ()
    evaluates: bool = False

    @property
    def script(self) -> str:
        return "pretrain.py" if self.task == "pretrain" else f"train_{self.task}.py"


PHASES = (
    Phase("pretrain", "Pre-train: contrast, matching, language", "pretrain"),
    Phase("caption", "Fine-tune captioning", "caption"),
    Phase("retrieval", "Fine-tune retrieval", "retrieval"),
    Phase("vqa", "Fine-tune question answering", "vqa"),
    Phase(
        "vqa",
        "Answer the test questions",
        "vqa",
        ("--evaluate", "--checkpoint", f"{FOLDER}/vqa/checkpoint_last.pth"),
        evaluates=True,
    ),
    Phase("nlvr", "Fine-tune NLVR2", "nlvr"),
    Phase("caption_scratch", "Fine-tune captioning from scratch", "caption", ("pretrained=''",)),
)


@dataclass(frozen=True)
class Step:
    """A step that was run, for the report: how long it took, and the command to run it again."""

    title: str
    command: str
    seconds: float


def run(folder: Path, size: Size, seed: int) -> Iterator[Step]:
    """Run everything into `folder`, yielding each step when it is done.

    Raises subprocess.CalledProcessError when a script fails; its output stands above.
    """
    for name, images, world_seed in (("web", size.web_images, 2 * seed), ("world", size.task_images, 2 * seed + 1)):
        title = f"Draw {images:,} scenes " + ("to pre-train on" if name == "web" else "with annotations of every task")
        options = {"images": images, "seed": world_seed, **LEVEL}
        flags = [part for key, value in options.items() for part in (f"--{key}", str(value))]
        command = ["python", "-m", "data.shapes", "--out", f"{folder / name}", *flags]
        shutil.rmtree(folder / name, ignore_errors=True)
        yield timed(title, command, lambda name=name, options=options: build_world(folder / name, **options))
    for phase in PHASES:
        if not phase.evaluates:
            shutil.rmtree(folder / phase.name, ignore_errors=True)
        command = phase_command(phase, folder, size, seed)
        yield timed(phase.title, command, lambda command=command: execute(command))


def phase_command(phase: Phase, folder: Path, size: Size, seed: int) -> list[str]:
    """The command line of a phase, from the repository's root; `python` stands for the interpreter."""
    processes = 2 if phase.task == "pretrain" else size.processes
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"] if processes > 1 else []
    config = f"configs/demo/{phase.task}.yaml"
    moved = [argument.replace(str(FOLDER), str(folder)) for argument in phase.arguments]
    return [
        "python",
        *launcher,
        phase.script,
        # Two processes learn together on two cores; on a GPU, one a GPU would be another recipe, with other figures.
        *("--config", config, "--output_dir", str(folder / phase.name), "--seed", str(seed), "--device", "cpu"),
        *relocated(config, folder),
        *size.overrides,
        *moved,
    ]


def next_commands(folder: Path) -> list[str]:
    """What to try after the recipe has run into `folder`: commands that work from the repository's root."""
    return [
        "python predict.py caption demo/pictures --checkpoint demo_caption",
        f"python predict.py vqa {shlex.quote(f'{folder}/world/images/test/shapes_test_000000000000.jpg')} "
        f'--question "how many things are there?" --checkpoint {shlex.quote(f"{folder}/vqa/checkpoint_last.pth")}',
        "python predict.py explain demo/pictures/purple_triangle_and_blue_heart.jpg "
        f"--checkpoint {shlex.quote(f'{folder}/caption/checkpoint_best.pth')} --out {shlex.quote(f'{folder}/map.png')}",
    ]


def relocated(config: str, folder: Path) -> list[str]:
    """Overrides that make a demo config read and write in `folder` instead of `output/demo`."""
    if folder == FOLDER:
        return []
    values = YAML(typ="safe").load(REPOSITORY / config)
    moved = {key: str(value).replace(str(FOLDER), str(folder)) for key, value in values.items()}
    return [f"{key}={value}" for key, value in moved.items() if value != str(values[key])]


def timed(title: str, command: list[str], action: Callable[[], None]) -> Step:
    """Do `action`, which is what `command` does, and log and return how long it took."""
    logger.info("%s\n    %s", title, shlex.join(command))
    began = time.perf_counter()
    action()
    step = Step(title, shlex.join(command), time.perf_counter() - began)
    logger.info("%s: %.0f s", title, step.seconds)
    return step


def execute(command: list[str]) -> None:
    """Run a script with this interpreter, by default with one thread a process: two processes share the machine."""
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    subprocess.run([sys.executable, *command[1:]], cwd=REPOSITORY, env=environment, check=True)
