"""The table of `python -m benchmarks.scaling` as Markdown."""

from collections.abc import Callable, Mapping
from typing import Any

_ROWS: dict[str, tuple[str, Callable[[float], str], str]] = {  # name -> what, how it is written, where it is from
    "samples_per_second": ("samples a second, ViT-B", "{:,.0f}".format, "`--rate_base`, hoped for"),
    "read_per_second": ("read, all processes", lambda x: f"{x / 1e9:.2f} GB/s", "samples x `--picture_bytes`"),
    "read_per_second_of_machine": ("read, a machine", lambda x: f"{x / 1e6:,.0f} MB/s", "the same"),
    "opened_at_random": ("opened in an epoch, a process", "{:,.0f} files".format, "`--shards` x `--workers`"),
    "opened_with_lanes": (
        "the same with `shard_lanes`",
        "{:,.0f} files".format,
        "its share of the `--lanes` x `--workers`",
    ),
    "kept_base": ("kept on a GPU beside activations, ViT-B", lambda x: f"{x / 1e9:.1f} GB", "counted"),
    "kept_large": ("the same, ViT-L", lambda x: f"{x / 1e9:.1f} GB", "counted"),
    "checkpoint_seconds_base": ("writing a checkpoint, ViT-B", "{:.0f} s".format, "counted bytes / `--write_rate`"),
    "checkpoint_seconds_large": ("the same, ViT-L", "{:.0f} s".format, "the same"),
    "all_reduce_share_base": (
        "all-reduce of gradients, share of a step, ViT-B",
        "{:.0%}".format,
        "counted bytes / `--inside` or `--network`",
    ),
    "all_reduce_share_large": ("the same, ViT-L", "{:.0%}".format, "the same, `--rate_large`"),
}


def scaling(results: Mapping[str, Any]) -> str:
    """A row for each figure, a column for each number of GPUs, and what was assumed."""
    found = results["scaling"]
    given, gpus = found["assumptions"], found["gpus"]
    rows = [
        f"| {what} | {' | '.join(written(gpus[number][name]) for number in gpus)} | {source} |"
        for name, (what, written, source) in _ROWS.items()
    ]
    written = "given" if given["write_rate"] else f"measured on {found['machine']['processor']}"
    about = (
        f"Pictures of {given['picture_bytes']:,} bytes in {given['shards']:,} shards, {given['workers']} loader "
        f"workers and batches of {given['batch']} a process. Hoped for: {given['rate_base']:g} samples a second a GPU "
        f"with ViT-B, {given['rate_large']:g} with ViT-L. Assumed: {given['inside']:g} GB/s a GPU inside a machine of "
        f"{given['machine_gpus']}, {given['network']:g} GB/s between machines. A checkpoint is written at "
        f"{found['write_rate']:.2f} GB/s ({written}). Gradients are float32, and nothing overlaps."
    )
    head = f"| | {' | '.join(f'{number} GPUs' for number in gpus)} | from |\n| --- |{' ---: |' * len(gpus)} --- |"
    return "\n".join([f"{about}\n", head, *rows])
