"""A profile as one HTML file: a version's columns with plots, or how they differ from another version's. Runs anywhere.

No script and nothing from elsewhere, and the page forbids its browser both: category values are data that others wrote.
"""

import html
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from mlspark.features import drift
from mlspark.features.distribution import is_whole, kind, values_up_to

_MAX_BINS = 30
_MAX_SINGLE_VALUES = 40
_MAX_CATEGORIES = 12
_MAX_CHARACTERS = 60
_MAX_DAYS_WITH_HOURS = 3
_QUANTILES = ("0", "1", "5", "25", "50", "75", "95", "99", "100")

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Version:
    """One version of a table and its profile."""

    version: int
    record: Record
    """See `mlspark.features.profile.profile`."""


def render(
    name: str, table: str, shown: Version, *, against: Version | None = None, comparison: Record | None = None
) -> str:
    """Return the page of `shown`, or of how it differs from `against`.

    Args:
        name: of the pipeline.
        table: where the versions are.
        shown: whose columns are shown.
        against: the version that it is compared with, drawn in grey behind.
        comparison: of the two, by `mlspark.features.drift.compare`.
    """
    assert (against is None) == (comparison is None), "a comparison is of two versions"
    page = _Page(shown, against, comparison)
    title = f"{name}: profile of version {shown.version}"
    if against:
        title = f"{name}: version {shown.version} against {against.version}"
    names = page.names()
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
            f"<title>{_escaped(title)}</title>",
            f"<style>{_STYLE}</style>",
            "</head>",
            "<body>",
            "<header>",
            f"<h1>{_escaped(title)}</h1>",
            f'<p class="table">{_escaped(table, limit=1000)}</p>',
            *page.summary(),
            "</header>",
            "<main>",
            *page.overview(names),
            "<h2>Columns</h2>",
            *page.legend(),
            '<div class="cards wide">' if against else '<div class="cards">',
            *(line for name in names for line in page.card(name)),
            "</div>",
            "</main>",
            "</body>",
            "</html>",
            "",
        ]
    )


def visible(text: str, *, limit: int = _MAX_CHARACTERS) -> str:
    """Return `text` cut to `limit` characters; what cannot be seen, or turns the line round, as its code."""
    cut = text if len(text) <= limit else text[: limit - 1] + "\u2026"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)


def _escaped(text: str, *, limit: int = _MAX_CHARACTERS) -> str:
    return html.escape(visible(text, limit=limit))


_Category = tuple[float, float | None]
"""Share of all rows, label rate."""

_Entry = tuple[str, Sequence[_Category | None], str]
"""Value as HTML, its numbers in each version, the older first (None where unknown), and what to say of the older one."""


@dataclass(frozen=True)
class _Bar:
    label: str
    """Of the values in it, for a person."""
    low: float
    high: float
    shares: tuple[float, ...]
    """Of the values of each version, the older first."""


@dataclass(frozen=True)
class _Histogram:
    bars: tuple[_Bar, ...]
    note: str
    """What is beyond the bars."""
    ticks: tuple[tuple[str, float], ...]
    """Label, and where it stands: number of bars to the left of it."""


