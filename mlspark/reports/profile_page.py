"""A profile as one HTML file: a version's columns with plots, or how they differ from another version's. Runs anywhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlspark.features import drift
from mlspark.features.distribution import kind
from mlspark.reports import categories, page, pictures_section, profile_summary
from mlspark.reports.categories import Categories
from mlspark.reports.histogram import histogram
from mlspark.reports.histogram_plot import HEIGHT, WIDTH, HistogramPlot, lay_out
from mlspark.reports.wording import count, newest_first, number, percent, quantity, signed

_QUANTILES = ("0", "1", "5", "25", "50", "75", "95", "99", "100")

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Version:
    """One version of a table and its profile."""

    version: int
    record: Record
    """See `mlspark.features.profile.profile`."""
    thumbnails: Mapping[str, Any] = field(default_factory=dict)
    """SHA-256 -> thumbnail of a picture; see `mlspark.features.picture_profile`."""
    title: str = ""
    """What the page calls it; empty: by its number."""

    @property
    def name(self) -> str:
        return self.title or f"version {self.version}"


@dataclass(frozen=True)
class Cell:
    """A cell of the overview."""

    text: str = ""
    value: str | None = None
    """Value of the data, shown before the text."""
    badge: str = ""
    """Verdict, shown instead of both."""


@dataclass(frozen=True)
class OverviewRow:
    name: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Overview:
    """The table of all columns."""

    titles: tuple[tuple[str, bool], ...]
    """Title of each column after the name, and whether it holds numbers."""
    rows: tuple[OverviewRow, ...]
    verdicts: tuple[tuple[str, int], ...]
    """Each verdict and the number of columns that have it."""
    meaning: str
    """Meaning of the verdicts."""


@dataclass(frozen=True)
class Quantiles:
    """Two tables beside each other where there is room; each row is a title and a text for each version."""

    halves: tuple[Sequence[Sequence[str]], ...]


@dataclass(frozen=True)
class Card:
    """All that is known of a column."""

    name: str
    type: str
    badge: str
    psi: str
    is_target: bool
    missing: str
    plot: HistogramPlot | None = None
    quantiles: Quantiles | None = None
    categories: Categories | None = None
    notes: tuple[str, ...] = field(default=())


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
    views = ColumnViews(shown, against, comparison)
    title = f"{name}: profile of version {shown.version}"
    if against:
        title = f"{name}: version {shown.version} against {against.version}"
    names, versions = views.names(), [version.name for version in views.versions]
    return page.render(
        "profile.html.jinja",
        title=title,
        table=table,
        versions=versions,
        is_compared=against is not None,
        summary=profile_summary.rows(views.records, comparison),
        classes=categories.of_classes(shown.record["target"]["column"], views.records),
        pictures=pictures_section.sections(views.records, shown.thumbnails, versions, comparison),
        overview=views.overview(names),
        has_rates="events" in shown.record,
        cards=views.cards(),
        plot_size=(f"{WIDTH:.0f}", f"{HEIGHT:.0f}"),
    )


class ColumnViews:
    """What a template shows of columns, from the records."""

    def __init__(self, shown: Version, against: Version | None, comparison: Record | None) -> None:
        self.versions = [version for version in (against, shown) if version]  # the older first
        self.records = [version.record for version in self.versions]
        self._new = shown.record
        self._comparison = comparison

    def names(self) -> list[str]:
        """Return the columns, those first that need a look."""
        columns = self._new["columns"]
        if self._comparison is None:
            return sorted(columns, key=lambda name: -_missing(self._new, name))
        both = [name for name, _ in drift.gravest_first(self._comparison)]
        return [*self._comparison["added"], *self._comparison["removed"], *both]

    def cards(self) -> list[Card]:
        """Return the cards of all columns, in the order of `names`."""
        return [self.card(name) for name in self.names()]

    def overview(self, names: Sequence[str]) -> Overview:
        if self._comparison is None:
            titles = ["Type", "Missing", "Least", "Median", "Greatest", "Different", "Commonest"]
            rows = [OverviewRow(name, tuple(self._alone(name))) for name in names]
            verdicts, meaning = [], ""
        else:
            titles = ["Type", "Verdict", "PSI", "JS distance", "Missing", "Mean shift", "Unseen"]
            rows = [OverviewRow(name, tuple(self._compared(name, self._comparison))) for name in names]
            verdicts, meaning = _verdicts(self._comparison), _meaning(self._comparison)
        is_numeric = [title not in ("Type", "Verdict", "Commonest") for title in titles]
        return Overview(tuple(zip(titles, is_numeric, strict=True)), tuple(rows), tuple(verdicts), meaning)

    def _alone(self, name: str) -> list[Cell]:
        column = self._new["columns"][name]
        cells = [Cell(column["type"]), Cell(percent(_missing(self._new, name)))]
        if not column["count"] or kind(column["type"]) == "array":
            return [*cells, *[Cell()] * 5]
        if kind(column["type"]) == "text":
            value, rows, _ = column["values"][0]
            commonest = Cell(percent(rows / self._new["rows"]), value=value)
            return [*cells, *[Cell()] * 3, Cell(count(column["distinct"])), commonest]
        quantiles = [Cell(quantity(column, column["quantiles"][key])) for key in ("0", "50", "100")]
        return [*cells, *quantiles, Cell(), Cell()]

    def _compared(self, name: str, comparison: Record) -> list[Cell]:
        if name not in comparison["columns"]:
            badge = "added" if name in comparison["added"] else "removed"
            record = self._new if badge == "added" else self.records[0]
            missing = Cell(percent(_missing(record, name)))
            return [Cell(record["columns"][name]["type"]), Cell(badge=badge), Cell(), Cell(), missing, Cell(), Cell()]
        column = comparison["columns"][name]
        new, change = _missing(self._new, name), column["missing_share_change"]
        missing_text = percent(new) + (f" ({signed(change * 100, 1)})" if abs(change) >= 0.0005 else "")
        shift, unseen = column.get("mean_shift"), column.get("unseen")
        texts = [
            "" if column["psi"] is None else f"{column['psi']:.3f}",
            "" if column["js_distance"] is None else f"{column['js_distance']:.3f}",
            missing_text,
            "" if shift is None else signed(shift, 2),
            "" if not unseen or not unseen["values"] else percent(unseen["share"]),
        ]
        return [Cell(self._new["columns"][name]["type"]), Cell(badge=column["verdict"]), *map(Cell, texts)]

    def card(self, name: str) -> Card:
        columns = [record["columns"].get(name) for record in self.records]
        newest = next(column for column in reversed(columns) if column)
        badge, psi, unseen = "", "", None
        if self._comparison:
            change = self._comparison["columns"].get(name)
            badge = change["verdict"] if change else "added" if columns[-1] else "removed"
            psi = f"PSI {change['psi']:.3f}" if change and change["psi"] is not None else ""
            unseen = change.get("unseen") if change else None
        content: dict[str, Any] = {}
        kinds = {kind(column["type"]) for column in columns if column}
        if kinds == {"text"}:
            content = self._text(name, columns, unseen)
        elif kinds <= {"number", "time"} and len(kinds) == 1:
            content = self._number(name, columns)
        elif len(kinds) > 1:
            content = {"notes": (f"type was {columns[0]['type']}, is {columns[-1]['type']}",)}
        is_target = name == self._new["target"]["column"]
        return Card(name, newest["type"], badge, psi, is_target, self._missing_line(columns), **content)

    def _missing_line(self, columns: Sequence[Record | None]) -> str:
        line = "none missing"
        if any(column and column["nulls"] for column in columns):
            line = newest_first(
                [
                    f"{percent(column['nulls'] / max(record['rows'], 1))} missing ({count(column['nulls'])} rows)"
                    for record, column in zip(self.records, columns, strict=True)
                    if column
                ]
            )
        absent = [version.name for version, column in zip(self.versions, columns, strict=True) if not column]
        return "; ".join([line, *(f"not in {name}" for name in absent)])

    def _text(self, name: str, columns: Sequence[Record | None], unseen: Record | None) -> dict[str, Any]:
        distinct = [count(column["distinct"]) for column in columns if column]
        return {
            "categories": categories.of_column(name, self.records, columns, unseen=unseen),
            "notes": (f"{newest_first(list(dict.fromkeys(distinct)))} different values",),
        }

    def _number(self, name: str, columns: Sequence[Record | None]) -> dict[str, Any]:
        if not any(column and column["count"] for column in columns):
            return {"notes": ("no values",)}
        bars = histogram([column if column and column["count"] else None for column in columns])
        plot = lay_out(bars, name, [version.name for version in self.versions])
        return {"plot": plot, "quantiles": _quantiles(columns), "notes": (bars.note,) if bars.note else ()}


def _missing(record: Record, name: str) -> float:
    return float(record["columns"][name]["nulls"] / max(record["rows"], 1))


def _verdicts(comparison: Record) -> list[tuple[str, int]]:
    verdicts = [column["verdict"] for column in comparison["columns"].values()]
    counts = [(verdict, verdicts.count(verdict)) for verdict in drift.VERDICTS if verdict in verdicts]
    return counts + [(change, len(comparison[change])) for change in ("added", "removed") if comparison[change]]


def _meaning(comparison: Record) -> str:
    limits = comparison["limits"]
    return (
        f"Verdict by PSI, the population stability index over tenths of the older version or over categories: stable "
        f"below {limits['moderate']}, moderate, large from {limits['large']}. JS distance: 0 the same, 1 nothing in "
        f"common. Mean shift: in standard deviations of the older version. Unseen: share of rows with values that the "
        f"older version's profile does not name."
    )


def _quantiles(columns: Sequence[Record | None]) -> Quantiles:
    ends = {"0": "least", "50": "median", "100": "greatest"}
    titles = [*(ends.get(key, f"{key} %") for key in _QUANTILES), "mean", "std"]
    texts: list[list[str]] = []
    for column in columns:
        if not column or not column["count"]:
            texts.append([""] * len(titles))
            continue
        quantiles = [quantity(column, column["quantiles"][key]) for key in _QUANTILES]
        deviation = number(column["std"]) + (" days" if kind(column["type"]) == "time" else "")
        texts.append([*quantiles, quantity(column, column["mean"]), deviation])
    rows = list(zip(titles, *texts, strict=True))
    return Quantiles((rows[:6], rows[6:]))
