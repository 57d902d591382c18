"""The commonest values of a text column, in one version or beside an older one. Runs anywhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlspark.reports.wording import newest_first, percent

_MAX_CATEGORIES = 12

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Category:
    """Figures of a value in one version."""

    share: float
    """Share of all rows that have the value."""
    event_rate: float | None = None
    """Share of the rows of the event class among them; None where it is unknown or the task has no events."""


@dataclass(frozen=True)
class Entry:
    """A line of the table: a value, or what stands for several."""

    value: str
    """Value of the data; with `is_value` False, words of the page."""
    versions: tuple[Category | None, ...]
    """Figures of each version, the older first; None where they are unknown."""
    is_value: bool = True
    unseen: str = ""
    """Either "certain" or "possible" where the older version does not name the value, else empty."""

    @property
    def old(self) -> Category | None:
        return self.versions[0] if len(self.versions) > 1 else None

    @property
    def new(self) -> Category | None:
        return self.versions[-1]

    @property
    def shares(self) -> list[str]:
        return [percent(category.share) if category else "" for category in self.versions]

    @property
    def rates(self) -> list[str]:
        rates = [category.event_rate if category else None for category in self.versions]
        return ["" if rate is None else percent(rate) for rate in rates]

    @property
    def has_rate(self) -> bool:
        return any(self.rates)

    @property
    def share_title(self) -> str:
        return newest_first(self.shares)

    @property
    def rate_title(self) -> str:
        return newest_first(self.rates)


@dataclass(frozen=True)
class Categories:
    """The table of a column's values."""

    name: str
    entries: tuple[Entry, ...]
    overall_rate: float | None
    """Event rate over all rows of the newer version; None where the task has no events, so that no rate is shown."""

    @property
    def largest(self) -> float:
        """The greatest share, which gets the whole width."""
        shares = (category.share for entry in self.entries for category in entry.versions if category)
        return max(shares, default=0.0) or 1.0


def of_column(
    name: str, records: Sequence[Record], columns: Sequence[Record | None], *, unseen: Mapping[str, Any] | None
) -> Categories:
    """Return the commonest values of a text column, all others and the missing ones.

    Args:
        name: of the column.
        records: profiles of the versions, the older first.
        columns: the column's record in each of them.
        unseen: values that the older version does not name, from `drift.compare`.
    """
    totals = [max(record["rows"], 1) for record in records]
    counts = [{value: rest for value, *rest in column["values"]} if column else {} for column in columns]
    most = {
        value: max(values[value][0] / total for values, total in zip(counts, totals, strict=True) if value in values)
        for value in dict.fromkeys(value for values in reversed(counts) for value in values)
    }
    top = sorted(most, key=lambda value: (-most[value], value))[:_MAX_CATEGORIES]
    mark = ("certain" if unseen["is_certain"] else "possible") if unseen else ""
    marks = {value: mark for value, _ in unseen["values"]} if unseen else {}
    entries = []
    for value in top:
        versions = (
            _category(values.get(value), column, total)
            for values, column, total in zip(counts, columns, totals, strict=True)
        )
        entries.append(Entry(value, tuple(versions), unseen=marks.get(value, "")))
    others = [
        (column["count"] - sum(values[value][0] for value in top if value in values)) / total if column else 0.0
        for values, column, total in zip(counts, columns, totals, strict=True)
    ]
    if any(others):
        entries.append(Entry("all others", tuple(Category(share) for share in others), is_value=False))
    if any(column and column["nulls"] for column in columns):
        missing = (_missing(column, total) for column, total in zip(columns, totals, strict=True))
        entries.append(Entry("missing", tuple(missing), is_value=False))
    return Categories(name, tuple(entries), _overall_rate(records[-1]))


def of_classes(name: str, records: Sequence[Record]) -> Categories | None:
    """Return the classes of the target by their rows, where a record names them."""
    if not any(record["target"].get("classes") for record in records):
        return None
    classes = [record["target"].get("classes") or {} for record in records]
    totals = [max(record["rows"], 1) for record in records]
    names = list(dict.fromkeys(value for values in reversed(classes) for value in values))
    entries = [
        Entry(
            str(value),
            tuple(Category(rows.get(value, 0) / total) for rows, total in zip(classes, totals, strict=True)),
        )
        for value in names
    ]
    return Categories(name, tuple(entries), None)


def _category(counts: Sequence[Any] | None, column: Record | None, total: int) -> Category | None:
    if counts is not None:
        rows, events = counts
        return Category(rows / total, None if events is None else events / rows)
    return None if column is None or column["distinct"] > len(column["values"]) else Category(0.0)


def _missing(column: Record | None, total: int) -> Category | None:
    if column is None:
        return None
    nulls, events = column["nulls"], column.get("nulls_events")
    return Category(nulls / total, events / nulls if nulls and events is not None else None)


def _overall_rate(record: Record) -> float | None:
    return record["events"] / max(record["rows"], 1) if "events" in record else None
