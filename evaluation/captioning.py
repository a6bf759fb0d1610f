"""Captions of a split, as captioning and NoCaps both evaluate them."""

from typing import Any

from data.loaders import EvalLoader
from engine import Run
from models.blip import BLIPDecoder
from models.generation import SearchOptions
from transform.image import normalize


def caption_images(
    run: Run[Any], model: BLIPDecoder, images: EvalLoader[Any], options: SearchOptions
) -> list[dict[str, Any]]:
    """A caption of every one of this process's images: `{image_id, caption}` each, as COCO's server takes it."""
    predictions = []
    for batch in run.batches(images, "caption images"):
        captions, _ = model.generate_n_best(normalize(batch["image"]), options)
        pairs = zip(batch["image_id"], captions, strict=True)
        predictions += [{"image_id": image_id, "caption": best[0]} for image_id, best in pairs]
    return predictions
