"""`capfilt.html`: what a choice kept and dropped, on a page in a single file that loads nothing from elsewhere."""

import html
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bootstrapping.charts import calibration_curve, histogram
from bootstrapping.samples import Samples
from bootstrapping.scores import SYNTHETIC, WEB
from bootstrapping.statistics import RANGES, Statistics
from bootstrapping.whole_files import write_whole
from evaluation.findings import Case, Picture
from evaluation.gallery import CASES_STYLE, PAGE_HEAD, case_html

_STYLE = (
    CASES_STYLE
    + """
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .8rem; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child { text-align: left; padding-left: 0; white-space: nowrap; }
.table { overflow-x: auto; overflow-wrap: normal; }
.charts { display: flex; flex-wrap: wrap; gap: 1rem; } figure { margin: 0; }
svg { max-width: 100%; height: auto; } svg text { font-size: 11px; fill: #555; }
"""
)
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
    sections = [
        _about(summary),
        _rates(summary),
        _histograms(summary, found),
        _truth(summary.get("truth")),
        *(
            _gallery(source, passed, samples, summary["score"], open_picture)
            for source in (WEB, SYNTHETIC)
            for passed in (True, False)
        ),
        _unusable(unusable, summary["images_not_used"]),
    ]
    page = (
        f"{PAGE_HEAD}<title>CapFilt</title>\n<style>{_STYLE}</style></head>\n"
        f"<body><h1>CapFilt: what is kept</h1>\n{''.join(sections)}</body></html>\n"
    )
    with write_whole(path) as file:
        file.write(page.encode("utf-8", errors="replace"))


def _about(summary: Mapping[str, Any]) -> str:
    least = ", ".join(f"{_NAMES[source]} from {score:.4g} on" for source, score in summary["least_score"].items())
    lines = [f"kept by {summary['score']}: {least}"]
    if summary["selection"]["captions_per_image"] is not None:
        lines.append(f"at most {summary['selection']['captions_per_image']} of an image, the best")
    for role in ("captioner", "filter"):
        model = summary[role] or {}
        lines.append(f"{role}: {model.get('source', 'none')} (SHA-256 {str(model.get('sha256', 'unknown'))[:16]})")
    return f"<pre>{html.escape(chr(10).join(lines))}</pre>\n"


def _rates(summary: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><th>{_NAMES[source]}</th>{''.join(f'<td>{_figure(counts[key])}</td>' for key in _COLUMNS)}</tr>\n"
        for source, counts in summary["texts"].items()
    )
    heads = "".join(f"<th>{head}</th>" for head in _COLUMNS.values())
    images = f"{summary['images_kept']:,} of {summary['images']:,} images have a text that is kept"
    return (
        f"<h2>Rates</h2>\n<div class='table'><table><tr><th></th>{heads}</tr>\n{rows}</table></div>\n<p>{images}.</p>\n"
    )


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:,}" if isinstance(value, int) else f"{100 * value:.1f}%"


def _histograms(summary: Mapping[str, Any], found: Statistics) -> str:
    charts = [
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
    return f"<h2>Scores</h2>\n<div class='charts'>\n{''.join(charts)}</div>\n"


def _truth(truth: Mapping[str, Any] | None) -> str:
    if truth is None:
        return ""
    figures = ", ".join(
        f"{name} {'unknown' if truth[name] is None else format(truth[name], '.3f')}"
        for name in ("precision", "recall", "f1")
    )
    bins = [(one["mean_match"], one["share_right"], one["texts"]) for one in truth["calibration"] if one["texts"]]
    return (
        "<h2>Where truth is known</h2>\n"
        f"<p>{truth['texts']:,} web texts, of which {truth['wrong']:,} do not belong to their image; "
        f"{truth['wrong_found']:,} of these are dropped, and {truth['right_dropped']:,} that belong there. "
        f"Finding the wrong ones: {figures}.</p>\n"
        + calibration_curve("share of right texts (up) by matching probability (across)", bins)
    )


def _gallery(source: str, passed: bool, samples: Samples, score: str, open_picture: Callable[[str], Picture]) -> str:
    rows = samples.of(source, passed)
    other = "cosine" if score == "match" else "match"
    cases = [
        Case(
            [row["image"]],
            {"text": _short(row["text"]), other: f"{row[other]:.3f}", "image": row["image"]},
            error=0,
            score=f"{score} {row[score]:.3f}",
        )
        for row in rows
    ]
    shown = "".join(case_html(case, open_picture) for case in cases)
    verb = "Kept" if passed else "Dropped, the score being too low"
    return f"<h2>{verb}: {_NAMES[source]} ({len(rows)} examples)</h2>\n<div class='cases'>\n{shown}</div>\n"


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}... ({len(text):,} characters)"


def _unusable(first: Sequence[tuple[str, str]], number: int) -> str:
    if not number:
        return ""
    items = "".join(f"<li>{html.escape(name)}: {html.escape(reason)}</li>\n" for name, reason in first)
    more = f"<p>and {number - len(first):,} more</p>\n" if number > len(first) else ""
    return f"<h2>Not used ({number:,})</h2>\n<ul>\n{items}</ul>\n{more}"
