"""What the arms of the CapFilt comparison reach, and how well the filter finds the wrong captions, which are known."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from bootstrapping.scores import SYNTHETIC, WEB, open_scores, read_columns
from data.shapes import caption_is_right, read_scenes
from demo.scores import Results, share_right

THRESHOLD = 0.5
BINS = 10  # of the calibration curve
SCORES = {
    "captions right": "caption_right",
    "CIDEr": "caption_cider",
    "TR@1": "text_r1",
    "IR@1": "image_r1",
}


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


def filter_scores(folder: Path) -> dict[str, Any]:
    """How well the filter tells the web's wrong captions from the right ones, and what the captioner's are worth."""
    scenes = read_scenes(folder / "web" / "scenes.json")
    wrong = {entry["image"] for entry in json.loads((folder / "web" / "noise.json").read_text("utf-8"))}
    images, sources, texts, match = read_columns(open_scores(folder / "capfilt"), "image", "source", "text", "match")
    probability, source = np.array(match), np.array(sources)
    web, own = source == WEB, source == SYNTHETIC
    is_wrong = np.array([image in wrong for image in images])
    right = np.array([caption_is_right(text, scenes[image]) for image, text in zip(images, texts, strict=True)])
    dropped = probability < THRESHOLD
    found = int((web & dropped & is_wrong).sum())
    precision, recall = found / max(1, int((web & dropped).sum())), found / max(1, int((web & is_wrong).sum()))
    bins = np.minimum((probability[web] * BINS).astype(int), BINS - 1)
    return {
        "wrong share": float(is_wrong[web].mean()),
        "precision": precision,
        "recall": recall,
        "F1": 2 * precision * recall / max(1e-9, precision + recall),
        "kept web": float((web & ~dropped).sum() / web.sum()),
        "kept synthetic": float((own & ~dropped).sum() / own.sum()),
        "synthetic right": float(right[own].mean()),
        "kept synthetic right": float(right[own & ~dropped].mean()) if (own & ~dropped).any() else 0.0,
        "dropped synthetic right": float(right[own & dropped].mean()) if (own & dropped).any() else 0.0,
        "calibration": [
            {
                "texts": int((bins == number).sum()),
                "probability": float(probability[web][bins == number].mean()) if (bins == number).any() else None,
                "right": float((~is_wrong[web])[bins == number].mean()) if (bins == number).any() else None,
            }
            for number in range(BINS)
        ],
    }


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
        parts = ("precision", "recall", "F1", "kept web", "kept synthetic", "synthetic right", "kept synthetic right")
        lines.append(
            f"\nseed {run['seed']}, {run['minutes']:.0f} minutes: "
            + ", ".join(f"{name} {found[name]:.3f}" for name in parts)
        )
    return "\n".join(lines)


def plot(results: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the arms' scores, a dot a run, and the filter's calibration."""
    figure, axes = plt.subplots(1, len(SCORES) + 1, figsize=(13, 2.8), layout="constrained")
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
        axes[-1].plot(
            [point["probability"] for point in points], [point["right"] for point in points], ".-", color="#d9822b"
        )
    axes[-1].set(title="Filter: share right", xlabel="probability of a match")
    figure.savefig(path, dpi=130)
    plt.close(figure)