class _Page:
    """The parts of the page, each a list of lines."""

    def __init__(self, shown: Version, against: Version | None, comparison: Record | None) -> None:
        self._versions = [version for version in (against, shown) if version]  # the older first
        self._records = [version.record for version in self._versions]
        self._new = shown.record
        self._comparison = comparison

    def names(self) -> list[str]:
        """Return the columns, those first that need a look."""
        columns = self._new["columns"]
        if self._comparison is None:
            return sorted(columns, key=lambda name: -self._missing(self._new, name))
        both = [name for name, _ in drift.gravest_first(self._comparison)]
        return [*self._comparison["added"], *self._comparison["removed"], *both]

    def summary(self) -> list[str]:
        """Return rows, label rate and splits of each version."""
        splits = list(dict.fromkeys(split for record in self._records for split in record["splits"]))
        lines = ['<div class="scroll" tabindex="0" role="region" aria-label="Summary"><table class="summary">']
        more = ['<th scope="col" class="num">change</th>'] if self._comparison else []
        lines += [f"<thead><tr><td></td>{self._heads()}{''.join(more)}</tr></thead>", "<tbody>"]
        counted = {
            "Rows": [_count(record["rows"]) for record in self._records],
            f"Label rate ({self._new['label']})": [
                _rate(record["positive"], record["rows"]) for record in self._records
            ],
            "Columns": [_count(len(record["columns"])) for record in self._records],
        }
        changes = self._changes() if self._comparison else [[], [], []]
        lines += [
            _row(title, [*cells, *change]) for (title, cells), change in zip(counted.items(), changes, strict=True)
        ]
        for split in splits:
            cells = [self._split(record, split) for record in self._records]
            lines.append(_row(f"Split {split}: rows (label rate)", cells + ([""] if self._comparison else [])))
        return [*lines, "</tbody></table></div>"]

    def _changes(self) -> list[list[str]]:
        assert self._comparison is not None
        rows, rate = self._comparison["rows"], self._comparison["label_rate"]
        added, removed = len(self._comparison["added"]), len(self._comparison["removed"])
        return [
            [f"{_signed(rows['change'] / rows['old'] * 100, 1)} %"],
            [f"{_signed(rate['change'] * 100, 2)} points"],
            [f"{added} added, {removed} removed" if added or removed else "the same"],
        ]

    def _heads(self) -> str:
        return "".join(f'<th scope="col" class="num">version {version.version}</th>' for version in self._versions)

    def _split(self, record: Record, split: str) -> str:
        if split not in record["splits"]:
            return "none"
        found = record["splits"][split]
        return f"{_count(found['rows'])} ({_rate(found['positive'], found['rows'])})"

    def overview(self, names: Sequence[str]) -> list[str]:
        """Return the table of all columns."""
        titles = ["Type", "Missing", "Least", "Median", "Greatest", "Different", "Commonest"]
        if self._comparison:
            titles = ["Type", "Verdict", "PSI", "JS distance", "Missing", "Mean shift", "Unseen"]
        numeric = {*titles} - {"Type", "Verdict", "Commonest"}
        heads = "".join(
            f'<th scope="col"{" class=num" if title in numeric else ""}>{title}</th>' for title in ["Column", *titles]
        )
        lines = ["<h2>Overview</h2>", *self._verdicts()]
        lines += ['<div class="scroll" tabindex="0" role="region" aria-label="Overview of all columns"><table>']
        lines += [f"<thead><tr>{heads}</tr></thead>", "<tbody>"]
        for name in names:
            cells = self._compared(name) if self._comparison else self._alone(name)
            body = "".join(
                f"<td{' class=num' if title in numeric else ''}>{cell}</td>"
                for title, cell in zip(titles, cells, strict=True)
            )
            link = f'<a href="#{_anchor(name)}">{_escaped(name)}</a>'
            lines.append(f'<tr><th scope="row">{link}</th>{body}</tr>')
        return [*lines, "</tbody></table></div>"]

    def _verdicts(self) -> list[str]:
        """Return how many columns there are of each verdict, and what the verdicts mean."""
        if self._comparison is None:
            return []
        verdicts = [column["verdict"] for column in self._comparison["columns"].values()]
        counted = [f"{_badge(verdict)} {verdicts.count(verdict)}" for verdict in drift.VERDICTS if verdict in verdicts]
        for what in ("added", "removed"):
            if self._comparison[what]:
                counted.append(f"{_badge(what)} {len(self._comparison[what])}")
        limits = self._comparison["limits"]
        meaning = (
            f"Verdict by PSI, the population stability index over tenths of the older version or over categories: stable "
            f"below {limits['moderate']}, moderate, large from {limits['large']}. JS distance: 0 the same, 1 nothing in "
            f"common. Mean shift: in standard deviations of the older version. Unseen: share of rows with values that the "
            f"older version's profile does not name."
        )
        return [f'<p class="verdicts">{" ".join(f"<span>{part}</span>" for part in counted)}</p>', _note(meaning)]

    def _alone(self, name: str) -> list[str]:
        column = self._new["columns"][name]
        cells = [_type(column), _percent(self._missing(self._new, name))]
        if not column["count"] or kind(column["type"]) == "array":
            return [*cells, "", "", "", "", ""]
        if kind(column["type"]) == "text":
            value, rows, _ = column["values"][0]
            commonest = f"{_value(value)} {_percent(rows / self._new['rows'])}"
            return [*cells, "", "", "", _count(column["distinct"]), commonest]
        least, median, greatest = (quantity(column, column["quantiles"][key]) for key in ("0", "50", "100"))
        return [*cells, least, median, greatest, "", ""]

    def _compared(self, name: str) -> list[str]:
        assert self._comparison is not None
        if name not in self._comparison["columns"]:
            what = "added" if name in self._comparison["added"] else "removed"
            record = self._new if what == "added" else self._records[0]
            missing = _percent(self._missing(record, name))
            return [_type(record["columns"][name]), _badge(what), "", "", missing, "", ""]
        found = self._comparison["columns"][name]
        new, change = self._missing(self._new, name), found["missing_share_change"]
        missing = _percent(new) + (f" ({_signed(change * 100, 1)})" if abs(change) >= 0.0005 else "")
        shift, unseen = found.get("mean_shift"), found.get("unseen")
        return [
            _type(self._new["columns"][name]),
            _badge(found["verdict"]),
            "" if found["psi"] is None else f"{found['psi']:.3f}",
            "" if found["js_distance"] is None else f"{found['js_distance']:.3f}",
            missing,
            "" if shift is None else _signed(shift, 2),
            "" if not unseen or not unseen["values"] else _percent(unseen["share"]),
        ]

    def legend(self) -> list[str]:
        """Return what the plots' colours mean."""
        dot = '<svg class="key" viewBox="0 0 12 12" aria-hidden="true"><circle class="dot" cx="6" cy="6" r="4"/></svg>'
        keys = [
            f'<span><svg class="key" viewBox="0 0 12 12" aria-hidden="true"><rect class="{series}" width="12" height="12"/>'
            f"</svg> version {version.version}</span>"
            for series, version in zip(("old", "new")[-len(self._versions) :], self._versions, strict=True)
        ]
        rates = f"<span>{dot} label rate of a category, on a scale from 0 to 100 %; the line is that of all rows</span>"
        return [f'<p class="legend">{"".join(keys)}{rates}</p>']

    def card(self, name: str) -> list[str]:
        """Return all that is known of a column."""
        columns = [record["columns"].get(name) for record in self._records]
        there = next(column for column in reversed(columns) if column)
        anchor = _anchor(name)
        head = f'<h3 id="{anchor}-title">{_escaped(name)}</h3> <span class="type">{_type(there)}</span>'
        if self._comparison:
            found = self._comparison["columns"].get(name)
            what = found["verdict"] if found else "added" if columns[-1] else "removed"
            head += f" {_badge(what)}"
            if found and found["psi"] is not None:
                head += f' <span class="type">PSI {found["psi"]:.3f}</span>'
        if name == self._new["label"]:
            head += ' <span class="type">label</span>'
        lines = [f'<section class="card" id="{anchor}" aria-labelledby="{anchor}-title">', f"<div>{head}</div>"]
        lines += [self._missing_line(columns)]
        kinds = {kind(column["type"]) for column in columns if column}
        if kinds == {"text"}:
            lines += self._categories(name, columns)
        elif kinds <= {"number", "time"} and len(kinds) == 1:
            lines += self._numbers(name, columns)
        elif len(kinds) > 1:
            lines += [_note(f"type was {columns[0]['type']}, is {columns[-1]['type']}")]
        return [*lines, "</section>"]

    def _missing_line(self, columns: Sequence[Record | None]) -> str:
        if not any(column and column["nulls"] for column in columns):
            told = "none missing"
        else:
            told = ", before ".join(
                f"{_percent(column['nulls'] / max(record['rows'], 1))} missing ({_count(column['nulls'])} rows)"
                for record, column in reversed(list(zip(self._records, columns, strict=True)))
                if column
            )
        absent = [version.version for version, column in zip(self._versions, columns, strict=True) if not column]
        return f'<p class="missing">{"; ".join([told, *(f"not in version {number}" for number in absent)])}</p>'

    def _missing(self, record: Record, name: str) -> float:
        return float(record["columns"][name]["nulls"] / max(record["rows"], 1))

    def _numbers(self, name: str, columns: Sequence[Record | None]) -> list[str]:
        if not any(column and column["count"] for column in columns):
            return [_note("no values")]
        histogram = _histogram([column if column and column["count"] else None for column in columns])
        titles = [f"version {version.version}" for version in self._versions]
        lines = _plot(histogram, name, titles)
        if histogram.note:
            lines.append(_note(histogram.note))
        return [*lines, *self._quantiles(name, columns)]

    def _quantiles(self, name: str, columns: Sequence[Record | None]) -> list[str]:
        ends = {"0": "least", "50": "median", "100": "greatest"}
        titles = [*(ends.get(percent, f"{percent} %") for percent in _QUANTILES), "mean", "std"]
        cells: list[list[str]] = []
        for column in columns:
            if not column or not column["count"]:
                cells.append([""] * len(titles))
                continue
            quantiles = [quantity(column, column["quantiles"][percent]) for percent in _QUANTILES]
            deviation = _number(column["std"]) + (" days" if kind(column["type"]) == "time" else "")
            cells.append([*quantiles, quantity(column, column["mean"]), deviation])
        rows = [_row(title, values) for title, *values in zip(titles, *cells, strict=True)]
        # Two tables beside each other where there is room.
        halves = [rows[:6], rows[6:]]
        lines = [
            f'<div class="scroll quantiles" tabindex="0" role="region" aria-label="Quantiles of {_escaped(name)}">'
        ]
        heads = f"<thead><tr><td></td>{self._heads()}</tr></thead>" if self._comparison else ""
        for half in halves:
            lines += [f"<table>{heads}<tbody>", *half, "</tbody></table>"]
        return [*lines, "</div>"]

    def _categories(self, name: str, columns: Sequence[Record | None]) -> list[str]:
        totals = [max(record["rows"], 1) for record in self._records]
        found = [{value: counts for value, *counts in column["values"]} if column else {} for column in columns]
        most = {
            value: max(values[value][0] / total for values, total in zip(found, totals, strict=True) if value in values)
            for value in dict.fromkeys(value for values in reversed(found) for value in values)
        }
        top = sorted(most, key=lambda value: (-most[value], value))[:_MAX_CATEGORIES]
        entries: list[_Entry] = []
        unseen = self._unseen(name)
        for value in top:
            bars = [
                (values[value][0] / total, values[value][1] / values[value][0])
                if value in values
                else (None if column is None or column["distinct"] > len(column["values"]) else (0.0, None))
                for values, column, total in zip(found, columns, totals, strict=True)
            ]
            entries.append((_value(value), bars, unseen.get(value, "")))
        others = [
            (column["count"] - sum(values[value][0] for value in top if value in values)) / total if column else 0.0
            for values, column, total in zip(found, columns, totals, strict=True)
        ]
        if any(others):
            entries.append(("<i>all others</i>", [(share, None) for share in others], ""))
        if any(column and column["nulls"] for column in columns):
            missing = [
                (column["nulls"] / total, column["nulls_positive"] / column["nulls"] if column["nulls"] else None)
                if column
                else None
                for column, total in zip(columns, totals, strict=True)
            ]
            entries.append(("<i>missing</i>", missing, ""))
        distinct = [_count(column["distinct"]) for column in reversed(columns) if column]
        told = f"{', before '.join(dict.fromkeys(distinct))} different values"
        return [*self._bars(name, entries), _note(told)]

    def _unseen(self, name: str) -> dict[str, str]:
        """Return the values of a text that the older version does not name -> what to say instead of their share."""
        unseen = (self._comparison or {"columns": {}})["columns"].get(name, {}).get("unseen")
        return dict.fromkeys((value for value, _ in unseen["values"]), _mark(unseen["is_certain"])) if unseen else {}

    def _bars(self, name: str, entries: Sequence[_Entry]) -> list[str]:
        largest = max((bar[0] for _, bars, _ in entries for bar in bars if bar), default=0.0) or 1.0
        all_rates = [record["positive"] / max(record["rows"], 1) for record in self._records]
        which = "categories compared" if self._comparison else "categories"
        lines = [
            f'<table class="{which}"><caption class="hidden">Categories of {_escaped(name)}</caption>',
            _columns(which),
        ]
        was = '<th scope="col" class="was">was</th>' if self._comparison else ""
        heads = [f'<th scope="{scope}"{span}>{head}</th>' for head, scope, span in _CATEGORY_HEADS]
        lines.append(f"<thead><tr>{heads[0]}{heads[1]}{was}{heads[2]}{was}</tr></thead><tbody>")
        for label, bars, instead in entries:
            *before, now = bars
            old = before[0] if before else None
            shares = [_percent(bar[0]) if bar else "" for bar in bars]
            rates = [_percent(bar[1]) if bar and bar[1] is not None else "" for bar in bars]
            cells = [f"<td>{_share_bar(old, now, largest, shares)}</td>", f"<td>{shares[-1]}</td>"]
            cells += [f'<td class="was">{instead or shares[0]}</td>'] if before else []
            cells += [f"<td>{_rate_dot(old, now, all_rates[-1], rates)}</td>", f"<td>{rates[-1]}</td>"]
            cells += [f'<td class="was">{rates[0]}</td>'] if before else []
            lines.append(f'<tr><th scope="row">{label}</th>{"".join(cells)}</tr>')
        return [*lines, "</tbody></table>"]


