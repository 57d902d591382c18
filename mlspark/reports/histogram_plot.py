"""Where the parts of a drawn histogram stand; the page's template draws them. Runs anywhere."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from mlspark.reports.histogram import Bar, Histogram, nice_step
from mlspark.reports.wording import newest_first, percent

WIDTH, HEIGHT = 360.0, 150.0
"""Units of the drawing; it is scaled to the page."""

_LEFT, _RIGHT, _TOP, _BOTTOM = 38.0, 8.0, 16.0, 20.0
_PLOT_HEIGHT = HEIGHT - _TOP - _BOTTOM
_CHARACTER = 6.4  # width of one, of the font's 11


@dataclass(frozen=True)
class Rectangle:
    """A bar of one version."""

    series: str
    """Either "old" (grey, wide and behind) or "new"."""
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Cut:
    """A bar too tall to be drawn whole: the line across it, and its share beside it."""

    points: str
    x: float
    anchor: str
    text: str


@dataclass(frozen=True)
class DrawnBar:
    """The values of a bar: what is said when it is pointed at, and its rectangles."""

    title: str
    x: float
    width: float
    rectangles: tuple[Rectangle, ...]
    cut: Cut | None


@dataclass(frozen=True)
class Tick:
    """A mark below the bars; the label stays within the drawing."""

    x: float
    label_x: float
    label: str


@dataclass(frozen=True)
class HistogramPlot:
    """All that the template draws."""

    title: str
    """What the plot shows, in words."""
    grid: tuple[tuple[float, str], ...]
    """Height of a line and the share there."""
    bars: tuple[DrawnBar, ...]
    ticks: tuple[Tick, ...]
    left: float = _LEFT
    right: float = WIDTH - _RIGHT
    top: float = _TOP
    base: float = _TOP + _PLOT_HEIGHT


def lay_out(histogram: Histogram, name: str, versions: Sequence[str]) -> HistogramPlot:
    """Return the drawing of a histogram of column `name`; `versions` are their names, the older first."""
    bars = histogram.bars
    top, is_cut = _top(bars)
    step = nice_step(top / 3)
    width = (WIDTH - _LEFT - _RIGHT) / len(bars)
    commonest = max(bars, key=lambda bar: bar.shares[-1])
    title = f"Histogram of {name}: {bars[0].label} to {bars[-1].label}"
    title += f"; most values at {commonest.label} ({percent(commonest.shares[-1])})"
    lines = [place * step for place in range(1, math.floor(top / step + 1e-9) + 1)]
    return HistogramPlot(
        title=title,
        grid=tuple((_y(share, top), f"{share * 100:.6g} %") for share in lines),
        bars=tuple(_drawn(bar, place, len(bars), width, top, is_cut, versions) for place, bar in enumerate(bars)),
        ticks=tuple(_ticks(histogram, width)),
    )


def _top(bars: Sequence[Bar]) -> tuple[float, bool]:
    """Return the greatest share to be drawn, and whether one bar is cut there as it dwarfs all others."""
    peaks = sorted((max(bar.shares) for bar in bars), reverse=True)
    if len(peaks) > 2 and peaks[1] > 0 and peaks[0] > 4 * peaks[1]:
        return peaks[1] * 1.6, True
    return peaks[0] or 1.0, False


def _y(share: float, top: float) -> float:
    return _TOP + _PLOT_HEIGHT * (1 - min(share / top, 1.0))


def _drawn(
    bar: Bar, place: int, num_bars: int, width: float, top: float, is_cut: bool, versions: Sequence[str]
) -> DrawnBar:
    left = _LEFT + place * width
    shares = "; ".join(
        f"{version} {percent(share)}" if len(versions) > 1 else percent(share)
        for version, share in zip(versions, bar.shares, strict=True)
    )
    is_compared = len(bar.shares) > 1
    rectangles = []
    for series, share in zip(("old", "new")[-len(bar.shares) :], bar.shares, strict=True):
        inset = width * 0.26 if is_compared and series == "new" else min(1.0, width * 0.1) / 2
        if share:
            y = _y(share, top)
            rectangles.append(Rectangle(series, left + inset, y, width - 2 * inset, _TOP + _PLOT_HEIGHT - y))
    cut = None
    if is_cut and max(bar.shares) > top:
        points = f"{left - 2:.1f},{_TOP + 16:.1f} {left + width + 2:.1f},{_TOP + 10:.1f}"
        x, anchor = (left, "start") if place < num_bars / 2 else (left + width, "end")
        cut = Cut(points, x, anchor, f"{newest_first([percent(share) for share in bar.shares])} (bar cut)")
    return DrawnBar(f"{bar.label}: {shares}", left, width, tuple(rectangles), cut)


def _ticks(histogram: Histogram, width: float) -> list[Tick]:
    """Return the labels below the bars, as many as fit."""
    ticks = histogram.ticks
    longest = max((len(label) for label, _ in ticks), default=1) * _CHARACTER + 10
    nearest = min((after[1] - before[1] for before, after in itertools.pairwise(ticks)), default=1.0) * width
    drawn = []
    for label, place in ticks[:: max(1, math.ceil(longest / nearest))]:
        half = len(label) * _CHARACTER / 2
        x = _LEFT + place * width
        drawn.append(Tick(x, min(max(x, half), WIDTH - half), label))
    return drawn
