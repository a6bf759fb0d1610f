"""Rooms import each other in one direction only: checked in the import statements of every file."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from files import REPOSITORY

# What a room may import of the repository, itself apart; "models" means all of models, "models.errors" that module.
# Scripts, and what UNRESTRICTED names, may import every room; a room that stands nowhere is an error.
ALLOWED = {
    "models": (),
    "metrics": (),
    "transform": ("models.pixels",),
    "settings": ("models.errors", "models.paths", "models.config", "models.generation"),
    "files": ("models.paths", "models.weights.address", "models.weights.download"),
    "data": ("transform", "settings", "files"),
    "engine": ("settings", "files", "models.library_internals", "models.weights.integrity"),
    "prediction": ("data", "engine.device", "models", "transform", "settings", "files"),
    "verify": ("data", "engine.device", "models", "transform", "settings", "files"),
    "export": ("data", "models", "transform", "settings", "files"),
    "evaluation": ("engine", "data", "metrics", "models", "transform", "settings", "files"),
    "webapp": ("prediction", "evaluation.web_page", "data", "models", "settings", "files"),
    "bootstrapping": ("evaluation", "engine", "data", "models", "transform", "settings", "files"),
}
UNRESTRICTED = ("demo", "benchmarks", "tests", "hubconf")
NO_SCRIPTS = ("files", "hubconf")  # modules beside the scripts that others import
MAY_IMPORT_SCRIPTS = ("demo", "benchmarks", "tests")


def violations(root: Path) -> list[str]:
    """What is wrong with the imports of the repository at `root`, each with file and line."""
    rooms = {path.stem for path in root.glob("*.py")} | {path.parent.name for path in root.glob("[!.]*/*.py")}
    scripts = {path.stem for path in root.glob("*.py")} - set(NO_SCRIPTS)
    files = [file for room in sorted(rooms) for file in (root / f"{room}.py", *sorted((root / room).rglob("*.py")))]
    found = []
    for file in filter(Path.is_file, files):
        room = file.relative_to(root).with_suffix("").parts[0]
        for line, module in _imports(file, root):
            place = f"{file.relative_to(root).as_posix()}:{line} imports {module}"
            target = module.split(".")[0]
            if target not in rooms:
                continue
            free = room in scripts or room in UNRESTRICTED
            allowed = (room, *ALLOWED[room]) if room in ALLOWED else tuple(rooms) if free else (room,)
            if not any(module == name or module.startswith(f"{name}.") for name in allowed):
                found.append(f"{place}: {room} may import only {', '.join(allowed)}")
            if target in scripts and room not in (*scripts, *MAY_IMPORT_SCRIPTS):
                found.append(f"{place}: a script, which only {', '.join(MAY_IMPORT_SCRIPTS)} and scripts may import")
            if target != "tests":
                found += [f"{place}: {folder}/ has no __init__.py" for folder in _bare_folders(module, root)]
    return found


def _imports(file: Path, root: Path) -> Iterator[tuple[int, str]]:
    """(line, module) of each import of a file, wherever in the file it stands."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = file.relative_to(root).parts[: -node.level] if node.level else ()
            parts = (*package, *(node.module.split(".") if node.module else ()))
            for alias in node.names:  # `from models import med` imports models.med
                path = root.joinpath(*parts, alias.name)
                is_module = path.is_dir() or path.with_suffix(".py").is_file()
                yield node.lineno, ".".join((*parts, alias.name) if is_module else parts)


def _bare_folders(module: str, root: Path) -> Iterator[str]:
    """The folders on the way to a module that are no packages."""
    folder = root
    for part in module.split("."):
        folder = folder / part
        if folder.is_dir() and not (folder / "__init__.py").is_file():
            yield folder.relative_to(root).as_posix()


def test_every_import_runs_in_the_direction_of_the_plan():
    assert violations(REPOSITORY) == []


@pytest.fixture
def house(tmp_path):
    for room in ("models", "data", "engine", "metrics", "settings", "demo"):
        (tmp_path / room).mkdir()
        (tmp_path / room / "__init__.py").touch()
    for file in ("models/errors.py", "models/med.py", "data/caption.py", "settings/reader.py", "files.py", "train.py"):
        (tmp_path / file).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("file", "text", "wrong"),
    [
        (
            "models/blip.py",
            "import torch\nfrom data.caption import x",
            "models/blip.py:2 imports data.caption: models may",
        ),
        ("models/blip.py", "from settings import check", "imports settings: models may import only models"),
        ("models/blip.py", "from .. import data", "imports data: models may import only models"),
        ("metrics/vqa.py", "import models.errors", "imports models.errors: metrics may import only metrics"),
        ("data/vqa.py", "def f():\n    from models import med", "data/vqa.py:2 imports models.med: data may"),
        ("data/vqa.py", "import engine", "imports engine: data may import only data, transform, settings, files"),
        ("engine/run.py", "from data import caption", "imports data.caption: engine may"),
        ("settings/model.py", "from models.med import TextModel", "imports models.med: settings may"),
        ("settings/model.py", "import train", "imports train: settings may"),
        ("evaluation.py", "import train", "imports train: evaluation may"),
        ("hubconf.py", "import train", "imports train: a script, which only demo, benchmarks, tests and scripts"),
        ("demo/page.py", "import data.records.table", "imports data.records.table: data/records/ has no __init__.py"),
    ],
)
def test_an_import_against_the_plan_is_found(house, file, text, wrong):
    for name in (file, "data/records/table.py"):
        (house / name).parent.mkdir(exist_ok=True)
    (house / "data/records/table.py").touch()
    (house / file).write_text(text)
    found = violations(house)
    assert len(found) >= 1
    assert wrong in found[0]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("models/blip.py", "import data_of_others\nfrom models.errors import check\nfrom . import med"),
        ("settings/model.py", "from models import errors\nfrom settings.reader import load_config"),
        ("data/vqa.py", "import files\nfrom settings import check\nfrom data import caption"),
        ("demo/page.py", "import train\nfrom models import med"),
        ("eval.py", "import train\nimport engine"),
    ],
)
def test_an_import_along_the_plan_is_not(house, file, text):
    (house / file).write_text(text)
    assert violations(house) == []
