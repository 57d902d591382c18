"""Where the parts of a drawn plot of lines and points stand; the page's template draws them. Runs anywhere."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mlspark.reports.histogram import nice_step
from mlspark.reports.wording import number

WIDTH, HEIGHT = 360.0, 230.0
"""Units of the drawing; it is scaled to the page."""

_LEFT, _RIGHT, _TOP, _BOTTOM = 48.0, 10.0, 12.0, 34.0
_INNER = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
_CHARACTER = 6.4  # width of one, of the font's 11
_LEAST_STEP = 0.7  # units between two points of a line that are drawn
_MOST_DOTS = 60

Range = tuple[float, float]
Place = Callable[[float, float], tuple[float, float]]
"""From values to where they stand in the drawing."""


@dataclass(frozen=True)
class Series:
    """A line, in the values' own units; points that are not finite break it."""

    name: str
    style: str
    """Class of the style sheet: line-a to line-c, or reference."""
    points: Sequence[tuple[float, float]]
    intervals: Sequence[Range] = ()
    """Least and greatest value of each point, drawn as an upright line; empty: none."""
    words: Sequence[str] = ()
    """What is said when a point is pointed at; empty: its values."""
    is_dotted: bool = True
    """Whether each point is marked, as long as they are few."""


@dataclass(frozen=True)
class Dot:
    x: float
    y: float
    title: str
    low: float | None = None
    """Ends of the upright line through it."""
    high: float | None = None


@dataclass(frozen=True)
class DrawnSeries:
    name: str
    style: str
    lines: tuple[str, ...]
    """Points of each unbroken part, as SVG writes them."""
    dots: tuple[Dot, ...]


@dataclass(frozen=True)
class Mark:
    """A line across the plot with its value beside it."""

    at: float
    label: str


@dataclass(frozen=True)
class Cell:
    """A rectangle, the darker the more it holds."""

    x: float
    y: float
    width: float
    height: float
    opacity: float
    title: str


@dataclass(frozen=True)
class LinePlot:
    """All that the template draws."""

    title: str
    """What the plot shows, in words."""
    x_name: str
    series: tuple[DrawnSeries, ...]
    x_marks: tuple[Mark, ...]
    y_marks: tuple[Mark, ...]
    upright: tuple[float, ...] = ()
    """Where lines stand that mark a value of x."""
    cells: tuple[Cell, ...] = ()
    """Drawn behind the lines."""
    left: float = _LEFT
    right: float = WIDTH - _RIGHT
    top: float = _TOP
    base: float = HEIGHT - _BOTTOM
    width: float = WIDTH
    height: float = HEIGHT


def lay_out(
    title: str,
    series: Sequence[Series],
    *,
    x_name: str,
    x_range: Range | None = None,
    y_range: Range | None = None,
    whole_x: bool = False,
    marked: Sequence[float] = (),
) -> LinePlot:
    """Return the drawing of lines over one pair of axes.

    Args:
        title: what the plot shows, in words.
        series: what is drawn, the last on top; at least one finite point among them.
        x_name: of the axis below.
        x_range: values at both ends; None: those of the points.
        y_range: as x_range.
        whole_x: whether only whole numbers are marked below.
        marked: values of x with a line of their own.
    """
    points = [point for line in series for point in line.points if _is_finite(point)]
    ys = [value for line in series for pair in line.intervals for value in pair if math.isfinite(value)]
    x_low, x_high = x_range or _spread([x for x, _ in points])
    y_low, y_high = y_range or _spread([*(y for _, y in points), *ys])

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            _LEFT + (x - x_low) / (x_high - x_low) * _INNER[0],
            _TOP + (1 - (y - y_low) / (y_high - y_low)) * _INNER[1],
        )

    return LinePlot(
        title=title,
        x_name=x_name,
        series=tuple(_drawn(line, place) for line in series),
        x_marks=tuple(_x_marks(x_low, x_high, whole_x, place)),
        y_marks=tuple(Mark(place(x_low, value)[1], label_of(value)) for value in round_values(y_low, y_high, 4)),
        upright=tuple(place(x, y_low)[0] for x in marked),
    )


def _is_finite(point: tuple[float, float]) -> bool:
    return math.isfinite(point[0]) and math.isfinite(point[1])


def _spread(values: Sequence[float]) -> Range:
    """Return ends a little beyond the values."""
    low, high = min(values), max(values)
    margin = (high - low) * 0.04 or abs(high) * 0.5 or 1.0
    return low - margin, high + margin


def round_values(low: float, high: float, most: int, *, least_step: float = 0.0) -> list[float]:
    """Return round numbers from `low` to `high`, evenly spaced: `most` or up to some more."""
    step = max(nice_step((high - low) / most), least_step)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [value * step for value in range(first, last + 1)]


def label_of(value: float) -> str:
    """Return a round number as it stands at an axis: in as few digits as it has."""
    size = abs(value)
    if size >= 1e7 or 0 < size < 1e-3:
        mantissa, _, power = f"{value:.2e}".partition("e")
        return f"{float(mantissa):g}e{int(power)}"
    return f"{value:,.6f}".rstrip("0").rstrip(".")


def _x_marks(low: float, high: float, whole: bool, place: Place) -> list[Mark]:
    """Return the marks below, as many as fit."""
    values = round_values(low, high, 5, least_step=1.0 if whole else 0.0)
    longest = max((len(label_of(value)) for value in values), default=1) * _CHARACTER + 10
    room = (place(values[1], 0.0)[0] - place(values[0], 0.0)[0]) if len(values) > 1 else WIDTH
    marks = []
    for value in values[:: max(1, math.ceil(longest / room))]:
        label, x = label_of(value), place(value, 0.0)[0]
        half = len(label) * _CHARACTER / 2
        marks.append(Mark(min(max(x, half), WIDTH - half), label))
    return marks


def _drawn(line: Series, place: Place) -> DrawnSeries:
    parts: list[list[tuple[float, float]]] = [[]]
    dots = []
    for at, point in enumerate(line.points):
        if not _is_finite(point):
            parts.append([])
            continue
        x, y = place(*point)
        parts[-1].append((x, y))
        words = line.words[at] if line.words else f"{line.name}: {number(point[0])}, {number(point[1])}"
        low, high = (place(point[0], end)[1] for end in line.intervals[at]) if line.intervals else (None, None)
        dots.append(Dot(x, y, words, low, high))
    is_dotted = line.is_dotted and len(dots) <= _MOST_DOTS
    lines = tuple(" ".join(f"{x:.1f},{y:.1f}" for x, y in _thinned(part)) for part in parts if len(part) > 1)
    return DrawnSeries(line.name, line.style, lines, tuple(dots) if is_dotted else ())


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points of a line that can be told apart, and both ends."""
    kept = [points[0]]
    for x, y in points[1:-1]:
        if max(abs(x - kept[-1][0]), abs(y - kept[-1][1])) >= _LEAST_STEP:
            kept.append((x, y))
    return [*kept, points[-1]]
