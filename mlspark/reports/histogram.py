"""Bars of a number or time column, from its record in one profile or in two. Runs anywhere."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlspark.features.distribution import is_whole, kind, values_up_to
from mlspark.reports.wording import newest_first, number, percent, quantity

_MAX_BINS = 30
_MAX_SINGLE_VALUES = 40
_MAX_DAYS_WITH_HOURS = 3

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Bar:
    """The values of one bar."""

    label: str
    """Range of the values in the bar, for a person."""
    low: float
    high: float
    shares: tuple[float, ...]
    """Share of the values of each version, the older first."""


@dataclass(frozen=True)
class Histogram:
    """Bars from left to right."""

    bars: tuple[Bar, ...]
    note: str
    """Note on the values beyond the bars."""
    ticks: tuple[tuple[str, float], ...]
    """Label, and where it stands: number of bars to the left of it."""


def histogram(columns: Sequence[Record | None]) -> Histogram:
    """Return bars of the single values if there are few, else equally wide ones from the 1st to the 99th percentile.

    Args:
        columns: a column's record in each version, the older first, at least one of them with values; None: no values.
    """
    present = [column for column in columns if column]
    low, high = min(column["min"] for column in present), max(column["max"] for column in present)
    is_of_whole = all(is_whole(column["type"]) for column in present)
    values = sorted({point[0] for column in present for point in column["points"]})
    if is_of_whole and high - low < _MAX_SINGLE_VALUES:
        values = sorted({low + place for place in range(int(high - low) + 1)})
        return _single_values(columns, values)
    if all(_has_no_gaps(column) for column in present) and len(values) < _MAX_SINGLE_VALUES:
        return _single_values(columns, values)
    first = min(column["quantiles"]["1"] for column in present)
    last = max(column["quantiles"]["99"] for column in present)
    if not first < last:
        first, last = low, high
    edges = list(_edges(first, last, is_of_whole))
    bars = [_range(columns, start, end, is_of_whole, end == edges[-1]) for start, end in itertools.pairwise(edges)]
    days_only = slice(None) if edges[-1] - edges[0] < _MAX_DAYS_WITH_HOURS else slice(len("1970-01-01"))
    ticks = [(bar.label.partition(" to ")[0][days_only], float(place)) for place, bar in enumerate(bars)]
    if kind(present[0]["type"]) == "number":
        ticks = list(_marks(edges, at_least=1.0 if is_of_whole else 0.0))
    return Histogram(tuple(bars), _tails(columns, edges, is_of_whole), tuple(ticks))


def nice_step(rough: float) -> float:
    """Return the greatest of 1, 2, 5 times a power of ten that is not above `rough`."""
    power = 10.0 ** math.floor(math.log10(rough))
    if not power:  # of a denormal
        return rough
    return max((factor * power for factor in (1, 2, 5) if factor * power <= rough), default=power)


def _range(columns: Sequence[Record | None], start: float, end: float, is_of_whole: bool, is_last: bool) -> Bar:
    shares = tuple(_share(column, start, end, is_last=is_last) for column in columns)
    newest = next(column for column in reversed(columns) if column)
    bounds = (math.ceil(start), math.floor(end)) if is_of_whole else (start, end)
    texts = [quantity(newest, bound) for bound in bounds]
    return Bar(texts[0] if texts[0] == texts[1] else f"{texts[0]} to {texts[1]}", start, end, shares)


def _marks(edges: Sequence[float], *, at_least: float) -> Iterator[tuple[str, float]]:
    """Yield round numbers within the edges of bars, and where they stand."""
    width = edges[-1] - edges[0]
    if not 0 < width < math.inf:
        return
    step = max(nice_step(width / 3), at_least)
    for mark in range(math.ceil(edges[0] / step), math.floor(edges[-1] / step) + 1):
        yield number(mark * step), (mark * step - edges[0]) / width * (len(edges) - 1)


def _has_no_gaps(column: Record) -> bool:
    return all(here[2] == following[1] for here, following in itertools.pairwise(column["points"]))


def _single_values(columns: Sequence[Record | None], values: Sequence[float]) -> Histogram:
    bars = tuple(_single(columns, value) for value in values)
    return Histogram(bars, "", tuple((bar.label, place + 0.5) for place, bar in enumerate(bars)))


def _single(columns: Sequence[Record | None], value: float) -> Bar:
    shares = tuple(_share(column, value, value, is_last=True) for column in columns)
    newest = next(column for column in reversed(columns) if column)
    return Bar(quantity(newest, value), value, value, shares)


def _share(column: Record | None, low: float, high: float, *, is_last: bool) -> float:
    """Return the share of the values from `low` to below `high`, or up to it."""
    if column is None:
        return 0.0
    inside = values_up_to(column, high, below=not is_last) - values_up_to(column, low, below=True)
    return max(inside, 0.0) / float(column["count"])


def _edges(first: float, last: float, is_of_whole: bool) -> Iterator[float]:
    if is_of_whole:  # between whole numbers, so that each bar has as many of them
        first, last = math.floor(first), math.ceil(last)
        width = math.ceil((last - first + 1) / _MAX_BINS)
        for place in range(math.ceil((last - first + 1) / width) + 1):
            yield first - 0.5 + place * width
    else:
        # Parts of both ends, as their distance may be no double.
        for place in range(_MAX_BINS + 1):
            yield first * (1 - place / _MAX_BINS) + last * (place / _MAX_BINS) if place < _MAX_BINS else last


def _tails(columns: Sequence[Record | None], edges: Sequence[float], is_of_whole: bool) -> str:
    notes = []
    present = [column for column in columns if column]
    low, high = (math.ceil(edges[0]), math.floor(edges[-1])) if is_of_whole else (edges[0], edges[-1])
    below = [values_up_to(column, edges[0], below=True) / column["count"] for column in present]
    above = [1 - values_up_to(column, edges[-1]) / column["count"] for column in present]
    if any(share > 0 for share in below):
        least = min(column["min"] for column in present)
        shares = newest_first([percent(share) for share in below])
        notes.append(f"below {quantity(present[-1], low)}: {shares} (from {quantity(present[-1], least)})")
    if any(share > 0 for share in above):
        greatest = max(column["max"] for column in present)
        shares = newest_first([percent(share) for share in above])
        notes.append(f"above {quantity(present[-1], high)}: {shares} (to {quantity(present[-1], greatest)})")
    return f"Not drawn: {'; '.join(notes)}" if notes else ""