def _histogram(columns: Sequence[Record | None]) -> _Histogram:
    """Return bars of the single values if there are few, else equally wide ones from the 1st to the 99th percentile."""
    there = [column for column in columns if column]
    low, high = min(column["min"] for column in there), max(column["max"] for column in there)
    is_of_whole = all(is_whole(column["type"]) for column in there)
    values = sorted({point[0] for column in there for point in column["points"]})
    if is_of_whole and high - low < _MAX_SINGLE_VALUES:
        values = sorted({low + place for place in range(int(high - low) + 1)})
        return _single_values(columns, values)
    if all(_has_no_gaps(column) for column in there) and len(values) < _MAX_SINGLE_VALUES:
        return _single_values(columns, values)
    first = min(column["quantiles"]["1"] for column in there)
    last = max(column["quantiles"]["99"] for column in there)
    if not first < last:
        first, last = low, high
    edges = list(_edges(first, last, is_of_whole))
    bars = []
    for start, end in itertools.pairwise(edges):
        shares = tuple(_share(column, start, end, is_last=end == edges[-1]) for column in columns)
        shown = (math.ceil(start), math.floor(end)) if is_of_whole else (start, end)
        texts = [quantity(there[-1], bound) for bound in shown]
        bars.append(_Bar(texts[0] if texts[0] == texts[1] else f"{texts[0]} to {texts[1]}", start, end, shares))
    days_only = slice(None) if edges[-1] - edges[0] < _MAX_DAYS_WITH_HOURS else slice(len("1970-01-01"))
    ticks = [(bar.label.partition(" to ")[0][days_only], float(place)) for place, bar in enumerate(bars)]
    if kind(there[0]["type"]) == "number":
        ticks = list(_marks(edges, at_least=1.0 if is_of_whole else 0.0))
    return _Histogram(tuple(bars), _tails(columns, edges, is_of_whole), tuple(ticks))


