"""Where the marks of a chart stand, which charts.html draws as SVG: histograms of scores, and a calibration curve."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 420, 180
_LEFT, _BOTTOM, _TOP = 44, 34, 26  # margins; the right one is as the top one


@dataclass(frozen=True)
class Bar:
    """A bar of a histogram, pale where nothing of it is kept."""

    x: float
    y: float
    width: float
    height: float
    pale: bool
    hint: str


@dataclass(frozen=True)
class Dot:
    """A dot of a curve."""

    x: float
    y: float
    radius: float
    hint: str


@dataclass(frozen=True)
class Label:
    """A text in the chart; `anchor` as in SVG: which end of it is at `x`."""

    x: float
    y: float
    text: str
    anchor: str


@dataclass(frozen=True)
class Chart:
    """The marks of a chart, in pixels from the top left corner.

    Attributes:
        axis: the line from (x1, y) to (x2, y): (x1, x2, y).
        threshold: a line from the axis up: its x, and y of its upper end.
        curve: the points of a line.
        diagonal: the ends of a dashed line: (x1, y1), (x2, y2).
    """

    title: str
    color: str
    labels: Sequence[Label]
    axis: tuple[float, float, float] = (_LEFT, WIDTH - _TOP, HEIGHT - _BOTTOM)
    bars: Sequence[Bar] = ()
    threshold: tuple[float, float] | None = None
    curve: Sequence[tuple[float, float]] = ()
    dots: Sequence[Dot] = ()
    diagonal: Sequence[tuple[float, float]] = ()


def histogram(title: str, counts: Sequence[int], low: float, high: float, least: float | None, color: str) -> Chart:
    """Bars of `counts` between `low` and `high`; what is below `least` (None: nothing) is pale, with a line there."""
    most = max(*counts, 1)
    width = _plot_width() / len(counts)
    bars: list[Bar] = []
    for number, count in enumerate(counts):
        middle = low + (number + 0.5) * (high - low) / len(counts)
        height = _plot_height() * count / most
        top = _TOP + _plot_height() - height
        pale = least is not None and middle < least
        bars.append(Bar(_LEFT + number * width, top, width - 0.5, height, pale, f"{count:,}"))
    labels = [*_below((i / 4, f"{low + i * (high - low) / 4:g}") for i in range(5)), *_beside([(1.0, f"{most:,}")])]
    if least is None or not low <= least <= high:
        return Chart(title, color, labels, bars=bars)
    share = (least - low) / (high - low)
    x, top = _position(share, 1)
    anchor = "end" if share > 0.8 else "start" if share < 0.2 else "middle"  # above the bars, within the chart
    labels.append(Label(x, top - 8, f"kept from {least:.3g} on", anchor))
    return Chart(title, color, labels, bars=bars, threshold=(x, top - 4))


def calibration_curve(title: str, bins: Sequence[tuple[float, float, int]], color: str) -> Chart:
    """A dot for each (mean probability, share that is right, number of texts), larger for more texts."""
    most = max((count for *_, count in bins), default=1)
    dots = [
        Dot(*_position(x, y), 2 + 5 * (count / most) ** 0.5, f"{count:,} texts: probability {x:.2f}, right {y:.2f}")
        for x, y, count in bins
    ]
    ticks = [(i / 4, f"{i / 4:g}") for i in range(5)]
    return Chart(
        title,
        color,
        [*_below(ticks), *_beside(ticks)],
        curve=[(dot.x, dot.y) for dot in dots],
        dots=dots,
        diagonal=[_position(0, 0), _position(1, 1)],
    )


def _below(ticks: Iterable[tuple[float, str]]) -> list[Label]:
    """Labels below the axis."""
    return [Label(_position(at, 0)[0], _position(at, 0)[1] + 15, text, "middle") for at, text in ticks]


def _beside(ticks: Iterable[tuple[float, str]]) -> list[Label]:
    """Labels on the left."""
    return [Label(_LEFT - 5, _position(0, at)[1] + 4, text, "end") for at, text in ticks]


def _position(x: float, y: float) -> tuple[float, float]:
    """The place of a point of the plot, whose sides go from 0 to 1."""
    return _LEFT + x * _plot_width(), _TOP + (1 - y) * _plot_height()


def _plot_width() -> int:
    return WIDTH - _LEFT - _TOP


def _plot_height() -> int:
    return HEIGHT - _TOP - _BOTTOM
