"""The first table of a profile's page: rows, target and splits of each version. Runs anywhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlspark.features.distribution import kind
from mlspark.reports.wording import count, quantity, rate, signed

Record = Mapping[str, Any]


@dataclass(frozen=True)
class SummaryRow:
    title: str
    cells: tuple[str, ...]
    """One for each version, the older first; in a comparison, then the change."""


def rows(records: Sequence[Record], comparison: Record | None) -> list[SummaryRow]:
    """Return the lines of the table.

    Args:
        records: profiles of one version, or of two, the older first.
        comparison: of the two, by `mlspark.features.drift.compare`.
    """
    lines = [
        _row("Rows", [count(record["rows"]) for record in records], comparison, _change_of_rows(records)),
        _target(records, comparison),
        _columns(records, comparison),
    ]
    has_events = any("events" in record for record in records)
    for split in dict.fromkeys(split for record in records for split in record["splits"]):
        title = f"Split {split}: rows (label rate)" if has_events else f"Split {split}: rows"
        lines.append(_row(title, [_split(record, split) for record in records], comparison, ""))
    return lines


def _row(title: str, cells: Sequence[str], comparison: Record | None, change: str) -> SummaryRow:
    return SummaryRow(title, (*cells, change) if comparison else tuple(cells))


def _target(records: Sequence[Record], comparison: Record | None) -> SummaryRow:
    target = records[-1]["target"]
    if all("events" in record for record in records):
        event = target.get("event")
        name = target["column"] if event is None else f"{target['column']} = {event}"
        rates = [record["events"] / max(record["rows"], 1) for record in records]
        cells = [rate(record["events"], record["rows"]) for record in records]
        return _row(f"Label rate ({name})", cells, comparison, f"{signed((rates[-1] - rates[0]) * 100, 2)} points")
    return _row(f"Target ({target['column']})", [_described(record) for record in records], comparison, "")


def _described(record: Record) -> str:
    """Return what a target holds: rate of the event, number of classes, or mean and median."""
    target = record["target"]
    column = record["columns"].get(target["column"], {"count": 0, "type": "string"})
    if "events" in record:
        return f"{target['kind']}, {rate(record['events'], record['rows'])}"
    if target["kind"] == "multiclass":
        num_classes = len(target.get("classes") or ()) or column.get("distinct")
        return f"multiclass, {count(num_classes)} classes" if num_classes else "multiclass"
    if not column["count"] or kind(column["type"]) != "number":
        return str(target["kind"])
    mean, median = quantity(column, column["mean"]), quantity(column, column["quantiles"]["50"])
    return f"{target['kind']}, mean {mean}, median {median}"


def _split(record: Record, split: str) -> str:
    if split not in record["splits"]:
        return "none"
    counts = record["splits"][split]
    events = f" ({rate(counts['events'], counts['rows'])})" if "events" in counts else ""
    return f"{count(counts['rows'])}{events}"


def _change_of_rows(records: Sequence[Record]) -> str:
    before, now = records[0]["rows"], records[-1]["rows"]
    return f"{signed((now - before) / max(before, 1) * 100, 1)} %"


def _columns(records: Sequence[Record], comparison: Record | None) -> SummaryRow:
    """Return how many columns there are; what was measured of pictures is none."""
    names = [{name for name, column in record["columns"].items() if "of" not in column} for record in records]
    change = ""
    if comparison is not None:
        added, removed = len(names[-1] - names[0]), len(names[0] - names[-1])
        change = f"{added} added, {removed} removed" if added or removed else "the same"
    return _row("Columns", [count(len(of_version)) for of_version in names], comparison, change)
