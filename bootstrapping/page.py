"""`capfilt.html`: what a choice kept and dropped, on a page in a single file that loads nothing from elsewhere."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bootstrapping.charts import HEIGHT, WIDTH, Chart, calibration_curve, histogram
from bootstrapping.samples import Samples
from bootstrapping.scores import SYNTHETIC, WEB
from bootstrapping.statistics import RANGES, Statistics
from bootstrapping.whole_files import write_whole
from evaluation.findings import Case, Picture
from evaluation.gallery import ShownCase, shown_case
from evaluation.web_page import render_page

_COLORS = {WEB: "#2a6f97", SYNTHETIC: "#e07a1f"}
_NAMES = {WEB: "the web's texts", SYNTHETIC: "synthetic texts"}
_COLUMNS = {
    "texts": "texts",
    "high_enough": "high enough",
    "duplicates": "duplicates dropped",
    "beyond_captions_per_image": "beyond captions_per_image",
    "kept": "kept",
    "share_kept": "share kept",
}
_LONGEST = 400  # characters of a text that are shown


def write_page(
    path: Path,
    summary: Mapping[str, Any],
    found: Statistics,
    samples: Samples,
    unusable: Sequence[tuple[str, str]],
    open_picture: Callable[[str], Picture],
) -> None:
    """Write the page of a choice.

    Args:
        unusable: the first of what could not be captioned and scored, with reasons.
        open_picture: opens the picture that the scores name.
    """
    page = render_page(
        Path(__file__).with_name("capfilt.html"),
        title="CapFilt: what is kept",
        about=_about(summary),
        rates=_rates(summary),
        histograms=_histograms(summary, found),
        truth=_truth(summary.get("truth")),
        galleries=[
            _gallery(source, passed, samples, summary["score"], open_picture)
            for source in (WEB, SYNTHETIC)
            for passed in (True, False)
        ],
        unusable=unusable,
        not_used=summary["images_not_used"],
        width=WIDTH,
        height=HEIGHT,
    )
    with write_whole(path) as file:
        file.write(page)


def _about(summary: Mapping[str, Any]) -> str:
    least = ", ".join(f"{_NAMES[source]} from {score:.4g} on" for source, score in summary["least_score"].items())
    lines = [f"kept by {summary['score']}: {least}"]
    if summary["selection"]["captions_per_image"] is not None:
        lines.append(f"at most {summary['selection']['captions_per_image']} of an image, the best")
    for role in ("captioner", "filter"):
        model = summary[role] or {}
        lines.append(f"{role}: {model.get('source', 'none')} (SHA-256 {str(model.get('sha256', 'unknown'))[:16]})")
    return "\n".join(lines)


def _rates(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The table of the sources: its head and rows, and a sentence on images."""
    return {
        "head": ["", *_COLUMNS.values()],
        "rows": [
            [_NAMES[source], *(_figure(counts[key]) for key in _COLUMNS)] for source, counts in summary["texts"].items()
        ],
        "images": f"{summary['images_kept']:,} of {summary['images']:,} images have a text that is kept",
    }


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:,}" if isinstance(value, int) else f"{100 * value:.1f}%"


def _histograms(summary: Mapping[str, Any], found: Statistics) -> list[Chart]:
    return [
        histogram(
            f"{'matching probability' if score == 'match' else score} of {_NAMES[source]}",
            counts.histograms[score].tolist(),
            *RANGES[score],
            least=summary["least_score"].get(source) if score == summary["score"] else None,
            color=_COLORS[source],
        )
        for score in RANGES
        for source, counts in found.sources.items()
        if counts.texts
    ]


def _truth(truth: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What the filter found of the wrong texts, in a sentence, and a chart of its calibration."""
    if truth is None:
        return None
    figures = ", ".join(
        f"{name} {'unknown' if truth[name] is None else format(truth[name], '.3f')}"
        for name in ("precision", "recall", "f1")
    )
    bins = [(one["mean_match"], one["share_right"], one["texts"]) for one in truth["calibration"] if one["texts"]]
    about = (
        f"{truth['texts']:,} web texts, of which {truth['wrong']:,} do not belong to their image; "
        f"{truth['wrong_found']:,} of these are dropped, and {truth['right_dropped']:,} that belong there. "
        f"Finding the wrong ones: {figures}."
    )
    title = "share of right texts (up) by matching probability (across)"
    return {"about": about, "chart": calibration_curve(title, bins, _COLORS[WEB])}


def _gallery(
    source: str, passed: bool, samples: Samples, score: str, open_picture: Callable[[str], Picture]
) -> tuple[str, list[ShownCase]]:
    """The heading of a kind of texts, and its examples."""
    other = "cosine" if score == "match" else "match"
    cases = [
        Case(
            [row["image"]],
            {other: round(row[other], 3), "text": _short(row["text"]), "image": row["image"]},
            error=0,
            score=f"{score} {row[score]:.3f}",
        )
        for row in samples.of(source, passed)
    ]
    verb = "Kept" if passed else "Dropped, the score being too low"
    return f"{verb}: {_NAMES[source]}", [shown_case(case, open_picture) for case in cases]


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}... ({len(text):,} characters)"
