"""Records of several parts of a table as one of all their rows. Driver; needs no Spark session."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mlspark.features.counts import NumberCounts
from mlspark.features.distribution import kind, values_up_to
from mlspark.features.profile import MAX_VALUES, number_record

Record = Mapping[str, Any]


def added(records: Sequence[Record]) -> dict[str, Any]:
    """Return the record of the rows of all records, without their splits; of one record itself.

    Counts, missing values, means, the event class and classes are exact. Of a number the rows up to a value are known as far
    as the records know them, to within 1 % of the rows of each, and so are quantiles. Values of a text that some record may
    have without naming them are left to the others.

    Args:
        records: of `profile`, of the same contract and task; at least one.
    """
    if len(records) == 1:
        return dict(records[0])
    target = dict(records[0]["target"])
    if "classes" in target:
        target["classes"] = {
            name: sum(each["target"]["classes"][name] for each in records) for name in target["classes"]
        }
    return {
        "rows": sum(each["rows"] for each in records),
        **({"events": sum(each["events"] for each in records)} if "events" in records[0] else {}),
        "target": target,
        "columns": {name: _column([each["columns"][name] for each in records]) for name in records[0]["columns"]},
    }


def _column(parts: Sequence[Record]) -> dict[str, Any]:
    of_kind = kind(parts[0]["type"])
    counts = {
        "type": parts[0]["type"],
        "count": sum(p["count"] for p in parts),
        "nulls": sum(p["nulls"] for p in parts),
    }
    if of_kind == "text":
        return counts | _text(parts)
    filled = [part for part in parts if part["count"]]
    if of_kind == "array" or not filled:
        return counts
    return counts | _number(filled, counts["nulls"])


def _text(parts: Sequence[Record]) -> dict[str, Any]:
    named = [{value: rows for value, rows, _ in part["values"]} for part in parts]
    is_whole = [part["distinct"] == len(part["values"]) for part in parts]
    known = [
        value
        for value in dict.fromkeys(value for values in named for value in values)
        if all(value in values or whole for values, whole in zip(named, is_whole, strict=True))
    ]
    rows = {value: sum(values.get(value, 0) for values in named) for value in known}
    kept = sorted(rows, key=lambda value: (-rows[value], value))[:MAX_VALUES]
    # More than are named, where some are not: how many more is not known, as parts may share them.
    distinct = len(rows) if all(is_whole) else max(len(kept) + 1, *(part["distinct"] for part in parts))
    return {"distinct": distinct, "values": [[value, rows[value], None] for value in kept]}


def _number(parts: Sequence[Record], nulls: int) -> dict[str, Any]:
    count = sum(part["count"] for part in parts)
    values = sorted({point[0] for part in parts for point in part["points"]})
    steps = [
        (
            value,
            round(sum(values_up_to(part, value, below=True) for part in parts)),
            round(sum(values_up_to(part, value) for part in parts)),
        )
        for value in values
    ]
    mean = math.fsum(part["mean"] * part["count"] for part in parts) / count
    spread = math.fsum(part["count"] * (part["std"] ** 2 + (part["mean"] - mean) ** 2) for part in parts) / count
    least, greatest = min(part["min"] for part in parts), max(part["max"] for part in parts)
    counts = NumberCounts(count, nulls, least, greatest, mean, math.sqrt(spread), steps=tuple(steps))
    return number_record(counts, counts)
