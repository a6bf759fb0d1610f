"""Latency and throughput on a CPU: our Python, its ONNX graphs under onnxruntime, and Hugging Face's model.

    python -m benchmarks.deploy [--pictures 64] [--batch_size 16] [--threads 2] [--rounds 1]

A ViT-B captioner at 384 pixels with random weights. Two jobs: `caption`, from normalized pixels to tokens by 3 beams,
up to 20 tokens with the prompt; and `encode`, the image encoder alone, which the installed OpenVINO, if any, also runs,
from the same graph with its weights as 16-bit floats. Each way answers one picture, and all pictures in batches, by the
clock on the wall. The ways take turns, and of the rounds the fastest counts. Random weights never end a text, so that
all ways decode equally many tokens. Results go to benchmarks/results/deploy.json.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor
from transformers import BlipForConditionalGeneration

from benchmarks.made_up import pixels
from benchmarks.measurement import RESULTS, commit, machine, save
from export.check import run, session
from export.graphs import Graphs, traced_parts, whole_graphs, with_int8_weights
from models.blip import BLIPDecoder
from models.generation import SearchOptions
from models.weights.huggingface import save_huggingface
from settings.flags import Parser, at_least, file_path
from transform.image import normalize

Way = Callable[[Tensor], object]  # what a way does with images [B, 3, S, S], normalized

BEAMS, MIN_LENGTH, MAX_LENGTH = 3, 5, 20
SIZE = 384


def ours(model: BLIPDecoder, dtype: torch.dtype) -> dict[str, Way]:
    """The jobs as `predict.py` does them."""

    @torch.no_grad()
    def caption(image: Tensor) -> object:
        with torch.autocast("cpu", dtype=dtype, enabled=dtype is not torch.float32):
            options = SearchOptions(num_beams=BEAMS, min_length=MIN_LENGTH, max_length=MAX_LENGTH)
            return model.generate_n_best(image, options)

    @torch.no_grad()
    def encode(image: Tensor) -> object:
        with torch.autocast("cpu", dtype=dtype, enabled=dtype is not torch.float32):
            return model.visual_encoder(image)

    return {"caption": caption, "encode": encode}


def by_onnxruntime(graphs: Graphs, threads: int) -> dict[str, Way]:
    """The jobs by the graphs of an export."""
    encoder, decoder = (session(graphs[name], threads) for name in ("image_encoder", "caption_decoder"))
    search = {"num_beams": BEAMS, "min_length": MIN_LENGTH, "max_length": MAX_LENGTH}
    numbers = {name: np.array(number) for name, number in search.items()}

    def encode(image: Tensor) -> np.ndarray:
        return run(encoder, {"image": image.numpy()})[0]

    def caption(image: Tensor) -> object:
        return run(decoder, {"image_states": encode(image), **numbers})

    return {"caption": caption, "encode": encode}


def by_openvino(graph: onnx.ModelProto, threads: int, folder: Path) -> dict[str, Way]:
    """The image encoder by OpenVINO, its weights stored as 16-bit floats; no way where it is not installed."""
    try:
        import openvino  # pyright: ignore[reportMissingImports]: no requirement of this repository
    except ModuleNotFoundError:
        return {}
    onnx.save(graph, folder / "encoder.onnx")
    openvino.save_model(openvino.convert_model(folder / "encoder.onnx"), folder / "encoder.xml", compress_to_fp16=True)
    compiled = openvino.Core().compile_model(folder / "encoder.xml", "CPU", {"INFERENCE_NUM_THREADS": threads})
    return {"encode": lambda image: compiled(image.numpy())}


def by_hugging_face(model: BLIPDecoder, folder: Path) -> dict[str, Way]:
    """The jobs by the model of `transformers`, as its documentation calls it."""
    save_huggingface(model, folder / "hugging_face")
    theirs: Any = BlipForConditionalGeneration.from_pretrained(folder / "hugging_face").eval()
    prompt = torch.tensor([[*model.prompt_ids, model.special.sep]])  # `generate` leaves the last one out
    lengths = {"num_beams": BEAMS, "min_length": MIN_LENGTH, "max_length": MAX_LENGTH}

    @torch.no_grad()
    def caption(image: Tensor) -> object:
        return theirs.generate(image, input_ids=prompt.repeat(len(image), 1), **lengths)

    @torch.no_grad()
    def encode(image: Tensor) -> object:
        return theirs.vision_model(image).last_hidden_state

    return {"caption": caption, "encode": encode}


def measure(folder: Path, pictures: int, batch_size: int, threads: int, rounds: int) -> dict[str, Any]:
    """All figures; files are made in `folder`."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = BLIPDecoder(image_size=SIZE, vit="base").eval()
    parts = traced_parts(model)
    graphs = whole_graphs(model, parts)
    smaller = whole_graphs(model, {name: with_int8_weights(part) for name, part in parts.items()})
    ways = {
        "ours, fp32": ours(model, torch.float32),
        "ours, bf16": ours(model, torch.bfloat16),
        "onnxruntime, fp32": by_onnxruntime(graphs, threads),
        "onnxruntime, int8": by_onnxruntime(smaller, threads),
        "OpenVINO, fp16 weights": by_openvino(graphs["image_encoder"], threads, folder),
        "Hugging Face, fp32": by_hugging_face(model, folder),
    }
    image = normalize(pixels(max(pictures, batch_size), SIZE))[:pictures]
    seconds: dict[str, dict[str, dict[str, float]]] = {}
    for job in ("encode", "caption"):
        able = {name: jobs[job] for name, jobs in ways.items() if job in jobs}
        for way in able.values():
            way(image[:1])  # the first call prepares
        seconds[job] = {name: {"one": float("inf"), "all": float("inf")} for name in able}
        for _ in range(rounds):
            for name, way in able.items():
                least = seconds[job][name]
                least["one"] = min(least["one"], _seconds(way, image[:1], 1))
                least["all"] = min(least["all"], _seconds(way, image, batch_size))
                print(
                    f"{job}  {name:24} {least['one']:8.3f} s one, {pictures / least['all']:8.2f} pictures/s", flush=True
                )
    return {
        "what": f"ViT-B captioner at {SIZE} pixels, random weights, {BEAMS} beams, up to {MAX_LENGTH} tokens",
        "pictures": pictures,
        "batch_size": batch_size,
        "threads": threads,
        "rounds": rounds,
        "seconds": seconds,
        "bytes": {"fp32": _bytes(graphs), "int8": _bytes(smaller)},
        "machine": machine() | {name: version(name) for name in ("onnxruntime", "onnx")},
        "commit": commit(),
    }


def _seconds(way: Way, image: Tensor, batch_size: int) -> float:
    start = time.perf_counter()
    for batch in image.split(batch_size):
        way(batch)
    return time.perf_counter() - start


def _bytes(graphs: Graphs) -> dict[str, int]:
    return {name: graph.ByteSize() for name, graph in graphs.items()}


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=at_least(1), default=64)
    parser.add_argument("--batch_size", type=at_least(1), default=16)
    parser.add_argument("--threads", type=at_least(1), default=2)
    parser.add_argument("--rounds", type=at_least(1), default=1)
    parser.add_argument("--out", type=file_path, default=RESULTS / "deploy.json")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), flags.pictures, flags.batch_size, flags.threads, flags.rounds)
    save(flags.out, result)


if __name__ == "__main__":
    main()
