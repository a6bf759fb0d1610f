"""Results as Markdown tables."""

from collections.abc import Iterable, Mapping
from typing import Any

Results = dict[str, dict[str, Any]]
"""What benchmarks/results holds, by the name of the file, without its suffix."""

WAY_NAMES = {"hugging_face": "Hugging Face", "openvino": "OpenVINO"}
_HEAD = (
    "| what | way | time | samples/s | peak memory | GFLOP a sample | share of the peak | ours is faster by | "
    "largest difference |\n| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |"
)


def comparison_table(results: Iterable[Mapping[str, Any]]) -> str:
    """A row for each way of each result."""
    return "\n".join([_HEAD, *(row for result in results for row in _rows(result))])


def _rows(result: Mapping[str, Any]) -> list[str]:
    rows: list[str] = []
    for number, (name, way) in enumerate(result["ways"].items()):
        samples = result["samples"][name]
        cells: list[str] = [
            "" if number else result["what"],
            WAY_NAMES.get(str(name), str(name)),
            _seconds(way["seconds"]),
            f"{_short(way['samples_per_second'])} {'' if number else result['unit']}".strip(),
            _gigabytes(way["peak_bytes"]),
            _operations(way, samples),
            _percent(way["share_of_peak"]),
            times(result["ours_is_faster_by"].get(name)),
            _differences(result["largest_differences"].get(name, {})),
        ]
        rows.append(f"| {' | '.join(cells)} |")
    for part, seconds in result["parts"].items():
        share = f"{seconds / next(iter(result['ways'].values()))['seconds']:.0%} of ours"
        rows.append(f"| | of it {part} | {_seconds(seconds)} | | | | | {share} | |")
    return rows


def _short(value: float) -> str:
    """Three digits, with a comma between thousands."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _seconds(value: float) -> str:
    if value >= 1:
        return f"{_short(value)} s"
    return f"{_short(1e3 * value)} ms" if value >= 1e-3 else f"{_short(1e6 * value)} µs"


def _gigabytes(value: int | None) -> str:
    return "" if value is None else f"{value / 1e9:.2f} GB"


def _operations(way: Mapping[str, Any], samples: int) -> str:
    """What was computed; what was recomputed for checkpointed blocks stands apart."""
    if not way["flops"]:
        return ""
    again = f" + {_short(way['recomputed_flops'] / samples / 1e9)} again" if way["recomputed_flops"] else ""
    return f"{_short(way['flops'] / samples / 1e9)}{again}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"


def times(value: float | None) -> str:
    """A ratio of two speeds."""
    return "" if value is None else f"{value:.2f}" if value < 3 else f"{value:.1f}"


def _differences(found: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.2g}" for name, value in found.items())
