"""The models of the installed `transformers`, with the weights of ours."""

import tempfile
from typing import Any

from benchmarks.context import Context
from models.blip import BLIPDecoder
from models.blip_itm import BLIPMatcher
from models.weights.huggingface import save_huggingface


def converted(kind: Any, model: BLIPDecoder | BLIPMatcher, context: Context) -> Any:
    """A model of class `kind` with the weights of `model`, on the device, in eval mode."""
    with tempfile.TemporaryDirectory(dir=context.folder) as folder:
        save_huggingface(model, folder)
        return kind.from_pretrained(folder).to(context.device).eval()
