"""`models` shows its functions, costs nothing to import, and runs without the rest of the repository."""

import inspect
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import models
from models.paths import REPOSITORY

NETWORKS = ["blip_itm", "blip_nlvr", "blip_pretrain", "blip_retrieval", "blip_vqa"]
FUNCTIONS = ["blip_decoder", "blip_feature_extractor", *NETWORKS]

BUILD_AND_CALL = """
import torch
from models.blip import blip_decoder
from models.blip_itm import blip_itm

sizes = {"vit": {"embed_dim": 16, "depth": 1, "num_heads": 2, "patch_size": 16}, "image_size": 32}
captioner = blip_decoder(**sizes).eval()
assert captioner.text_config.num_hidden_layers == 12
assert isinstance(captioner.generate(torch.zeros(1, 3, 32, 32), num_beams=1, max_length=7, min_length=5)[0], str)
tiny = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
matcher = blip_itm(med_config=tiny, embed_dim=8, **sizes).eval()
assert matcher(torch.zeros(1, 3, 32, 32), ["a dog"]).shape == (1, 2)
"""

# Each statement runs as if nothing of `models` had been imported, in one process, since torch takes seconds.
AFRESH = """
import sys

for statement in {statements!r}:
    for name in [name for name in sys.modules if name.split(".")[0] == "models"]:
        del sys.modules[name]
    exec(statement)
    print({shown})
"""


def run(script: str, folder: Path, *paths: Path) -> str:
    """What a fresh Python prints that runs the script in a folder, with only these on its path."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_every_name_is_the_function_of_its_module():
    from models.blip import blip_decoder
    from models.weights.build import build_from_checkpoint
    from models.weights.load import load_checkpoint

    assert models.blip_decoder is blip_decoder
    assert models.build_from_checkpoint is build_from_checkpoint
    assert models.load_checkpoint is load_checkpoint
    assert set(models.__all__) == {*FUNCTIONS, "build_from_checkpoint", "load_checkpoint"}
    assert set(models.__all__) <= set(dir(models))
    for name in models.__all__:
        assert callable(getattr(models, name))
    with pytest.raises(AttributeError, match="module 'models' has no attribute 'blip_decodr'"):
        models.blip_decodr  # noqa: B018


@pytest.mark.parametrize("name", FUNCTIONS)
def test_signatures_show_every_argument(name):
    function = getattr(models, name)
    arguments = inspect.signature(function).parameters
    assert list(arguments)[:3] == ["pretrained", "med_config", "image_size"]
    assert all(each.kind is not inspect.Parameter.VAR_KEYWORD for each in arguments.values())


def test_a_function_that_shares_its_modules_name_is_called_however_it_is_imported(tiny, tmp_path):
    imports = (
        "from models import blip_itm",
        "import models; blip_itm = models.blip_itm",
        "import models.blip_itm; blip_itm = models.blip_itm",
        "from models.blip_itm import blip_itm",
        "from models import blip_itm; import models.blip_itm",
        "import models.blip_itm as blip_itm",
    )
    sizes = {**tiny, "med_config": str(tiny["med_config"]), "embed_dim": 16}
    built = run(AFRESH.format(statements=imports, shown=f"type(blip_itm(**{sizes!r})).__name__"), tmp_path, REPOSITORY)
    assert built.split() == ["BLIPMatcher"] * len(imports)


def test_importing_the_package_loads_no_torch(tmp_path):
    script = "import models, sys; print(sorted({'torch', 'timm', 'transformers', 'numpy'} & set(sys.modules)))"
    assert run(script, tmp_path, REPOSITORY) == "[]"


def test_every_module_can_be_the_first_that_is_imported(tmp_path):
    modules = ("blip", "med", "names_2022", "bert_calls", "vit", "weights.load", "weights.build")
    imports = tuple(f"import models.{module}; from models.med import BertModel" for module in modules)
    assert run(AFRESH.format(statements=imports, shown="BertModel.__name__"), tmp_path, REPOSITORY).split() == [
        "BertModel"
    ] * len(modules)


def test_models_do_not_mind_a_programs_own_modules_of_the_names_that_this_repository_uses(tmp_path):
    for name in ("utils", "data", "settings", "files", "engine", "metrics", "transform", "evaluation"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('a client of models has no need of this')")
    run(BUILD_AND_CALL, tmp_path, tmp_path, REPOSITORY)


def test_a_project_that_copied_models_and_configs_needs_nothing_else(tmp_path):
    project = tmp_path / "project"
    for folder in ("models", "configs"):
        shutil.copytree(REPOSITORY / folder, project / folder, ignore=shutil.ignore_patterns("__pycache__"))
    run(BUILD_AND_CALL, tmp_path, project)  # from another working directory