def _marks(edges: Sequence[float], *, at_least: float) -> Iterator[tuple[str, float]]:
    """Yield round numbers within the edges of bars, and where they stand."""
    width = edges[-1] - edges[0]
    if not 0 < width < math.inf:
        return
    step = max(_nice_step(width / 3), at_least)
    for mark in range(math.ceil(edges[0] / step), math.floor(edges[-1] / step) + 1):
        yield _number(mark * step), (mark * step - edges[0]) / width * (len(edges) - 1)


def _has_no_gaps(column: Record) -> bool:
    return all(here[2] == following[1] for here, following in itertools.pairwise(column["points"]))


def _single_values(columns: Sequence[Record | None], values: Sequence[float]) -> _Histogram:
    bars = tuple(_single(columns, value) for value in values)
    return _Histogram(bars, "", tuple((bar.label, place + 0.5) for place, bar in enumerate(bars)))


def _single(columns: Sequence[Record | None], value: float) -> _Bar:
    shares = tuple(_share(column, value, value, is_last=True) for column in columns)
    there = next(column for column in reversed(columns) if column)
    return _Bar(quantity(there, value), value, value, shares)


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
    found = []
    there = [column for column in columns if column]
    low, high = (math.ceil(edges[0]), math.floor(edges[-1])) if is_of_whole else (edges[0], edges[-1])
    below = [values_up_to(column, edges[0], below=True) / column["count"] for column in there]
    above = [1 - values_up_to(column, edges[-1]) / column["count"] for column in there]
    if any(share > 0 for share in below):
        least = min(column["min"] for column in there)
        shares = ", before ".join(_percent(share) for share in reversed(below))
        found.append(f"below {quantity(there[-1], low)}: {shares} (from {quantity(there[-1], least)})")
    if any(share > 0 for share in above):
        greatest = max(column["max"] for column in there)
        shares = ", before ".join(_percent(share) for share in reversed(above))
        found.append(f"above {quantity(there[-1], high)}: {shares} (to {quantity(there[-1], greatest)})")
    return f"Not drawn: {'; '.join(found)}" if found else ""


