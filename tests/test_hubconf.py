"""`torch.hub` finds the networks in a clone of this repository."""

import ast
import importlib
import inspect
import os
import subprocess
import sys

import pytest
import torch

import hubconf
import models
from files import REPOSITORY

FUNCTIONS = [name for name in models.__all__ if name.startswith("blip_")]

LOAD = """
import sys, torch

folder, checkpoint, med_config = sys.argv[1:]
vit = {"embed_dim": 48, "depth": 2, "num_heads": 3, "patch_size": 16}
sizes = {"vit": vit, "image_size": 64, "med_config": med_config}
model = torch.hub.load(folder, "blip_decoder", source="local", pretrained=checkpoint, **sizes).eval()
assert folder not in sys.path  # what is imported later must not hang on it
from models.med import BertModel

stored = torch.load(checkpoint, weights_only=True)["model"]["visual_encoder.cls_token"]
assert torch.equal(model.visual_encoder.cls_token, stored)
print(model.generate(torch.zeros(1, 3, 64, 64), num_beams=1)[0])
"""


def test_a_network_with_weights_is_loaded_from_another_folder(golden, tiny, tmp_path):
    command = [sys.executable, "-c", LOAD, REPOSITORY, golden("caption/checkpoint.pth"), tiny["med_config"]]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_network_is_the_function_of_models_with_its_arguments_and_description(name, tiny):
    function, networks = getattr(hubconf, name), importlib.import_module(getattr(hubconf, name).__module__)
    assert function is getattr(networks, name)
    assert function.__doc__
    assert list(inspect.signature(function).parameters)[:2] == ["pretrained", "med_config"]
    queue = {"queue_size": 8} if name in ("blip_pretrain", "blip_retrieval") else {}
    assert isinstance(torch.hub.load(str(REPOSITORY), name, source="local", **tiny, **queue), torch.nn.Module)


def test_what_models_imports_is_named_for_torch_hub():
    imported = set()
    for file in (REPOSITORY / "models").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(node.module.split(".")[0])
    assert imported - set(sys.stdlib_module_names) - {"models"} == set(hubconf.dependencies)
