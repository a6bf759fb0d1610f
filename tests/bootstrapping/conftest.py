"""A small corpus of pictures, and a captioner and a filter with random weights."""

import pytest
import torch

from models.blip import blip_decoder
from models.blip_itm import blip_itm
from tests.small_model import TEXT, VIT


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    """(captioner, filter): of different image sizes."""
    folder = tmp_path_factory.mktemp("checkpoints")
    torch.manual_seed(0)
    captioner = blip_decoder(med_config=TEXT, vit=VIT, image_size=32)
    matcher = blip_itm(med_config=TEXT, vit=VIT, image_size=48, embed_dim=16)
    files = folder / "captioner.pth", folder / "filter.pth"
    for model, file in zip((captioner, matcher), files, strict=True):
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.15)
        torch.save({"model": model.state_dict(), "config": {"med_config": TEXT, "vit": VIT}}, file)
    return files


@pytest.fixture(scope="session")
def corpus(demo_folder):
    """(list of the noisy web's pairs, folder of its pictures)."""
    web = demo_folder / "output" / "demo" / "web"
    return web / "pretrain.json", web / "images"
