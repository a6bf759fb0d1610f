"""`predict.py caption` from files to captions, against Hugging Face's model on the same weights.

    python -m benchmarks.predict [--pictures 64] [--threads 2] [--precisions fp32 bf16] [--rounds 1]

A ViT-B captioner at 384 pixels with random weights describes JPEG files of 640x480 pixels on a CPU, by 3 beams, up to
20 tokens with the prompt, 32 pictures at once. Each way is a process of its own, timed from its start to its end, so
that reading the weights and the pictures counts:

- ours: `predict.py caption`; with bf16 its `--precision bf16`, which keeps the weights in float32;
- Hugging Face: `benchmarks.predict_hugging_face`, `BlipImageProcessor` and `generate`; with bf16 its weights are bf16.

The ways take turns. Their beam searches score differently, and their resizing differs in gray levels, so what is
compared is the share of pictures that get the same caption in greedy search, in fp32. Wall time is measured, on a
machine with nothing else to do, and beside it the processor time of all threads. Results go to
benchmarks/results/predict.json.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image

from benchmarks.measurement import machine, save
from benchmarks.predict_hugging_face import DTYPES, PROMPT
from files import REPOSITORY
from models.blip import BLIPDecoder
from models.weights.huggingface import save_huggingface
from settings.flags import Parser, at_least

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


def command(way: str, model: Path, pictures: Path, precision: str, beams: int, out: Path) -> list[str]:
    """The command line of a way; its captions go to `out`, or to its standard output."""
    options = ["--precision", precision, "--num_beams", str(beams)]
    if way == "hugging_face":
        return [sys.executable, "-m", "benchmarks.predict_hugging_face", str(model), str(pictures), *options]
    lengths = ["--max_length", "20", "--min_length", "5", "--prompt", PROMPT, "--device", "cpu"]
    shared = ["--checkpoint", str(model), "--out", str(out)]
    return [sys.executable, "predict.py", "caption", str(pictures), *options, *lengths, *shared]


def run(way: str, model: Path, pictures: Path, precision: str, threads: int, beams: int = 3) -> tuple[Times, list[str]]:
    """Caption a folder of pictures in one of the ways -> its times, and the captions in the order of their names."""
    out = pictures.with_suffix(".jsonl")
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        command(way, model, pictures, precision, beams, out),
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    if way == "hugging_face":
        return Times(wall, processor), done.stdout.splitlines()
    records = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    captions = {record["image"]: record["caption"] for record in records}
    return Times(wall, processor), [captions[name] for name in sorted(captions)]


def measure(folder: Path, pictures: int, precisions: Sequence[str], threads: int, rounds: int) -> dict[str, Any]:
    """All figures; the files are made in `folder`."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = folder / "model"
    save_huggingface(BLIPDecoder(image_size=384, vit="base"), model)
    draw_pictures(folder / "few", min(COMPARED, pictures))
    draw_pictures(folder / "all", pictures)
    ways = ("ours", "hugging_face")
    greedy = [run(way, model, folder / "few", "fp32", threads, beams=1)[1] for way in ways]
    same = sum(one == other for one, other in zip(*greedy, strict=True)) / len(greedy[0])
    least: dict[str, dict[str, Any]] = {}
    for precision in precisions:
        found: dict[str, list[Times]] = {way: [] for way in ways}
        for _ in range(rounds):
            for way in ways:
                times, captions = run(way, model, folder / "all", precision, threads)
                if len(captions) != pictures:
                    raise RuntimeError(f"{way} wrote {len(captions)} captions of {pictures} pictures")
                found[way].append(times)
        least[precision] = {way: asdict(min(found[way], key=lambda one: one.wall)) for way in ways}
    return {
        "what": f"predict.py caption, {pictures} JPEG files of 640x480, ViT-B at 384 pixels, 3 beams",
        "threads": threads,
        "rounds": rounds,
        "share_of_same_greedy_captions": same,
        "seconds": least,
        "hugging_face_over_ours": {
            precision: {kind: each["hugging_face"][kind] / each["ours"][kind] for kind in ("wall", "processor")}
            for precision, each in least.items()
        },
        "machine": machine() | {"transformers": transformers.__version__},
    }


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
    for precision, ways in result["seconds"].items():
        for name, each in ways.items():
            print(f"{precision}  {name:13} {each['wall']:7.1f} s, {each['processor']:7.1f} s of processors")
        ratio = result["hugging_face_over_ours"][precision]
        print(f"ours is {ratio['wall']:.2f} times as fast, and takes the processors for 1/{ratio['processor']:.2f}")
    print(f"{result['share_of_same_greedy_captions']:.0%} of the greedy captions are the same")
    save(flags.out, result)


if __name__ == "__main__":
    main()
