"""Describing a picture needs the core set of packages alone; what needs more says so in one line."""

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path

import numpy as np
import pytest
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image

from data.check.__main__ import main as check
from data.media.video import read_frames, write_clip
from data.records.annotations import Annotations
from data.records.formats import Format, text
from data.records.shards import Shards, shard_files
from data.shapes.__main__ import main as draw_shapes
from demo.__main__ import main as demonstrate
from engine.log import Events
from files import REPOSITORY
from metrics.caption import score_captions
from metrics.scorers import ScorersMissing
from settings import MissingPackage
from tests.hidden_packages import finders_without
from tests.test_packaging import PROJECT, WHEEL
from transform.image import resize

CAPTION = """
import predict
import numpy, torch
from PIL import Image
from models.blip import blip_decoder
from data.media.image_file import open_image
from transform.image import EvalTransform, normalize

sizes = {
    "image_size": 32,
    "vit": {"embed_dim": 32, "depth": 1, "num_heads": 2, "patch_size": 16},
    "med_config": {
        "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64,
        "max_position_embeddings": 64,
    },
}
torch.manual_seed(0)
model = blip_decoder(**sizes).eval()
torch.save({"model": model.state_dict(), "config": sizes}, "captioner.pth")
Image.fromarray(numpy.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=numpy.uint8)).save("picture.png")
image = normalize(EvalTransform(32)(open_image("picture.png"))[None])
captions = model.generate(image, max_length=20, min_length=5)  # as the script does
print("picture.png", *captions, sep="\\t")
assert predict.main(["caption", "picture.png", "--checkpoint", "captioner.pth"]) == 0
"""

SCENE = {"image": "a.jpg", "caption": "a cat"}


def brought_along(lines: list[str]) -> set[str]:
    """The distributions that requirements install, by their canonical names."""
    waiting = [Requirement(line) for line in lines]
    done: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        requirement = waiting.pop()
        key = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if key in done:
            continue
        try:
            further = [Requirement(line) for line in distribution(requirement.name).requires or ()]
        except PackageNotFoundError:  # wanted on another system, or by choice
            continue
        done.add(key)
        extras = {"", *requirement.extras}
        waiting += [r for r in further if not r.marker or any(r.marker.evaluate({"extra": e}) for e in extras)]
    return {name for name, _ in done}


@pytest.fixture(scope="module")
def core_alone(tmp_path_factory):
    """Run a program in a process that finds nothing but the core set of pyproject.toml and what that brings along."""
    kept = brought_along(PROJECT["dependencies"]) | {PROJECT["name"]}
    hidden = [
        module
        for module, distributions in packages_distributions().items()
        if kept.isdisjoint(map(canonicalize_name, distributions))
    ]
    folder = tmp_path_factory.mktemp("core")

    def run(program: str) -> subprocess.CompletedProcess:
        (folder / "program.py").write_text(program)
        command = [sys.executable, REPOSITORY / "tests" / "hidden_packages.py", ",".join(hidden), "program.py"]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)

    assert {"av", "matplotlib", "pyarrow", "pycocoevalcap", "pytest", "tensorboard", "webdataset"} <= set(hidden)
    return run


@pytest.fixture
def without(monkeypatch):
    """`without("av")`: from now on it cannot be imported."""

    def hide(package: str) -> None:
        for module in [name for name in sys.modules if package in name.split(".")]:  # torch.utils.tensorboard, too
            monkeypatch.delitem(sys.modules, module)
        monkeypatch.setattr(sys, "meta_path", finders_without({package}))

    return hide


def test_the_core_set_alone_describes_a_picture(core_alone):
    done = core_alone(CAPTION)
    assert done.returncode == 0, done.stderr
    by_model, by_script = done.stdout.splitlines()
    assert by_script == by_model


def test_every_module_but_the_report_and_the_exporter_can_be_imported_with_the_core_set_alone(core_alone):
    files = [REPOSITORY / f"{name}.py" for name in WHEEL["py-modules"]]
    for package in WHEEL["packages"]:
        files += (REPOSITORY / package.replace(".", "/")).glob("*.py")
    modules = [".".join(file.relative_to(REPOSITORY).with_suffix("").parts) for file in files]
    need_more = {"demo.curves", "demo.page", "webapp.page"}
    need_more |= {"export.check", "export.folder", "export.graphs", "export.loop"}
    imports = [f"import {name.removesuffix('.__init__')}" for name in sorted(set(modules) - need_more)]
    done = core_alone("\n".join(imports))
    assert done.returncode == 0, done.stderr


