"""Captions the images of a split, for COCO and for NoCaps."""

from typing import Any

import torch

from data.loaders import EvalLoader
from engine import Run
from models.blip import BLIPDecoder
from models.generation import SearchOptions
from transform.image import normalize

ON_CUDA, ELSEWHERE = 256, 32  # images at once, where the config does not say; a CPU gains nothing from more


def images_at_once(batch_size: int | None, device: torch.device) -> int:
    """How many images are captioned at once: those that the config says, else as many as serve the device."""
    if batch_size is not None:
        return batch_size
    return ON_CUDA if device.type == "cuda" else ELSEWHERE


def caption_images(
    run: Run[Any], model: BLIPDecoder, images: EvalLoader[Any], options: SearchOptions
) -> list[dict[str, Any]]:
    """Caption each of this process's images -> `{image_id, caption}` each, the format of COCO's server."""
    predictions = []
    for batch in run.batches(images, "caption images"):
        captions, _ = model.generate_n_best(normalize(batch["image"]), options)
        pairs = zip(batch["image_id"], captions, strict=True)
        predictions += [{"image_id": image_id, "caption": best[0]} for image_id, best in pairs]
    return predictions
