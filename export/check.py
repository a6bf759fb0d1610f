"""Whether the graphs compute what the model computes that they were made of."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import onnxruntime
import torch
from onnx import ModelProto
from torch import Tensor

from models.base import VisionLanguageModel
from models.blip import BLIPDecoder
from models.blip_itm import BLIPMatcher
from models.generation import SearchOptions
from models.image_text import MAX_TEXT_LENGTH
from models.tokenizer import tokenize
from settings import UserError

TOLERANCE = 1e-4
BEAMS = (1, 3)  # of the searches that are compared: greedy, and as papers report
MAX_LENGTH, MIN_LENGTH = 20, 5

TEXTS = ("a cat on a sofa", "two dogs run across the wet grass, one after the other", "a sign", "rain")


class ExportError(UserError):
    """A graph that computes something else than the model."""


@dataclass(frozen=True)
class Agreement:
    """How far graphs agree with the model.

    Attributes:
        largest_differences: of each output's numbers.
        captions: how many were compared: one for each picture and number of beams.
        captions_that_differ: which do not have the same tokens, as (picture, beams).
    """

    largest_differences: dict[str, float] = field(default_factory=dict)
    captions: int = 0
    captions_that_differ: list[tuple[int, int]] = field(default_factory=list)

    def joined(self, other: "Agreement") -> "Agreement":
        """This and what was found of other graphs or pictures."""
        largest = dict(self.largest_differences)
        for name, value in other.largest_differences.items():
            largest[name] = max(value, largest.get(name, 0.0))
        differ = self.captions_that_differ + other.captions_that_differ
        return Agreement(largest, self.captions + other.captions, differ)

    def check(self) -> None:
        """Raise ExportError for a difference above 1e-4, or another caption."""
        for name, value in self.largest_differences.items():
            if not value <= TOLERANCE:
                raise ExportError(
                    f"{name}: the graph differs from the model by {value:.2g}, more than {TOLERANCE:g}; nothing was "
                    "written. Please report it, with the versions of torch and onnxruntime"
                )
        if self.captions_that_differ:
            image, beams = self.captions_that_differ[0]
            raise ExportError(
                f"{len(self.captions_that_differ)} of {self.captions} captions differ between graph and model, first "
                f"that of picture {image} (from 0) with {beams} beams; nothing was written. A model that was never "
                "trained finds many texts equally good; give pictures that yours was trained for, by --images"
            )

    def stored(self) -> dict[str, Any]:
        """The figures as JSON holds them."""
        return asdict(self)


def session(graph: ModelProto, threads: int = 0) -> onnxruntime.InferenceSession:
    """A graph, ready to run on the CPU; with 0 threads, as many as there are cores."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors: what it warns of is its own optimization
    return onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run(graph: onnxruntime.InferenceSession, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """All outputs of a graph."""
    return [np.asarray(output) for output in graph.run(None, dict(inputs))]


@torch.no_grad()
def compare(model: VisionLanguageModel, graphs: Mapping[str, ModelProto], image: Tensor) -> Agreement:
    """Compare all graphs of a model with it, on images [B, 3, S, S], normalized."""
    sessions = {name: session(graph) for name, graph in graphs.items()}
    states = model.visual_encoder(image)
    outputs = run(sessions["image_encoder"], {"image": image.numpy()})
    found = Agreement({"image_states": _difference(states, outputs[0])})
    if isinstance(model, BLIPMatcher):
        vectors = {"image_vectors": _difference(model.project_image(states), outputs[1])}
        found = found.joined(Agreement(vectors)).joined(_compare_matcher(model, sessions, outputs[0]))
    if isinstance(model, BLIPDecoder):
        found = found.joined(_compare_captions(model, sessions["caption_decoder"], states, outputs[0]))
    return found


def _compare_matcher(
    model: BLIPMatcher, sessions: Mapping[str, onnxruntime.InferenceSession], states: np.ndarray
) -> Agreement:
    """Compare the graphs that read texts, each text with each image."""
    largest = {"text_vectors": 0.0, "logits": 0.0}
    ids, mask = tokenize(model.tokenizer, TEXTS, model.device, max_length=MAX_TEXT_LENGTH)
    vectors = run(sessions["text_encoder"], {"ids": ids.numpy(), "mask": mask.numpy()})[0]
    largest["text_vectors"] = _difference(model.encode_text(TEXTS), vectors)
    ids[:, 0] = model.special.enc
    for row in states:
        image = torch.from_numpy(row)[None].expand(len(ids), -1, -1)
        inputs = {"image_states": image.numpy(), "ids": ids.numpy(), "mask": mask.numpy()}
        expected = model.match_logits(model.text_encoder.project(image[:1]), ids, mask)
        largest["logits"] = max(largest["logits"], _difference(expected, run(sessions["matcher"], inputs)[0]))
    return Agreement(largest)


def _compare_captions(
    model: BLIPDecoder, graph: onnxruntime.InferenceSession, states: Tensor, exported_states: np.ndarray
) -> Agreement:
    """Compare the captions of greedy search and beam search, and the scores of the latter."""
    most = min(MAX_LENGTH, model.text_config.max_position_embeddings)
    memory, differ, largest = model.text_decoder.project(states), [], 0.0
    for beams in BEAMS:
        options = SearchOptions(num_beams=beams, max_length=most, min_length=MIN_LENGTH)
        expected = model.generate_from(memory, options)[1]
        numbers = {"num_beams": beams, "min_length": MIN_LENGTH, "max_length": most}
        inputs = {name: np.array(number) for name, number in numbers.items()}
        ids, scores = run(graph, {"image_states": exported_states, **inputs})
        for image, (row, tokens) in enumerate(zip(expected.ids[:, 0].tolist(), ids[:, 0].tolist(), strict=True)):
            if _text(row, model.special.pad) != _text(tokens, model.special.pad):
                differ.append((image, beams))
            elif beams > 1:  # greedy search of `models` ranks by another score
                largest = max(largest, abs(expected.scores[image, 0].item() - scores[image, 0].item()))
    return Agreement({"caption_scores": largest}, len(BEAMS) * len(states), differ)


def _text(ids: list[int], pad: int) -> list[int]:
    """The ids of a text without the padding at its end."""
    while ids and ids[-1] == pad:
        ids = ids[:-1]
    return ids


def _difference(expected: Tensor, found: np.ndarray) -> float:
    return (expected - torch.from_numpy(found)).abs().max().item()
