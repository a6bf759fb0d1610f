"""The start of a pre-training on 115 million samples in 11,500 shards: seconds, questions to the file system, memory.

    python -m benchmarks.startup [--shards 11500] [--samples 10000] [--processes 4]

The shards are empty files, and their indices made up, in a temporary folder (5 GB with the defaults, Linux). The
processes are those of one machine. Parts of a start, each measured in every process:

list    finding the shards and naming their indices: the first process asks the file system, the others get its answer
sizes   how many samples each shard has: the first start counts them in the indices, later ones read the table of it
order   the loader and the order of epoch 0

A question is a call of `os.stat`; a file is opened through Python or Arrow. Memory is the peak of a process during a
part, without what it holds after its imports. "each by itself" is a later start without sharing: every
process asks for itself. Results go to benchmarks/results/startup.json.
"""

import argparse
import json
import multiprocessing
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from benchmarks.measurement import RESULTS, commit, machine, save
from data.loaders import TrainLoader
from data.pretrain import PretrainDataset
from data.records.shard_index import COLUMNS, ShardFiles, index_key, look_at
from data.records.shard_samples import Row
from data.records.shards import shard_files
from data.records.table import store_end, store_once, store_path
from engine import distributed, once_a_node
from settings.flags import Parser, at_least, file_path
from transform.image import TrainTransform

_BATCH = 75  # of a process, as configs/pretrain.yaml has it


class Counts:
    """Counts what this process asks the file system about files of a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = os.fspath(folder)
        self.questions = self.opened = 0
        stat, memory_map = os.stat, pa.memory_map

        def counted_stat(path: Any, *arguments: Any, **options: Any) -> os.stat_result:
            self.questions += self._concerns(path)
            return stat(path, *arguments, **options)

        def counted_map(path: Any, *arguments: Any, **options: Any) -> Any:
            self.opened += self._concerns(path)
            return memory_map(path, *arguments, **options)

        os.stat, pa.memory_map = counted_stat, counted_map
        sys.addaudithook(self._audit)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        self.opened += event == "open" and self._concerns(arguments[0])

    def _concerns(self, path: Any) -> bool:
        return isinstance(path, str | Path) and os.fspath(path).startswith(self._folder)


def memory(name: str) -> int:
    """Bytes of this process: in use now (VmRSS), or at most since the last `forget_peak` (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def start(folder: Path, launch: distributed.Launch, shares: bool) -> dict[str, dict[str, float]]:
    """The parts of a start of this process, each with its figures."""
    distributed.init_process_group(launch, distributed.connect(launch), torch.device("cpu"), 10.0)
    PretrainDataset([], TrainTransform(224, 0.2))  # imports what it needs
    counts, imported = Counts(folder), memory("VmRSS")
    parts: dict[str, dict[str, float]] = {}

    def measured(name: str, part: Callable[[], Any]) -> Any:
        distributed.barrier(f"the part {name}")
        forget_peak()
        began, before = time.perf_counter(), (counts.questions, counts.opened)
        result = part()
        parts[name] = {
            "seconds": time.perf_counter() - began,
            "questions": counts.questions - before[0],
            "opened": counts.opened - before[1],
            "peak_bytes": memory("VmHWM") - imported,
        }
        return result

    def found() -> ShardFiles:
        return look_at(shard_files([f"{folder}/shards/*.tar"]))

    shards = measured("list", lambda: once_a_node(found, "the list of the shards") if shares else found())
    dataset = measured("sizes", lambda: PretrainDataset([], TrainTransform(224, 0.2), shards=shards))

    def order() -> TrainLoader:
        loader = TrainLoader(dataset, _BATCH, rank=launch.rank, world_size=launch.world_size)
        loader.set_epoch(0)
        return loader

    measured("order", order)
    distributed.leave_process_group()
    return parts


def run(folder: Path, processes: int, shares: bool = True) -> list[dict[str, dict[str, float]]]:
    """A start of so many processes: the parts of each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launches = [distributed.Launch(rank, processes, rank, "127.0.0.1", port) for rank in range(processes)]
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(start, [folder] * processes, launches, [shares] * processes))


def write_made_up(folder: Path, shards: int, samples: int) -> None:
    """Write empty shards, and indices that say that each holds so many samples: the same but for their names."""
    (folder / "shards").mkdir()
    rows = [Row(f"{number:09d}", ["a made-up caption"], 0, 512 * number, 512) for number in range(samples)]
    table: pa.Buffer | None = None
    for number in range(shards):
        shard = folder / "shards" / f"{number:05d}.tar"
        shard.touch()
        key = index_key(str(shard))
        if table is None:
            made = store_once("shards", key, COLUMNS, lambda: rows)
            content = made.file.read_bytes()
            table = pa.py_buffer(content[: len(content) - len(store_end(key, pa.py_buffer(b"")))])
        else:
            store_path("shards", key).write_bytes(table.to_pybytes() + store_end(key, table))


def forget_sizes() -> None:
    """Have the next start count the samples again."""
    for table in store_path("shards/sizes", "").parent.glob("*.arrow"):
        table.unlink()


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=at_least(1), default=11_500)
    parser.add_argument("--samples", type=at_least(100), default=10_000, help="in each shard")
    parser.add_argument("--processes", type=at_least(2), default=4, help="of a start of several")
    parser.add_argument("--out", type=file_path, default=RESULTS / "startup.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, several = Path(name), options.processes
        os.environ["BLIP_CACHE"] = name
        write_made_up(folder, options.shards, options.samples)
        starts: dict[str, list[dict[str, dict[str, float]]]] = {}
        starts["first start, 1 process"] = run(folder, 1)
        starts["later start, 1 process"] = run(folder, 1)
        forget_sizes()
        starts[f"first start, {several} processes"] = run(folder, several)
        starts[f"later start, {several} processes"] = run(folder, several)
        starts[f"later start, {several} processes, each by itself"] = run(folder, several, shares=False)
    about = {"shards": options.shards, "samples": options.shards * options.samples}
    measured = {**about, "commit": commit(), "machine": machine() | {"pyarrow": pa.__version__}, "starts": starts}
    save(options.out, measured)
    print(json.dumps(measured, indent=2))


if __name__ == "__main__":
    main()
