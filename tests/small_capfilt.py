"""A CapFilt run that takes a second: a captioner and a filter with random weights, and its command line."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from files import REPOSITORY
from models.blip import blip_decoder
from models.blip_itm import blip_itm
from tests.small_model import TEXT, VIT


def write_checkpoints(folder: Path) -> tuple[Path, Path]:
    """A captioner and a filter, of different image sizes, in `folder`."""
    torch.manual_seed(0)
    captioner = blip_decoder(med_config=TEXT, vit=VIT, image_size=32)
    matcher = blip_itm(med_config=TEXT, vit=VIT, image_size=48, embed_dim=16)
    files = folder / "captioner.pth", folder / "filter.pth"
    for model, file in zip((captioner, matcher), files, strict=True):
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.15)
        torch.save({"model": model.state_dict(), "config": {"med_config": TEXT, "vit": VIT}}, file)
    return files


def command_line(output: Path, checkpoints: tuple[Path, Path], pairs: tuple[Path, Path], **keys: Any) -> list[str]:
    """The arguments of a run over a list and the folder of its pictures, with keys replaced and added."""
    given = {
        "corpus": [str(pairs[0])],
        "image_root": str(pairs[1]),
        "captioner": str(checkpoints[0]),
        "filter": str(checkpoints[1]),
        "unit_size": 10,
        "batch_size": 4,
        "num_workers": 1,
        **keys,
    }
    overrides = [f"{key}={json.dumps(value)}" for key, value in given.items()]
    config = str(REPOSITORY / "configs/capfilt.yaml")
    return ["--config", config, "--output_dir", str(output), "--device", "cpu", *overrides]


def score_files(folder: Path) -> dict[str, str]:
    """The hash of each score file of a run, by its name."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted((folder / "scores").iterdir())}


def pairs_of_web(demo_folder: Path) -> tuple[Path, Path]:
    """The list of the noisy web's pairs in `demo_folder`, and the folder of its pictures."""
    web = demo_folder / "output" / "demo" / "web"
    return web / "pretrain.json", web / "images"
