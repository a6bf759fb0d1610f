"""The graphs of a model: which there are, and their inputs and outputs."""

import logging
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import ModelProto
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import nn
from torch.export import Dim
from torch.utils._pytree import tree_map

from export.loop import caption_loop
from export.networks import (
    ImageAndVectorEncoder,
    ImageEncoder,
    Matcher,
    SearchEnd,
    SearchStart,
    SearchState,
    SearchStep,
    TextEncoder,
)
from models.base import VisionLanguageModel
from models.blip import BLIPDecoder
from models.blip_itm import BLIPMatcher

Graphs = dict[str, ModelProto]  # by the name of their file, without its suffix

_ANY = Dim.DYNAMIC
_IMAGES = 2  # of the example that the exporter follows
_BEAMS = 3


@torch.no_grad()
def traced_parts(model: VisionLanguageModel) -> Graphs:
    """The parts of a captioner or a matcher, as the exporter makes them; `whole_graphs` says what is made of them."""
    size = model.visual_encoder.image_size
    image = torch.zeros(_IMAGES, 3, size, size)
    if isinstance(model, BLIPDecoder):
        encoder = traced(ImageEncoder(model), (image,), [{0: _ANY}], ["image"], ["image_states"])
        return {"image_encoder": encoder, **_search_parts(model)}
    if not isinstance(model, BLIPMatcher):
        raise TypeError(f"{type(model).__name__}: only captioners and matchers can be exported")
    outputs = ["image_states", "image_vectors"]
    ids = torch.full((_IMAGES, 5), model.special.sep)
    mask, states, text = torch.ones_like(ids), _example_states(model), {0: _ANY, 1: _ANY}
    return {
        "image_encoder": traced(ImageAndVectorEncoder(model), (image,), [{0: _ANY}], ["image"], outputs),
        "text_encoder": traced(TextEncoder(model), (ids, mask), [text, text], ["ids", "mask"], ["text_vectors"]),
        "matcher": traced(
            Matcher(model), (states, ids, mask), [{0: _ANY}, text, text], ["image_states", "ids", "mask"], ["logits"]
        ),
    }


def _search_parts(model: BLIPDecoder) -> Graphs:
    """The parts of a beam search, followed from an example of two images and three beams."""
    states, beams, min_length = _example_states(model), torch.arange(_BEAMS), torch.tensor(5)
    start, step = SearchStart(model).eval(), SearchStep(model).eval()
    search, memory, cache = start(states, beams, min_length)
    text, score = {0: _ANY, 1: _ANY, 2: _ANY}, {0: _ANY, 1: _ANY}
    state = SearchState._make([text, score, text, score, {0: _ANY}, {0: _ANY}])
    cached, remembered = tree_map(lambda _: {0: _ANY, 2: _ANY}, cache), tree_map(lambda _: {0: _ANY}, memory)
    return {
        "search_start": traced(start, (states, beams, min_length), [{0: _ANY}, {0: _ANY}, None]),
        "search_step": traced(step, (search, cache, memory, min_length), [state, cached, remembered, None]),
        "search_end": traced(SearchEnd(), search[:-1], list(state[:-1])),
    }


def whole_graphs(model: VisionLanguageModel, parts: Graphs) -> Graphs:
    """The graphs that programs use, made of a model's traced parts, which may have got 8-bit weights.

    - `image_encoder`: image [B, 3, S, S], normalized -> image_states [B, T, D], and of a matcher image_vectors [B, E]
    - `caption_decoder`: image_states, and the scalars num_beams, min_length, max_length -> ids [B, beams, L], the best
      first, and scores [B, beams]
    - `text_encoder`: ids [B, L], mask -> text_vectors [B, E]
    - `matcher`: image_states [B, T, D], ids [B, L], mask -> logits [B, 2] of the pairs; index 1 is "they match"
    """
    graphs = {name: graph for name, graph in parts.items() if not name.startswith("search_")}
    if isinstance(model, BLIPDecoder):
        start, step, end = (parts[f"search_{part}"] for part in ("start", "step", "end"))
        graphs["caption_decoder"] = caption_loop(start, step, end, model.prompt_length)
    return graphs


def traced(
    module: nn.Module,
    example: tuple[Any, ...],
    dynamic: Sequence[Any],
    inputs: Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
) -> ModelProto:
    """The graph of a module.

    Args:
        example: arguments to follow the computation with.
        dynamic: for each of them, the dimensions whose size may be another.
        inputs, outputs: the names that they get.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about its own code
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            module.eval(),
            example,
            dynamo=True,
            dynamic_shapes=tuple(dynamic),
            input_names=inputs,
            output_names=outputs,
            verbose=False,
        )
    assert program is not None
    return program.model_proto


def with_int8_weights(graph: ModelProto) -> ModelProto:
    """The graph with 8-bit weights in its matrix products, whose inputs are made 8 bits wide as they come."""
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder, "fp32.onnx"), Path(folder, "int8.onnx")
        onnx.save(graph, before)
        logging.disable(logging.WARNING)  # it recommends to optimize the graph first, which the exporter has done
        try:
            quantize_dynamic(before, after, weight_type=QuantType.QInt8, per_channel=True)
        finally:
            logging.disable(logging.NOTSET)
        return onnx.load(after)


def _example_states(model: VisionLanguageModel) -> torch.Tensor:
    patches = model.visual_encoder.patch_embed.num_patches
    return torch.linspace(-1, 1, _IMAGES * (1 + patches) * model.vision_width).view(_IMAGES, 1 + patches, -1)
