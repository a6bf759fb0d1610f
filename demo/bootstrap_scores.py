"""What the arms of the CapFilt comparison reach, and how well the filter finds the wrong captions, which are known."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bootstrapping.scores import SYNTHETIC, open_scores, read_columns
from data.shapes import caption_is_right, read_scenes
from demo.scores import Results, share_right
from files import atomic_write

THRESHOLD = 0.5
SCORES = {
    "captions right": "caption_right",
    "CIDEr": "caption_cider",
    "TR@1": "text_r1",
    "IR@1": "image_r1",
}
_OF_THE_FILTER = (
    *("precision", "recall", "f1"),
    *("kept_web", "kept_synthetic", "synthetic_right", "kept_synthetic_right"),
)


def arm_scores(folder: Path, arm: str) -> dict[str, float]:
    """The test scores of an arm's captioner and matcher."""
    results = Results(folder)
    caption, retrieval = results.epochs(f"{arm}/caption")[-1], results.epochs(f"{arm}/retrieval")[-1]
    right, _ = share_right(results.captions(f"{arm}/caption"), results.scenes)
    return {
        "caption_right": right,
        "caption_cider": caption["test_CIDEr"],
        "text_r1": retrieval["test_txt_r1"],
        "image_r1": retrieval["test_img_r1"],
    }


def write_truth(folder: Path, file: Path) -> None:
    """Write which of the web's captions belong to their picture, by the uid that CapFilt scored it under."""
    wrong = {entry["image"] for entry in _read(folder / "web" / "noise.json")}
    uids, images = read_columns(open_scores(folder / "capfilt"), "uid", "image")
    with atomic_write(file) as temporary:
        truth = {uid: image not in wrong for uid, image in zip(uids, images, strict=True)}
        temporary.write_text(json.dumps(truth), encoding="utf-8")


def filter_scores(folder: Path) -> dict[str, Any]:
    """How well the filter finds the web's wrong captions, what is kept, and how many of the captioner's are right."""
    summary = _read(folder / "both" / "selected" / "summary.json")
    scenes = read_scenes(folder / "web" / "scenes.json")
    columns = read_columns(open_scores(folder / "capfilt"), "image", "source", "text", "match")
    right: dict[bool, list[bool]] = {True: [], False: []}  # by whether the caption is kept
    for image, source, text, match in zip(*columns, strict=True):
        if source == SYNTHETIC:
            right[match >= THRESHOLD].append(caption_is_right(text, scenes[image]))
    return {
        **{name: summary["truth"][name] for name in ("precision", "recall", "f1", "calibration")},
        **{f"kept_{source}": counts["share_kept"] for source, counts in summary["texts"].items()},
        "synthetic_right": _share([*right[True], *right[False]]),
        "kept_synthetic_right": _share(right[True]),
    }


def _share(values: Sequence[bool]) -> float:
    return sum(values) / len(values) if values else 0.0


def _read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """The comparison as a table in Markdown: the mean over the runs, and each run behind it."""
    head = ["arm", *SCORES]
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    for arm in results[0]["arms"]:
        cells = [arm]
        for key in SCORES.values():
            values = [run["arms"][arm][key] for run in results]
            each = f" ({', '.join(f'{value:.1f}' for value in values)})" if len(values) > 1 else ""
            cells.append(f"{sum(values) / len(values):.1f}{each}")
        lines.append(f"| {' | '.join(cells)} |")
    for run in results:
        found = run["filter"]
        parts = [f"{name.replace('_', ' ')} {found[name]:.3f}" for name in _OF_THE_FILTER]
        lines.append(f"\nseed {run['seed']}, {run['minutes']:.0f} minutes: {', '.join(parts)}")
    return "\n".join(lines)


def plot(results: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the arms' scores, a dot a run, and the filter's calibration."""
    import matplotlib  # not above: the recipe runs without it

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(SCORES) + 1, figsize=(15, 2.8), layout="constrained")
    for axis, (title, key) in zip(axes, SCORES.items(), strict=False):
        arms = list(results[0]["arms"])
        values = np.array([[run["arms"][arm][key] for arm in arms] for run in results])
        axis.bar(arms, values.mean(axis=0), color="#b9bfc7")
        for row in values:
            axis.plot(arms, row, ".", color="#2f6bb3")
        axis.set_title(title)
    axes[-1].plot([0, 1], [0, 1], color="#b9bfc7")
    for run in results:
        points = [point for point in run["filter"]["calibration"] if point["texts"]]
        matches, shares = ([point[name] for point in points] for name in ("mean_match", "share_right"))
        axes[-1].plot(matches, shares, ".-", color="#d9822b")
    axes[-1].set(title="Filter: share right", xlabel="probability of a match")
    figure.savefig(path, dpi=130)
    plt.close(figure)
