"""The report's figures: losses of pre-training and fine-tuning, scores on held-out scenes, and captioned pictures."""

import logging
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.patches import Patch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from data.shapes import caption_is_right
from demo.scores import Results, Score

BLUE, ORANGE, GREEN, GRAY, RED = "#2f6bb3", "#d9822b", "#3a8f5c", "#b9bfc7", "#b3332f"
_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e8eb",
    "axes.edgecolor": "#8a919a",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "lines.marker": ".",  # a quick run has one point a curve
    "lines.markersize": 3,
    "savefig.dpi": 150,
}


def read_events(folder: Path) -> dict[str, tuple[list[int], list[float]]]:
    """Scalar -> (steps, values), from the TensorBoard events of a run."""
    logging.getLogger("tensorboard").setLevel(logging.WARNING)  # that a folder's last file was read is no news
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    series = {tag: events.Scalars(tag) for tag in events.scalars.Keys()}
    return {
        tag: ([point.step for point in points], [point.value for point in points]) for tag, points in series.items()
    }


def draw_pretraining(folder: Path, path: Path) -> None:
    """Draw the three losses of pre-training, and the accuracy of matching on pairs and on hard negatives."""
    events = read_events(folder / "pretrain")
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(1, 4, figsize=(11, 2.5), layout="constrained")
        losses = (("Contrast (ITC)", "loss_ita"), ("Matching (ITM)", "loss_itm"), ("Language (LM)", "loss_lm"))
        for axis, (title, name) in zip(axes, losses, strict=False):
            axis.plot(*events[name], color=BLUE)
            axis.set(title=title, xlabel="step")
        for name, color, label in (("match", GREEN, "pairs"), ("mismatch", ORANGE, "hard negatives")):
            axes[3].plot(*events[f"itm_accuracy_{name}"], color=color, label=label)
        axes[3].set(title="Matching, share right", xlabel="step", ylim=(-0.02, 1.02))
        axes[3].legend()
        figure.savefig(path)
        plt.close(figure)


def draw_fine_tuning(folder: Path, path: Path) -> None:
    """Draw the losses of fine-tuning, from the pre-trained checkpoint and from scratch."""
    panels = (
        ("Captioning", "caption", "caption_scratch"),
        ("Retrieval", "retrieval", None),
        ("Questions", "vqa", None),
        ("NLVR2", "nlvr", None),
    )
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(1, 4, figsize=(11, 2.5), layout="constrained")
        for axis, (title, pretrained, scratch) in zip(axes, panels, strict=True):
            if scratch:
                axis.plot(*read_events(folder / scratch)["loss"], color=ORANGE, label="from scratch")
            axis.plot(*read_events(folder / pretrained)["loss"], color=BLUE, label="pre-trained")
            axis.set(title=f"{title}, loss", xlabel="step")
            axis.legend()
        figure.savefig(path)
        plt.close(figure)


def draw_scores(scores: Sequence[Score], path: Path) -> None:
    """Draw a bar a score, with that of a guess, that of training from scratch, and a line at the target."""
    compared = [(score, score.chance, score.target) for score in scores]
    shown = [(score, chance, target) for score, chance, target in compared if chance is not None and target is not None]
    shown.reverse()
    with plt.rc_context({**_STYLE, "axes.grid.axis": "x"}):
        figure, axis = plt.subplots(figsize=(9, 0.62 * len(shown) + 0.9), layout="constrained")
        for row, (score, chance, target) in enumerate(shown):
            axis.barh(row, score.value, 0.36, color=BLUE, zorder=2)
            axis.text(score.value + 0.8, row, f"{score.value:.1f}", va="center", fontweight="bold")
            axis.barh(row - 0.32, chance, 0.16, color=GRAY, zorder=2)
            if score.scratch is not None:
                axis.barh(row + 0.3, score.scratch, 0.16, color=ORANGE, zorder=2)
            axis.vlines(target, row - 0.42, row + 0.42, color="#222", zorder=3)
        legend = {"from scratch": ORANGE, "pre-trained": BLUE, "a guess": GRAY, "target": "#222"}
        handles = [Patch(color=color, label=label) for label, color in legend.items()]
        axis.set(xlim=(0, 105), yticks=range(len(shown)), yticklabels=[score.name for score, _, _ in shown])
        axis.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=4)
        figure.savefig(path)
        plt.close(figure)


def draw_captions(results: Results, path: Path, shown: int = 16) -> None:
    """Draw the first test pictures over their captions, which are green where they name everything in the picture."""
    captions = list(results.captions().items())[:shown]
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(-(-len(captions) // 4), 4, figsize=(10, 0.55 * len(captions)), layout="constrained")
        for axis in axes.flat:
            axis.axis("off")
        for axis, (image, caption) in zip(axes.flat, captions, strict=False):
            axis.imshow(Image.open(results.picture(image)))
            color = GREEN if caption_is_right(caption, results.scenes[image]) else RED
            axis.set_title(
                "\n".join(textwrap.wrap(caption, 30)), loc="center", color=color, fontweight="normal", y=-0.4
            )
        figure.savefig(path)
        plt.close(figure)


def draw(results: Results, scores: Sequence[Score]) -> list[tuple[str, Path]]:
    """Draw all figures as PNGs in the demo's folder. Returns those that the page shows: (title, path) each."""
    folder = results.folder
    draw_captions(results, folder / "captions.png")
    figures = [
        ("Test scores, in percent", folder / "scores.png"),
        ("Pre-training", folder / "pretraining.png"),
        ("Fine-tuning", folder / "fine_tuning.png"),
    ]
    draw_scores(scores, figures[0][1])
    draw_pretraining(folder, figures[1][1])
    draw_fine_tuning(folder, figures[2][1])
    return figures
