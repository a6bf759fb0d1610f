"""Seconds and peak memory of the choice among generated scores (`capfilt.py select`): 10 million texts by default.

    python -m benchmarks.select [--rows 10000000] [keep=0.3 captions_per_image=1 ...]

The scores are those of images with one web text and one synthetic text each, in files of 8,192 rows, in a temporary
folder. What is measured is a process of its own, from its start to its end: it writes all three lists, the uids, the
summary and the page (Linux). Results go to benchmarks/results/select.json.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.measurement import RESULTS, machine, save
from bootstrapping.choice import Selection
from bootstrapping.scores import TextScore, write_scores
from files import REPOSITORY
from settings import ConfigError, load_config
from settings.flags import Parser, at_least, file_path

_IMAGES = 4096  # of a file
_WORDS = 20_000
_ABOUT = {"captioner": {"source": "none", "sha256": "0" * 64}, "filter": {"source": "none", "sha256": "0" * 64}}
_COMMAND = """
import sys
from pathlib import Path
from bootstrapping.choice import select
status = select(sys.argv[1:])
print(next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")))
sys.exit(status)
"""


def write_made_up(folder: Path, rows: int) -> None:
    """Write made-up scores of `rows` texts, 8 to 16 words long."""
    rng = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = np.array(["".join(rng.choice(letters, rng.integers(2, 9))) for _ in range(_WORDS)])
    halves = [" ".join(rng.choice(words, rng.integers(4, 9))) for _ in range(_WORDS)]
    (folder / "capfilt.json").write_text("{}")
    for first in range(0, rows // 2, _IMAGES):
        number = min(_IMAGES, rows // 2 - first)
        uids = rng.bytes(16 * number).hex()
        match = rng.random((number, 2)).tolist()
        drawn = rng.integers(0, _WORDS, (number, 2, 2)).tolist()
        scores: list[TextScore] = []
        for i in range(number):
            uid, image = uids[32 * i : 32 * i + 32], f"{first:08d}/{i:06d}.jpg"
            web, synthetic = (f"{halves[one]} {halves[other]}" for one, other in drawn[i])
            scores.append(TextScore(uid, image, "web", 0, web, match[i][0], match[i][0] - 0.5))
            scores.append(
                TextScore(uid, image, "synthetic", 0, synthetic, match[i][1], match[i][1] - 0.5, -9.0, None, i)
            )
        write_scores(folder / "scores" / f"made-up-{first:09d}.parquet", scores, _ABOUT)


def measure(folder: Path, keys: list[str]) -> dict[str, float]:
    """Seconds and peak memory of a choice in a process of its own."""
    start = time.perf_counter()
    command = [sys.executable, "-c", _COMMAND, str(folder), *keys]
    done = subprocess.run(command, cwd=REPOSITORY, check=True, stdout=subprocess.PIPE, text=True)
    elapsed = time.perf_counter() - start
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "seconds": elapsed,
        "processor_seconds": used.ru_utime + used.ru_stime,
        "peak_bytes": int(done.stdout.split()[1]) * 1024,
        "written_bytes": sum(file.stat().st_size for file in (folder / "selected").iterdir()),
    }


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=at_least(1), default=10_000_000)
    parser.add_argument("--out", type=file_path, default=RESULTS / "select.json")
    parser.add_argument("keys", nargs="*", metavar="key=value", help="how to choose")
    flags = parser.parse_args()
    try:
        load_config(Selection, None, flags.keys)
    except ConfigError as error:
        parser.error(str(error))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_made_up(folder, flags.rows)
        measured = {
            "rows": flags.rows,
            "keys": flags.keys,
            "machine": machine() | {"pyarrow": pa.__version__},
            **measure(folder, flags.keys),
        }
    print(json.dumps(measured, indent=2))
    save(flags.out, measured)


if __name__ == "__main__":
    main()
