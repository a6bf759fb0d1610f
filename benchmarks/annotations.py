"""Annotations of millions of captions: start-up time and memory, memory-mapped against a list of dicts.

    python -m benchmarks.annotations [--captions 5000000]

Each way runs in a process of its own: it opens the captions, and two loader workers read all of them in random order.
A worker's private memory is what no other process shares with it (Private_* of /proc/self/smaps_rollup, Linux) when
everything was read; some 10 MB of it are the worker's own, whatever it reads.
Results go to benchmarks/results/annotations.json.
"""

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from torch.utils.data import DataLoader, Dataset

from benchmarks.measurement import RESULTS, machine, save
from data.order import shuffled
from data.pretrain import PAIR
from data.records.annotations import Annotations
from settings.flags import Parser, at_least

_WORKERS = 2
_BATCH = 10_000  # records read between two looks at the memory


class Reads(Dataset[tuple[int, int]]):
    """Reads the records of a batch of rows; gives the worker's process id and private memory in bytes."""

    def __init__(self, rows: Annotations | list[dict[str, Any]]) -> None:
        self.rows = rows

    def __getitem__(self, batch: list[int]) -> tuple[int, int]:
        for row in batch:
            assert self.rows[row]["caption"]
        return os.getpid(), private_memory()


def private_memory() -> int:
    """Bytes of this process that no other shares with it."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


def measure(way: str, file: Path, captions: int, results: "multiprocessing.Queue[dict[str, float]]") -> None:
    """Open `file` in one of the ways, read everything in two workers, and put seconds and bytes into `results`."""
    start = time.perf_counter()
    rows = json.loads(file.read_text()) if way == "list of dicts" else Annotations([file], PAIR)
    opened = time.perf_counter()
    batches = shuffled(captions, (0,)).reshape(-1, _BATCH).tolist()
    loader = DataLoader(
        Reads(rows), sampler=batches, batch_size=None, num_workers=_WORKERS, multiprocessing_context="fork"
    )
    private = dict(loader)
    results.put(
        {
            "start_seconds": opened - start,
            "records_per_second": captions / (time.perf_counter() - opened),
            "worker_private_bytes": max(private.values()),
        }
    )


def run(way: str, file: Path, captions: int) -> dict[str, float]:
    """What `measure` puts into its results, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=measure, args=(way, file, captions, results))
    process.start()
    result = results.get()
    process.join()
    return result


def write_captions(file: Path, count: int) -> None:
    """Write `count` made-up captions as long as the web's: 8 to 16 of 20,000 words."""
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), rng.integers(2, 9))) for _ in range(20_000)]
    with file.open("w") as out:
        for first in range(0, count, _BATCH):
            for n, drawn in enumerate(rng.integers(0, len(words), (_BATCH, 16)).tolist(), start=first):
                caption = " ".join([words[i] for i in drawn[: 8 + n % 9]])
                record = {"image": f"{n // 10_000:05d}/{n:09d}.jpg", "caption": caption}
                out.write(("[" if n == 0 else ",\n") + json.dumps(record))
        out.write("]")


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", type=at_least(10_000), default=5_000_000, help="a multiple of 10,000")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["BLIP_CACHE"] = folder
        file = Path(folder) / "captions.json"
        write_captions(file, options.captions)
        ways = {
            "memory-mapped, first start": run("memory-mapped", file, options.captions),
            "memory-mapped, later starts": run("memory-mapped", file, options.captions),
            "list of dicts": run("list of dicts", file, options.captions),
        }
        measured = {
            "captions": options.captions,
            "file_bytes": file.stat().st_size,
            "machine": machine() | {"pyarrow": pa.__version__},
            "ways": ways,
        }
    print(json.dumps(measured, indent=2))
    save(RESULTS / "annotations.json", measured)


if __name__ == "__main__":
    main()