_WIDTH, _HEIGHT = 360.0, 150.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 38.0, 8.0, 16.0, 20.0
_CHARACTER = 6.4  # width of one, of the font's 11


def _plot(histogram: _Histogram, name: str, titles: Sequence[str]) -> list[str]:
    """Return a histogram as SVG: the older version's bars in grey, wide and behind."""
    bars = histogram.bars
    peaks = sorted((max(bar.shares) for bar in bars), reverse=True)
    top, is_cut = peaks[0] or 1.0, False
    if len(peaks) > 2 and peaks[1] > 0 and peaks[0] > 4 * peaks[1]:
        top, is_cut = peaks[1] * 1.6, True
    step = _nice_step(top / 3)
    height = _HEIGHT - _TOP - _BOTTOM
    width = (_WIDTH - _LEFT - _RIGHT) / len(bars)

    def y(share: float) -> float:
        return _TOP + height * (1 - min(share / top, 1.0))

    what = f"Histogram of {name}: {bars[0].label} to {bars[-1].label}"
    commonest = max(bars, key=lambda bar: bar.shares[-1])
    what += f"; most values at {commonest.label} ({_percent(commonest.shares[-1])})"
    lines = [f'<svg class="plot" role="img" viewBox="0 0 {_WIDTH:.0f} {_HEIGHT:.0f}" aria-label="{html.escape(what)}">']
    lines.append(f"<title>{html.escape(what)}</title>")
    for place in range(1, math.floor(top / step + 1e-9) + 1):
        at = y(place * step)
        lines.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        label = f"{place * step * 100:.6g} %"
        lines.append(f'<text x="{_LEFT - 4}" y="{at + 4:.1f}" text-anchor="end">{label}</text>')
    for place, bar in enumerate(bars):
        left = _LEFT + place * width
        told = "; ".join(
            f"{title} {_percent(share)}" if len(titles) > 1 else _percent(share)
            for title, share in zip(titles, bar.shares, strict=True)
        )
        lines.append(f"<g><title>{html.escape(bar.label)}: {told}</title>")
        lines.append(f'<rect class="hit" x="{left:.2f}" y="{_TOP}" width="{width:.2f}" height="{height}"/>')
        is_compared = len(bar.shares) > 1
        gap = min(1.0, width * 0.1)
        for series, share in zip(("old", "new")[-len(bar.shares) :], bar.shares, strict=True):
            inset = width * 0.26 if is_compared and series == "new" else gap / 2
            if share:
                lines.append(
                    f'<rect class="{series}" x="{left + inset:.2f}" y="{y(share):.2f}" '
                    f'width="{width - 2 * inset:.2f}" height="{_TOP + height - y(share):.2f}"/>'
                )
        lines.append("</g>")
        if is_cut and max(bar.shares) > top:
            cut = f"{left - 2:.1f},{_TOP + 16:.1f} {left + width + 2:.1f},{_TOP + 10:.1f}"
            lines.append(f'<polyline class="cut" points="{cut}"/>')
            shares = ", before ".join(_percent(share) for share in reversed(bar.shares))
            at, anchor = (left, "start") if place < len(bars) / 2 else (left + width, "end")
            lines.append(f'<text x="{at:.1f}" y="{_TOP - 5}" text-anchor="{anchor}">{shares} (bar cut)</text>')
    base = _TOP + height
    lines.append(f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{base}" y2="{base}"/>')
    lines += _ticks(histogram, width)
    return [*lines, "</svg>"]


def _ticks(histogram: _Histogram, width: float) -> list[str]:
    """Return the labels below the bars, as many as fit."""
    ticks = histogram.ticks
    longest = max((len(label) for label, _ in ticks), default=1) * _CHARACTER + 10
    nearest = min((after[1] - before[1] for before, after in itertools.pairwise(ticks)), default=1.0) * width
    lines = []
    for label, place in ticks[:: max(1, math.ceil(longest / nearest))]:
        half = len(label) * _CHARACTER / 2
        at = _LEFT + place * width
        lines.append(f'<line class="axis" x1="{at:.1f}" x2="{at:.1f}" y1="{_HEIGHT - _BOTTOM}" y2="{_HEIGHT - 16}"/>')
        at = min(max(at, half), _WIDTH - half)
        lines.append(f'<text x="{at:.1f}" y="{_HEIGHT - 5}" text-anchor="middle">{html.escape(label)}</text>')
    return lines


def _nice_step(rough: float) -> float:
    """Return the greatest of 1, 2, 5 times a power of ten that is not above `rough`."""
    power = 10.0 ** math.floor(math.log10(rough))
    if not power:  # of a denormal
        return rough
    return max((factor * power for factor in (1, 2, 5) if factor * power <= rough), default=power)


_CATEGORY_HEADS = (
    ("value", "col", ""), ("rows", "colgroup", ' colspan="2"'), ("label rate", "colgroup", ' colspan="2"'),
)  # fmt: skip


def _share_bar(old: _Category | None, now: _Category | None, largest: float, told: Sequence[str]) -> str:
    parts = [f"<title>{', before '.join(reversed(told))} of rows</title>"]
    if old:
        parts.append(f'<rect class="old" y="1" height="14" width="{old[0] / largest * 100:.2f}%"/>')
    if now:
        inset = 4 if old else 2
        share = now[0] / largest * 100
        parts.append(f'<rect class="new" y="{inset}" height="{16 - 2 * inset}" width="{share:.2f}%"/>')
    return f'<svg class="bar" aria-hidden="true">{"".join(parts)}</svg>'


def _rate_dot(
    old: _Category | None,
    now: _Category | None,
    all_rate: float,
    told: Sequence[str],
) -> str:
    rates = [bar[1] if bar else None for bar in (old, now)]
    if rates == [None, None]:
        return ""
    parts = [f"<title>label rate {', before '.join(reversed(told))}</title>"]
    parts.append('<line class="axis" x1="6%" x2="94%" y1="8" y2="8"/>')
    at = 6 + all_rate * 88
    parts.append(f'<line class="all" x1="{at:.1f}%" x2="{at:.1f}%" y1="1" y2="15"/>')
    for series, rate in zip(("dot-old", "dot"), rates, strict=True):
        if rate is not None:
            parts.append(f'<circle class="{series}" cx="{6 + rate * 88:.1f}%" cy="8" r="4"/>')
    return f'<svg class="rate" aria-hidden="true">{"".join(parts)}</svg>'


def _columns(which: str) -> str:
    was = '<col class="short was">' if "compared" in which else ""
    return f'<colgroup><col class="named"><col><col class="short">{was}<col><col class="short">{was}</colgroup>'


def _mark(is_certain: bool) -> str:
    if is_certain:
        return '<span class="mark">unseen</span>'
    return '<span class="mark" title="The older profile does not name all its values">unseen?</span>'


def _row(title: str, cells: Sequence[str]) -> str:
    body = "".join(f'<td class="num">{cell}</td>' for cell in cells)
    return f'<tr><th scope="row">{_escaped(title)}</th>{body}</tr>'


def _anchor(name: str) -> str:
    return f"column-{name}"  # a contract's names need no escape


def _badge(what: str) -> str:
    return f'<span class="badge {what}">{what}</span>'


def _note(text: str) -> str:
    return f'<p class="note">{html.escape(text)}</p>'


def _type(column: Record) -> str:
    return html.escape(column["type"])


def _value(value: str) -> str:
    """Return a category for HTML; the whole of it on hovering where it is cut."""
    if not value.strip():
        return f"<i>{'empty' if not value else 'blank'}</i>"
    hover = f' title="{_escaped(value, limit=1000)}"' if len(value) > 16 else ""
    return f'<span class="value"{hover}>{_escaped(value)}</span>'


def _count(number: int) -> str:
    return f"{number:,}"


def _rate(part: int, whole: int) -> str:
    return f"{part / max(whole, 1) * 100:.2f} %"


def _percent(share: float) -> str:
    """Return a share for a person; "0 %" and "100 %" are exactly that."""
    if share in (0, 1):
        return f"{share * 100:.0f} %"
    return f"{share * 100:.2f} %" if abs(share) < 0.0005 else f"{share * 100:.1f} %"


def _signed(number: float, digits: int) -> str:
    return f"{number:+,.{digits}f}"


def quantity(column: Record, value: float) -> str:
    """Return a value of a number or time column, as a person writes it."""
    if kind(column["type"]) == "number":
        return _number(value)
    try:
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=value)
    except OverflowError:
        return f"day {_number(value)}"
    if column["type"] == "date":
        return moment.date().isoformat()
    return moment.replace(tzinfo=None).isoformat(sep=" ", timespec="minutes")


