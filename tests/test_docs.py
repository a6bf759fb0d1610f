"""What the documentation names exists, and its Python runs."""

import ast
import dataclasses
import importlib
import importlib.util
import json
import re
import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from files import REPOSITORY
from models import blip_decoder, blip_itm, blip_nlvr, blip_pretrain, blip_vqa
from models.config import VIT_SIZES
from models.weights.released import RELEASED

PAGES = ["README.md", "CONTRIBUTING.md", *(str(p.relative_to(REPOSITORY)) for p in REPOSITORY.glob("docs/**/*.md"))]
PACKAGES = {folder.name for folder in REPOSITORY.iterdir() if (folder / "__init__.py").exists()} | {"benchmarks"}
FOLDERS = PACKAGES | {"configs", "docs", "tests"}

FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`([^`]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"")
SCRIPT = re.compile(r"(?<![\w/.*$-])[\w/]+\.py\b")
PATH = re.compile(rf"(?<![\w/.-])(?:{'|'.join(FOLDERS)})/[\w./*-]*(?!\$)\b/?")
RUN_MODULE = re.compile(r"python3? -m ([\w.]+)")
DOTTED = re.compile(rf"(?<!-m )(?<![\w/.-])(?:{'|'.join(PACKAGES)})(?:\.[a-zA-Z_]\w*)+")
SHAPE = re.compile(r"  # .*?\[(\d+(?:, \d+)*)\]")


def text_of(page: str) -> str:
    return (REPOSITORY / page).read_text(encoding="utf-8")


def python_of(page: str) -> list[str]:
    return [textwrap.dedent(block) for language, block in FENCE.findall(text_of(page)) if language == "python"]


def code_of(page: str) -> str:
    """The inline code and the commands of a page, one a line."""
    text = text_of(page)
    commands = [block.replace("\\\n", " ") for language, block in FENCE.findall(text) if language in ("", "sh")]
    return "\n".join([*commands, *(code.replace("\n", " ") for code in INLINE.findall(FENCE.sub("", text)))])


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, "CHANGELOG.md"])
def test_links_lead_to_files_and_headings_of_the_repository(page: str) -> None:
    missing = []
    for target in (first or second for first, second in LINK.findall(text_of(page))):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        file = (REPOSITORY / page).parent / path if path else REPOSITORY / page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            missing.append(target)
    assert missing == []


@pytest.mark.parametrize("page", PAGES)
def test_scripts_and_paths_that_a_page_names_exist(page: str) -> None:
    code = code_of(page)
    named = {*SCRIPT.findall(code), *PATH.findall(code)}
    assert sorted(path for path in named if not any(REPOSITORY.glob(path.rstrip("/")))) == []


@pytest.mark.parametrize("page", PAGES)
def test_modules_that_a_page_runs_exist(page: str) -> None:
    missing = []
    for name in RUN_MODULE.findall(code_of(page)):
        path = REPOSITORY / name.replace(".", "/")
        here = path.with_suffix(".py").exists() or (path / "__main__.py").exists()
        if not here and (name.split(".")[0] in PACKAGES or importlib.util.find_spec(name) is None):
            missing.append(name)
    assert missing == []


def resolves(name: str) -> bool:
    """Whether a dotted name is a module of the repository, or something in one."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        path = REPOSITORY.joinpath(*parts[:length])
        if path.is_dir() or path.with_suffix(".py").exists():
            found: Any = importlib.import_module(".".join(parts[:length]))
            for part in parts[length:]:
                found = getattr(found, part, None)
            return found is not None
    return False


@pytest.mark.parametrize("page", PAGES)
def test_dotted_names_of_a_page_can_be_imported(page: str) -> None:
    names = {name for name in DOTTED.findall(code_of(page)) if not name.endswith((".py", ".md", ".json"))}
    for block in python_of(page):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in PACKAGES:
                names |= {f"{node.module}.{alias.name}" for alias in node.names}
    assert sorted(name for name in names if not resolves(name)) == []


@pytest.fixture(scope="module")
def small_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working directory in which 'base' is a small size, and the released names are small random checkpoints."""
    folder = tmp_path_factory.mktemp("docs")
    text = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 1, "intermediate_size": 64}
    (folder / "configs").mkdir()
    for name in ("med_config", "bert_config"):  # found before the repository's own
        (folder / "configs" / f"{name}.json").write_text(json.dumps({**text, "max_position_embeddings": 64}))
    for name, color in (("photo", "red"), ("left", "green"), ("right", "blue")):
        Image.new("RGB", (80, 60), color).save(folder / f"{name}.jpg")
    records = [{"url": f"https://example.org/{i}.jpg", "caption": f"picture {i}"} for i in range(3)]
    (folder / "laion_synthetic_filtered_large.json").write_text(json.dumps(records))

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        monkeypatch.setenv("BLIP_CACHE", str(folder))
        monkeypatch.setenv("BLIP_OFFLINE", "1")
        monkeypatch.setitem(VIT_SIZES, "base", {"embed_dim": 64, "depth": 2, "num_heads": 1, "patch_size": 32})
        torch.manual_seed(0)
        models = {
            "model_base": blip_pretrain(queue_size=8),
            "model_base_caption_capfilt_large": blip_decoder(),
            "model_base_vqa_capfilt_large": blip_vqa(),
            "model_base_retrieval_coco": blip_itm(),
            "model_base_nlvr": blip_nlvr(),
        }
        for name, model in models.items():
            torch.save({"model": model.state_dict()}, folder / f"{name}.pth")
            monkeypatch.setitem(RELEASED, name, dataclasses.replace(RELEASED[name], size=None, sha256=None))
        own = folder / "output" / "caption_coco" / "checkpoint_best.pth"
        own.parent.mkdir(parents=True)
        shutil.copy(folder / "model_base_caption_capfilt_large.pth", own)
        yield folder


def shapes_said(block: str) -> Iterator[tuple[str, list[int]]]:
    """The expressions of a snippet that a comment gives a shape, `x = f(y)  # [2, 3]` -> ('x', [2, 3])."""
    lines = block.splitlines()
    for statement in ast.walk(ast.parse(block)):
        if isinstance(statement, ast.Assign | ast.Expr) and (said := SHAPE.search(lines[statement.end_lineno - 1])):
            shown = statement.targets[0] if isinstance(statement, ast.Assign) else statement.value
            yield ast.unparse(shown), [int(size) for size in said[1].split(", ")]


def run(page: str) -> dict[str, Any]:
    """Run the snippets of a page one after another, hold them to the shapes that they say; the names they leave."""
    names: dict[str, Any] = {}
    for block in python_of(page):
        exec(compile(block, page, "exec"), names)
        for expression, shape in shapes_said(block):
            found = eval(expression, names)
            for tensor in found if isinstance(found, tuple) else [found]:
                assert list(tensor.shape) == shape, expression
    return names


@pytest.mark.parametrize("page", ["docs/checkpoints.md", "docs/data.md"])
def test_python_of_a_page_runs(page: str, small_world: Path) -> None:
    assert run(page)


def test_example_of_the_readme_prints_one_caption(small_world: Path, capsys: pytest.CaptureFixture) -> None:
    run("README.md")
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_python_page_gives_what_it_says(small_world: Path) -> None:
    names = run("docs/python.md")
    assert len(names["captions"]) == 1
    assert len(names["written"]) == 1
    assert sorted(names["order"][0].tolist()) == [0, 1, 2]
    assert names["states"].shape[2] == 64
    assert 0 < names["probability"].item() < 1
    assert names["loss"].item() > 0
    assert (small_world / "my-captioner" / "model.safetensors").is_file()
