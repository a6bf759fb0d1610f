"""Charts as SVG inside an HTML page: histograms of scores, and a calibration curve."""

import html
from collections.abc import Sequence

_WIDTH, _HEIGHT = 420, 180
_LEFT, _BOTTOM, _TOP = 44, 34, 26  # margins; the right one is as the top one


def histogram(title: str, counts: Sequence[int], low: float, high: float, least: float | None, color: str) -> str:
    """Bars of `counts` between `low` and `high`; what is below `least` (None: nothing) is pale, with a line there."""
    most = max(*counts, 1)
    width = _plot_width() / len(counts)
    bars: list[str] = []
    for number, count in enumerate(counts):
        middle = low + (number + 0.5) * (high - low) / len(counts)
        pale = " opacity='.35'" if least is not None and middle < least else ""
        height = _plot_height() * count / most
        bars.append(
            f"<rect x='{_LEFT + number * width:.1f}' y='{_TOP + _plot_height() - height:.1f}' "
            f"width='{width - 0.5:.1f}' height='{height:.1f}' fill='{color}'{pale}><title>{count:,}</title></rect>"
        )
    line = "" if least is None or not low <= least <= high else _threshold((least - low) / (high - low), least)
    ticks = [(i / 4, f"{low + i * (high - low) / 4:g}") for i in range(5)]
    return _chart(title, "".join(bars) + line, ticks, [(1.0, f"{most:,}")])


def calibration_curve(title: str, bins: Sequence[tuple[float, float, int]]) -> str:
    """A point for each (mean probability, share that is right, number of texts), larger for more texts."""
    most = max((count for *_, count in bins), default=1)
    marks = [f"<line {_at(0, 0, '1')} {_at(1, 1, '2')} stroke='#bbb' stroke-dasharray='4'/>"]
    for (x1, y1, _), (x2, y2, _) in zip(bins, bins[1:], strict=False):
        marks.append(f"<line {_at(x1, y1, '1')} {_at(x2, y2, '2')} stroke='#2a6f97'/>")
    for x, y, count in bins:
        left, top = _position(x, y)
        radius = 2 + 5 * (count / most) ** 0.5
        marks.append(
            f"<circle cx='{left:.1f}' cy='{top:.1f}' r='{radius:.1f}' fill='#2a6f97' opacity='.8'>"
            f"<title>{count:,} texts: probability {x:.2f}, right {y:.2f}</title></circle>"
        )
    ticks = [(i / 4, f"{i / 4:g}") for i in range(5)]
    return _chart(title, "".join(marks), ticks, ticks)


def _chart(title: str, marks: str, ticks_x: Sequence[tuple[float, str]], ticks_y: Sequence[tuple[float, str]]) -> str:
    left, bottom = _position(0, 0)
    right, _ = _position(1, 0)
    labels = "".join(
        f"<text x='{_position(at, 0)[0]:.1f}' y='{bottom + 15:.1f}' text-anchor='middle'>{label}</text>"
        for at, label in ticks_x
    ) + "".join(
        f"<text x='{left - 5}' y='{_position(0, at)[1] + 4:.1f}' text-anchor='end'>{label}</text>"
        for at, label in ticks_y
    )
    return (
        f"<figure><figcaption>{html.escape(title)}</figcaption>"
        f"<svg viewBox='0 0 {_WIDTH} {_HEIGHT}' width='{_WIDTH}' height='{_HEIGHT}' role='img' "
        f"aria-label='{html.escape(title)}'>{marks}"
        f"<line x1='{left}' y1='{bottom}' x2='{right}' y2='{bottom}' stroke='#888'/>{labels}</svg></figure>\n"
    )


def _threshold(share: float, least: float) -> str:
    (x, bottom), (_, top) = _position(share, 0), _position(share, 1)
    anchor = "end" if share > 0.8 else "start" if share < 0.2 else "middle"  # above the bars, within the chart
    label = f"<text x='{x:.1f}' y='{top - 8:.1f}' text-anchor='{anchor}'>kept from {least:.3g} on</text>"
    return f"<line x1='{x:.1f}' y1='{bottom}' x2='{x:.1f}' y2='{top - 4}' stroke='#c1121f'/>{label}"


def _at(x: float, y: float, end: str) -> str:
    left, top = _position(x, y)
    return f"x{end}='{left:.1f}' y{end}='{top:.1f}'"


def _position(x: float, y: float) -> tuple[float, float]:
    """The place of a point of the plot, whose sides go from 0 to 1."""
    return _LEFT + x * _plot_width(), _TOP + (1 - y) * _plot_height()


def _plot_width() -> int:
    return _WIDTH - _LEFT - _TOP


def _plot_height() -> int:
    return _HEIGHT - _TOP - _BOTTOM
