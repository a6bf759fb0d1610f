"""What a pre-training on 8, 16 and 128 GPUs asks of disks, network and memory: arithmetic from stated assumptions.

    python -m benchmarks.scaling [--rate_base 580] [--network 50] [--write_rate 2] ...

Nothing here was measured on GPUs. What follows from the models is counted (parameters, bytes of a checkpoint); how fast
this repository writes a checkpoint is measured in a temporary folder unless `--write_rate` gives it; everything else is
an assumption that a flag changes. Results go to benchmarks/results/scaling.json; `python -m benchmarks.pages` makes the
table of docs/scaling.md from them.
"""

import argparse
import dataclasses
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.measurement import RESULTS, machine, save
from engine import checkpoint
from models.blip_pretrain import blip_pretrain
from models.momentum import MomentumModel
from settings.flags import Parser, add_flags, at_least, file_path, flag, values_of

GPUS = (8, 16, 128)
VITS = ("base", "large")
_MEASURED_BYTES = 2**30  # of the checkpoint that is written for the time
_ROUNDS = 3  # of which the fastest counts: other programs only slow it down


def _rate(text: str) -> float:
    """A type of flags: a number above 0."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: must be above 0")
    return value


@dataclass(frozen=True)
class Assumptions:
    """What the arithmetic starts from; speeds are in GB/s."""

    rate_base: float = flag(580.0, "samples a second a GPU, ViT-B; hoped for, not measured", type=_rate)
    rate_large: float = flag(200.0, "samples a second a GPU, ViT-L; hoped for, not measured", type=_rate)
    batch: int = flag(75, "samples of a process and step", type=at_least(1))
    workers: int = flag(4, "loader workers of a process", type=at_least(1))
    picture_bytes: int = flag(40_000, "bytes of a picture in its shard", type=at_least(1))
    shards: int = flag(11_500, "shards of the data set", type=at_least(1))
    lanes: int = flag(128, "shard_lanes, where shards are dealt to lanes", type=at_least(1))
    machine_gpus: int = flag(8, "GPUs of a machine", type=at_least(1))
    inside: float = flag(300.0, "speed of an all-reduce inside a machine, a GPU; assumed", type=_rate)
    network: float = flag(50.0, "speed of the network between machines, a GPU; assumed", type=_rate)
    write_rate: float | None = flag(None, "speed at which a checkpoint is written; else measured", type=_rate)


def model_bytes(model: MomentumModel) -> dict[str, int]:
    """Bytes of a model's gradients, of what a process keeps of it on its GPU, and of a checkpoint.

    Kept are weights, momentum copies, queues, gradients and AdamW's two moments; activations come on top.
    """
    trained = sum(parameter.nbytes for parameter in model.parameters() if parameter.requires_grad)
    saved = model.state_dict().keys()
    buffers = [buffer for name, buffer in model.named_buffers() if name in saved]
    state = sum(tensor.nbytes for tensor in (*model.parameters(), *buffers))
    return {"gradients": trained, "kept": state + 3 * trained, "checkpoint": state + 2 * trained}


def published_size(vit: str) -> dict[str, int]:
    """`model_bytes` of the paper's model with this image encoder, without making its weights."""
    with torch.device("meta"):
        return model_bytes(blip_pretrain(vit=vit))


def figures(given: Assumptions, write_rate: float, sizes: dict[str, dict[str, int]], gpus: int) -> dict[str, float]:
    """The figures of a run on so many GPUs, by name; `sizes` are those of `published_size`, by the image encoder."""
    rates = {"base": given.rate_base, "large": given.rate_large}
    lanes = max(1, given.lanes // gpus)
    found: dict[str, float] = {
        "samples_per_second": rates["base"] * gpus,
        "read_per_second": rates["base"] * gpus * given.picture_bytes,
        "read_per_second_of_machine": rates["base"] * min(gpus, given.machine_gpus) * given.picture_bytes,
        "opened_at_random": given.shards * given.workers,
        "opened_with_lanes": -(-given.shards * lanes // given.lanes) * given.workers,
    }
    speed = given.inside if gpus <= given.machine_gpus else given.network
    for vit, size in sizes.items():
        sent = 2 * (gpus - 1) / gpus * size["gradients"]  # by each GPU of a ring
        found[f"kept_{vit}"] = size["kept"]
        found[f"checkpoint_seconds_{vit}"] = size["checkpoint"] / (write_rate * 1e9)
        found[f"all_reduce_share_{vit}"] = sent / (speed * 1e9) / (given.batch / rates[vit])
    return found


def measured_write_rate() -> float:
    """GB/s at which the engine writes a checkpoint into a temporary folder, with the checksums that it is read by."""
    state = {"model": torch.randn(_MEASURED_BYTES // 4)}
    seconds: list[float] = []
    for _ in range(_ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            checkpoint.save(Path(folder) / "checkpoint_last.pth", state)
            seconds.append(time.perf_counter() - began)
    return _MEASURED_BYTES / 1e9 / min(seconds)


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_flags(parser, Assumptions)
    parser.add_argument("--out", type=file_path, default=RESULTS / "scaling.json")
    flags = parser.parse_args()
    given = Assumptions(**values_of(Assumptions, flags))
    write_rate = given.write_rate or measured_write_rate()
    sizes = {vit: published_size(vit) for vit in VITS}
    result = {
        "assumptions": dataclasses.asdict(given),
        "write_rate": write_rate,
        "sizes": sizes,
        "gpus": {str(gpus): figures(given, write_rate, sizes, gpus) for gpus in GPUS},
        "machine": machine(),
    }
    print(json.dumps(result, indent=2))
    save(flags.out, result)


if __name__ == "__main__":
    main()
