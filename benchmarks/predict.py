"""`predict.py caption` from files to captions, against Hugging Face's model on the same weights.

    python -m benchmarks.predict [--pictures 64] [--threads 2] [--precisions fp32 bf16] [--rounds 1]

A ViT-B captioner at 384 pixels with random weights describes JPEG files of 640x480 pixels on a CPU, by 3 beams, up to
20 tokens with the prompt, 32 pictures at once (OpenVINO 16). Each way is a process of its own, timed from its start to
its end, so that reading the weights and the pictures counts:

- ours: `predict.py caption`; with bf16 its `--precision bf16`, which keeps the weights in float32;
- Hugging Face: `benchmarks.predict_hugging_face`, `BlipImageProcessor` and `generate`; with bf16 its weights are bf16;
- OpenVINO, where it is installed: `benchmarks.predict_openvino`, Hugging Face's model converted beforehand, its weights
  16-bit floats; it computes in float32 or in bf16.

The ways take turns. Beam searches of ours and of Hugging Face score differently, and their resizing differs in gray
levels, so what is compared is the share of pictures that get the same caption in greedy search, in fp32. Wall time is
measured, on a machine with nothing else to do, and beside it the processor time of all threads. Results go to
benchmarks/results/predict.json.
"""

import argparse
import importlib.util
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.measurement import commit, machine, save
from benchmarks.predict_hugging_face import DTYPES, PROMPT
from files import REPOSITORY
from models.blip import BLIPDecoder
from models.weights.huggingface import save_huggingface
from settings.flags import Parser, at_least

OURS = "ours"
HAS_OPENVINO = importlib.util.find_spec("openvino") is not None
COMPARED = 8  # pictures whose greedy captions are compared


@dataclass(frozen=True)
class Times:
    """Seconds of a process: by the clock on the wall, and of all its threads together."""

    wall: float
    processor: float


def draw_pictures(folder: Path, number: int) -> None:
    """Pictures of colored clouds, which a JPEG file holds about as well as photographs."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for i in range(number):
        clouds = Image.fromarray(random.integers(256, size=(12, 16, 3), dtype=np.uint8))
        clouds.resize((640, 480), Image.Resampling.BICUBIC).save(folder / f"{i:04}.jpg", quality=90)


def ways(model: BLIPDecoder, folder: Path) -> dict[str, list[str]]:
    """The command of each way, its model written to `folder`; the pictures and what differs from run to run follow."""
    save_huggingface(model, folder / "model")
    module, saved = [sys.executable, "-m"], str(folder / "model")
    script = [sys.executable, "predict.py", "caption", "--checkpoint", saved, "--device", "cpu"]
    found = {
        OURS: [*script, "--max_length", "20", "--min_length", "5", "--prompt", PROMPT],
        "hugging_face": [*module, "benchmarks.predict_hugging_face", saved],
    }
    if HAS_OPENVINO:
        from benchmarks.predict_openvino import convert  # which cannot be imported without it

        convert(folder / "model", folder / "converted")
        # Of 32 pictures at once the OpenVINO that was measured, 2026.4.1, ended in a segmentation fault.
        converted = [str(folder / "converted"), "--batch_size", "16"]
        found["openvino"] = [*module, "benchmarks.predict_openvino", *converted]
    else:
        print("openvino is not installed: left out")
    return found


def run(
    command: Sequence[str], pictures: Path, precision: str, threads: int, beams: int = 3
) -> tuple[Times, list[str]]:
    """Caption a folder of pictures in one of the ways -> its times, and the captions in the order of their names."""
    options = [str(pictures), "--precision", precision, "--num_beams", str(beams)]
    out = pictures.with_suffix(".jsonl") if "predict.py" in command else None  # the others print a caption a line
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [*command, *options, *(["--out", str(out)] if out else [])],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    if not out:
        return Times(wall, processor), done.stdout.splitlines()
    records = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    captions = {record["image"]: record["caption"] for record in records}
    return Times(wall, processor), [captions[name] for name in sorted(captions)]


def measure(folder: Path, pictures: int, precisions: Sequence[str], threads: int, rounds: int) -> dict[str, Any]:
    """All figures; the files are made in `folder`."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    commands = ways(BLIPDecoder(image_size=384, vit="base"), folder)
    draw_pictures(folder / "few", min(COMPARED, pictures))
    draw_pictures(folder / "all", pictures)
    greedy = {way: run(each, folder / "few", "fp32", threads, beams=1)[1] for way, each in commands.items()}
    least: dict[str, dict[str, Any]] = {}
    for precision in precisions:
        found: dict[str, list[Times]] = {way: [] for way in commands}
        for _ in range(rounds):
            for way, each in commands.items():
                times, captions = run(each, folder / "all", precision, threads)
                if len(captions) != pictures:
                    raise RuntimeError(f"{way} wrote {len(captions)} captions of {pictures} pictures")
                found[way].append(times)
        least[precision] = {way: asdict(min(found[way], key=lambda one: one.wall)) for way in commands}
    return {
        "what": f"predict.py caption, {pictures} JPEG files of 640x480, ViT-B at 384 pixels, 3 beams",
        "threads": threads,
        "rounds": rounds,
        "share_of_same_greedy_captions": same_captions(greedy),
        "seconds": least,
        "ours_is_faster_by": {precision: ratios(each) for precision, each in least.items()},
        "machine": machine() | ({"openvino": version("openvino")} if HAS_OPENVINO else {}),
        "commit": commit(),
    }


def same_captions(found: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Of each two ways, by their names, the share of pictures that both describe alike."""
    return {
        f"{one}, {other}": sum(a == b for a, b in zip(found[one], found[other], strict=True)) / len(found[one])
        for one, other in itertools.combinations(found, 2)
    }


def ratios(seconds: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Of each other way, by how much ours is faster, and takes the processors for a shorter time."""
    ours = seconds[OURS]
    return {way: {kind: each[kind] / ours[kind] for kind in ours} for way, each in seconds.items() if way != OURS}


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=at_least(1), default=64)
    parser.add_argument("--threads", type=at_least(1), default=2)
    parser.add_argument("--precisions", nargs="+", default=list(DTYPES), choices=DTYPES)
    parser.add_argument("--rounds", type=at_least(1), default=1)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "benchmarks/results/predict.json")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), flags.pictures, flags.precisions, flags.threads, flags.rounds)
    for precision, seconds in result["seconds"].items():
        for way, each in seconds.items():
            print(f"{precision}  {way:13} {each['wall']:7.1f} s, {each['processor']:7.1f} s of processors")
        for way, ratio in result["ours_is_faster_by"][precision].items():
            print(
                f"ours is {ratio['wall']:.2f} times as fast as {way}, at 1/{ratio['processor']:.2f} of the processors"
            )
    for pair, share in result["share_of_same_greedy_captions"].items():
        print(f"{share:.0%} of the greedy captions of {pair} are the same")
    save(flags.out, result)


if __name__ == "__main__":
    main()