def _number(value: float) -> str:
    """Return a number in four digits or, if whole, in all."""
    if value == 0:
        return "0"
    size = math.floor(math.log10(abs(value)))
    if size >= 15 or size < -4:
        return f"{value:.3e}"
    if float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:,.{max(0, 3 - size)}f}"


_STYLE = """
:root { color-scheme: light dark; --back: #ffffff; --card: #f7f8fa; --line: #d5d9e0; --text: #1b1f24; --soft: #59616c;
  --new: #2563c9; --old: #b4bac4; --dot: #c2410c; --large: #b3261e; --moderate: #8a5a00; --stable: #2e6b3e; }
@media screen and (prefers-color-scheme: dark) { :root { --back: #14171c; --card: #1d2128; --line: #3a414c; --text: #e8eaee;
  --soft: #a3acb9; --new: #6ba1ff; --old: #626b79; --dot: #ff9457; --large: #ff8a80; --moderate: #f0b849;
  --stable: #7fcf93; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 24px; max-width: 1400px; background: var(--back); color: var(--text);
  font: 15px/1.45 system-ui, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; }
h1 { font-size: 26px; line-height: 1.2; margin: 0; } h2 { font-size: 19px; margin: 32px 0 8px; }
h3 { display: inline; font-size: 16px; margin: 0; overflow-wrap: anywhere; }
p { margin: 4px 0 8px; } .table { color: var(--soft); overflow-wrap: anywhere; }
.note, .missing, .type, .legend { color: var(--soft); font-size: 13px; } .note { max-width: 900px; }
a { color: var(--new); } a:focus-visible, .scroll:focus-visible { outline: 2px solid var(--new); outline-offset: 2px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 14px 4px 0; text-align: left; font-weight: normal; white-space: nowrap; vertical-align: middle; }
thead th { color: var(--soft); font-size: 13px; } main > .scroll tr, .summary tr { border-bottom: 1px solid var(--line); }
.num, th.num { text-align: right; }
.badge { display: inline-block; padding: 0 8px; border: 1px solid; border-radius: 9px; font-size: 12px; line-height: 18px; }
.badge.large, .badge.retyped, .badge.removed { color: var(--large); font-weight: 600; }
.badge.moderate, .badge.added { color: var(--moderate); } .badge.stable { color: var(--stable); }
.verdicts span { margin-right: 6px; }
.legend > span { margin-right: 20px; } .key { width: 12px; height: 12px; vertical-align: -1px; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 400px), 1fr)); gap: 14px; }
.cards.wide { grid-template-columns: repeat(auto-fill, minmax(min(100%, 540px), 1fr)); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 12px 14px; min-width: 0;
  scroll-margin-top: 12px; }
.card:target { border-color: var(--new); }
.plot { display: block; width: 100%; max-width: 440px; height: auto; margin: 6px 0; }
.plot text { fill: var(--soft); font-size: 11px; }
.new { fill: var(--new); } .old { fill: var(--old); } .hit { fill: transparent; } g:hover .hit { fill: var(--line); }
.grid { stroke: var(--line); } .axis { stroke: var(--soft); } .cut { stroke: var(--card); stroke-width: 4; fill: none; }
.all { stroke: var(--soft); } .dot { fill: var(--dot); } .dot-old { fill: var(--old); }
.quantiles { display: flex; flex-wrap: wrap; gap: 6px 32px; font-size: 13px; align-items: end; }
.quantiles table { flex: none; }
.quantiles th, .quantiles td { padding: 1px 12px 1px 0; } .quantiles th[scope=row] { color: var(--soft); }
.categories { width: 100%; table-layout: fixed; font-size: 13px; margin: 8px 0; }
.categories th, .categories td { padding: 1px 6px 1px 0; overflow: hidden; text-overflow: ellipsis; }
.categories td:nth-child(n + 3) { text-align: right; } .named { width: 36%; } .short { width: 58px; }
.compared .named { width: 30%; }
.bar, .rate { display: block; width: 100%; height: 16px; }
.was { color: var(--soft); } .mark { color: var(--dot); font-size: 12px; }
.hidden { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
@media (max-width: 560px) { body { padding: 14px; } .compared .was { display: none; } .short { width: 52px; }
  .summary { font-size: 13px; } th, td { padding-right: 9px; } .card { padding: 10px; } }
@media print { body { padding: 0; max-width: none; font-size: 12px; } .card { break-inside: avoid; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; } .scroll { overflow: visible; } }
"""
