"""BLIP's networks for torch.hub, from a clone or a copy of this repository:

    model = torch.hub.load(FOLDER, "blip_decoder", source="local", pretrained="model_base_caption_capfilt_large")

The arguments are those of the functions in `models`. A program that has already imported another package called
`models` cannot load these.
"""

from models.blip import blip_decoder, blip_feature_extractor
from models.blip_itm import blip_itm
from models.blip_nlvr import blip_nlvr
from models.blip_pretrain import blip_pretrain
from models.blip_retrieval import blip_retrieval
from models.blip_vqa import blip_vqa

__all__ = [
    "blip_decoder",
    "blip_feature_extractor",
    "blip_itm",
    "blip_nlvr",
    "blip_pretrain",
    "blip_retrieval",
    "blip_vqa",
]

# Packages that torch.hub checks for, and names if they are missing.
dependencies = [
    "filelock",
    "huggingface_hub",
    "numpy",
    "safetensors",
    "timm",
    "tokenizers",
    "torch",
    "tqdm",
    "transformers",
]