def read_annotations(folder: Path) -> None:
    (folder / "captions.json").write_text('[{"caption": "a cat"}]')
    Annotations([folder / "captions.json"], Format("captions", (text("caption"),)))


def draw_events(folder: Path) -> None:
    Events(folder, {"tensorboard": True, "wandb": None}, steps_done=0, is_first=True)


@pytest.mark.parametrize(
    ("package", "extra", "purpose", "use"),
    [
        ("pyarrow", "data", "reading annotation files", read_annotations),
        ("webdataset", "data", "reading shards", lambda folder: shard_files([f"{folder}/*.tar"])),
        ("s3fs", "remote", "reading s3:// shards", lambda _: Shards(["s3://hidden/0.tar"])),
        ("gcsfs", "remote", "reading gs:// shards", lambda _: Shards(["gs://hidden/0.tar"])),
        ("aiohttp", "remote", "reading https:// shards", lambda _: Shards(["https://hidden/0.tar"])),
        ("av", "video", "reading clips", lambda folder: read_frames(folder / "clip.mp4", 4)),
        ("av", "video", "writing clips", lambda folder: write_clip(folder / "clip.mp4", [], fps=8)),
        ("tensorboard", "train", "tensorboard = True (write tensorboard=false to do without)", draw_events),
    ],
)
def test_a_missing_package_is_named_with_the_extra_that_installs_it(
    package, extra, purpose, use, without, tmp_path, monkeypatch
):
    monkeypatch.setenv("BLIP_CACHE", str(tmp_path / "cache"))
    without(package)
    with pytest.raises(MissingPackage) as raised:
        use(tmp_path)
    message = f"{purpose} needs {package}: in this repository's folder, pip install -e '.[{extra}]'"
    assert str(raised.value) == message
    assert raised.value.is_user_error


def test_missing_scorers_are_named_with_the_extra_that_installs_them(without):
    without("pycocoevalcap")
    truth = {"annotations": [{"image_id": 1, "caption": "a cat"}]}
    with pytest.raises(ScorersMissing) as raised:
        score_captions([{"image_id": 1, "caption": "a cat"}], truth)
    assert str(raised.value) == (
        "scoring captions needs pycocoevalcap: in this repository's folder, pip install -e '.[metrics]'"
    )
    assert raised.value.is_user_error


def test_a_demonstration_without_its_packages_ends_before_it_begins(without, tmp_path):
    without("matplotlib")
    with pytest.raises(SystemExit) as ended:
        demonstrate(["--folder", str(tmp_path / "demo")])
    assert ended.value.code == (
        "demo: the demonstration needs matplotlib: in this repository's folder, pip install -e '.[demo]'"
    )
    assert list(tmp_path.iterdir()) == []


def test_drawing_a_world_without_a_writer_of_clips_is_one_line(without, tmp_path, monkeypatch):
    without("av")
    monkeypatch.setattr(sys, "argv", ["data.shapes", "--out", str(tmp_path / "world"), "--images", "60"])
    with pytest.raises(SystemExit) as ended:
        draw_shapes()
    assert ended.value.code.startswith("data.shapes: writing clips needs av: ")


def test_looking_over_data_without_a_reader_of_annotations_is_one_line(without, in_demo_folder, monkeypatch, capsys):
    monkeypatch.setenv("BLIP_CACHE", str(in_demo_folder / "empty_cache"))
    without("pyarrow")
    with pytest.raises(SystemExit) as ended:
        check(["configs/demo/caption.yaml"])
    assert ended.value.code == 2
    assert "error: reading annotation files needs pyarrow: " in capsys.readouterr().err


def test_a_crop_has_the_same_pixels_without_pyarrow(without):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8))
    with_pyarrow = resize(image, 24)
    without("pyarrow")
    assert torch.equal(resize(image, 24), with_pyarrow)
