"""Captions the images of a split, for COCO and for NoCaps."""

from typing import Any

from data.loaders import EvalLoader
from engine import Run
from models.blip import BLIPDecoder
from models.generation import SearchOptions
from transform.image import normalize


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
