"""Who opens which shards: an epoch of 115 million samples on 128 processes of 4 loader workers, with lanes and without.

    python -m benchmarks.readers [--lanes 384]

No picture is read: the sizes of shards are made up, and the orders of an epoch (data/order.py, data/lanes.py) are
followed to the worker that each sample goes to. Counted are the shards that a worker and a process open, and their
bytes; the shards in a batch; and how far apart samples come in the epoch that are neighbors in their shard. The time
and the memory of making an order are those of a process of its own, from its start to its end (Linux).
Results go to benchmarks/results/readers.json.
"""

import argparse
import json
import subprocess
import sys
from dataclasses import asdict, dataclass

import numpy as np

from benchmarks.measurement import RESULTS, machine, save
from benchmarks.shard_orders import made_up_sizes, order_of
from data.order import Order, starts_of
from files import REPOSITORY
from settings.flags import Parser, at_least, file_path

PICTURE_BYTES = 40_000  # of a picture of 256 pixels with its caption, in a tar
_LOOKED_INTO = 100  # of as many batches, the shards of one are counted
_MAKE = """
import sys, time
from pathlib import Path
from benchmarks.shard_orders import made_up_sizes, order_of
shards, lanes, batch_size, processes = map(int, sys.argv[1:])
start = time.process_time()
for _ in order_of(made_up_sizes(shards), lanes).share(batch_size, 0, processes):
    pass
print(time.process_time() - start)
print(next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")).split()[1])
"""


@dataclass(frozen=True)
class Readers:
    """Processes, whose workers take the batches in turns."""

    processes: int = 128
    workers: int = 4
    batch_size: int = 75

    @property
    def global_batch(self) -> int:
        return self.processes * self.batch_size


@dataclass(frozen=True)
class Reading:
    """Who reads what in an epoch.

    Attributes:
        opened: bool [processes, workers, shards], whether a worker opens a shard.
        place: uint32 [samples], where in the epoch a sample comes; the number of samples, where it does not.
        in_batch, in_global_batch: how many shards a batch of a process holds samples of, and a global batch; the mean.
    """

    opened: np.ndarray
    place: np.ndarray
    in_batch: float
    in_global_batch: float


def follow(order: Order, sizes: np.ndarray, readers: Readers) -> Reading:
    """Follow each sample of an epoch over shards of `sizes` samples to the worker that reads it."""
    shard_of = np.repeat(np.arange(len(sizes), dtype=np.uint32), sizes)
    opened = np.zeros((readers.processes, readers.workers, len(sizes)), bool)
    place = np.full(len(shard_of), len(shard_of), np.uint32)
    process = np.arange(readers.processes)[:, None]
    in_batch: list[float] = []
    in_global_batch: list[int] = []
    for batch, indices in enumerate(order.share(readers.global_batch)):
        shards = shard_of[indices].reshape(readers.processes, -1)
        opened[process, batch % readers.workers, shards] = True
        place[indices] = np.arange(batch * readers.global_batch, (batch + 1) * readers.global_batch, dtype=np.uint32)
        if batch % _LOOKED_INTO == 0:
            in_global_batch.append(len(np.unique(shards)))
            in_batch.append(float(np.mean([len(np.unique(own)) for own in shards])))
    return Reading(opened, place, float(np.mean(in_batch)), float(np.mean(in_global_batch)))


def neighbors_apart(place: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """How many samples after each other in an epoch the neighbors in a shard come, whichever is first: [pairs].

    Args:
        place: [samples], of every sample in the epoch; those that are not used have the number of samples.
    """
    last = np.zeros(len(place), bool)
    last[starts_of(sizes)[1:] - 1] = True  # its neighbor is in another shard
    both = (place[:-1] < len(place)) & (place[1:] < len(place)) & ~last[:-1]
    return np.abs(np.diff(place.astype(np.int64))[both])


def figures(reading: Reading, sizes: np.ndarray, readers: Readers) -> dict[str, float]:
    """What is told of an epoch; opened shards and bytes are those of the worker or process that has the most."""
    used = int((reading.place < len(reading.place)).sum())
    by_process = reading.opened.any(1)
    apart = neighbors_apart(reading.place, sizes)
    return {
        "opened_by_worker": int(reading.opened.sum(2).max()),
        "opened_by_process": int(by_process.sum(1).max()),
        "opened_in_all": int(reading.opened.sum()),
        "read_bytes_of_process": used // readers.processes * PICTURE_BYTES,
        "opened_bytes_of_process": int((by_process * sizes).sum(1).max()) * PICTURE_BYTES,
        "shards_in_batch": reading.in_batch,
        "shards_in_global_batch": reading.in_global_batch,
        "median_steps_apart": float(np.median(apart)) / readers.global_batch,
        "left_out": 1 - used / len(reading.place),
    }


def measure_order(shards: int, lanes: int, batch_size: int, processes: int) -> dict[str, float]:
    """Processor time and peak memory of a process that makes its part of the order of an epoch, batch after batch."""
    command = [sys.executable, "-c", _MAKE, *map(str, (shards, lanes, batch_size, processes))]
    done = subprocess.run(command, cwd=REPOSITORY, check=True, stdout=subprocess.PIPE, text=True)
    seconds, kibibytes = done.stdout.split()
    return {"processor_seconds": float(seconds), "peak_bytes": int(kibibytes) * 1024}


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=at_least(1), default=11_500, help="of about 10,000 samples")
    parser.add_argument("--lanes", type=at_least(2), default=384)
    parser.add_argument("--processes", type=at_least(1), default=Readers.processes)
    parser.add_argument("--workers", type=at_least(1), default=Readers.workers)
    parser.add_argument("--batch_size", type=at_least(1), default=Readers.batch_size)
    parser.add_argument("--out", type=file_path, default=RESULTS / "readers.json")
    flags = parser.parse_args()
    readers = Readers(flags.processes, flags.workers, flags.batch_size)
    if flags.lanes % readers.processes or readers.global_batch % flags.lanes:
        parser.error(f"--lanes {flags.lanes}: must be a multiple of the processes, and divide the global batch")
    sizes = made_up_sizes(flags.shards)
    ways = {}
    for name, lanes in {"without lanes": 0, f"{flags.lanes} lanes": flags.lanes}.items():
        ways[name] = figures(follow(order_of(sizes, lanes), sizes, readers), sizes, readers) | {
            "order_of_one_in_all": measure_order(flags.shards, lanes, readers.batch_size, readers.processes),
            "order_of_one_alone": measure_order(flags.shards, lanes, readers.global_batch, 1),
        }
    measured = {"samples": int(sizes.sum()), "shards": flags.shards, **asdict(readers), "machine": machine()}
    measured["ways"] = ways
    print(json.dumps(measured, indent=2))
    save(flags.out, measured)


if __name__ == "__main__":
    main()
