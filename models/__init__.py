"""BLIP's networks (arXiv 2201.12086): a function builds each, with the weights of a checkpoint if wanted.

    from models import blip_decoder

    model = blip_decoder(pretrained="model_base_caption_capfilt_large", image_size=384).eval()
    captions = model.generate(images)

This package imports nothing of the repository outside itself, and can be copied into another project together with
`configs/`. Each name is imported at its first use, so `import models` alone does not load torch.
"""

from typing import TYPE_CHECKING

from models.face import lazy_names

if TYPE_CHECKING:
    from models.blip import blip_decoder, blip_feature_extractor
    from models.blip_itm import blip_itm
    from models.blip_nlvr import blip_nlvr
    from models.blip_pretrain import blip_pretrain
    from models.blip_retrieval import blip_retrieval
    from models.blip_vqa import blip_vqa
    from models.weights.build import build_from_checkpoint
    from models.weights.load import load_checkpoint
else:
    __getattr__ = lazy_names(
        __name__,
        {
            "blip_decoder": "models.blip",
            "blip_feature_extractor": "models.blip",
            "blip_itm": "models.blip_itm",
            "blip_nlvr": "models.blip_nlvr",
            "blip_pretrain": "models.blip_pretrain",
            "blip_retrieval": "models.blip_retrieval",
            "blip_vqa": "models.blip_vqa",
            "build_from_checkpoint": "models.weights.build",
            "load_checkpoint": "models.weights.load",
        },
    )

__all__ = [
    "blip_decoder",
    "blip_feature_extractor",
    "blip_itm",
    "blip_nlvr",
    "blip_pretrain",
    "blip_retrieval",
    "blip_vqa",
    "build_from_checkpoint",
    "load_checkpoint",
]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
