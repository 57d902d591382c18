"""What the rows of a version hold, counted once and kept as a small JSON record. Driver."""

import bisect
import itertools
from dataclasses import replace
from typing import Any

from pyspark.sql import DataFrame

from mlspark.contracts.contract import Contract
from mlspark.feature_settings import LabelSettings
from mlspark.features import counting, spark
from mlspark.features.counting import Number, NumberCounts, Text, TextCounts
from mlspark.features.distribution import kind

FORMAT = 1
"""Of the record; raised when an older reader would misread it."""

MAX_VALUES = 50
"""Most values of a text to name, the commonest."""

PERCENTS = (0, 1, 5, 10, 20, 25, 30, 40, 50, 60, 70, 75, 80, 90, 95, 99, 100)
"""Quantiles of a number; the deciles among them are what `drift.compare` bins by."""

_PARTS = 100


def profile(rows: DataFrame, contract: Contract, label: LabelSettings, *, by: str = "split") -> dict[str, Any]:
    """Return the record of `rows`, JSON-able. At most two Spark jobs, each one pass over them, whatever the columns.

    The same rows give the same record, in whatever order and partitions they are. It names values of the data: keep it
    where the data may be kept. What is not finite has no value, as for the encoder. Days are since 1970-01-01 UTC.

    Args:
        rows: conformed good rows with the contract's columns.
        contract: says which columns there are, and their types.
        label: which values of the label are positive.
        by: column of `rows` by which rows are counted, too; without effect where they have none of that name.

    Returns:
        "format", "rows", "positive" (rows with a positive label), "label" (its column), "splits" {value of `by`: {"rows",
        "positive"}} and "columns" {name: record}, in the contract's order. A column's record has "type", "count" (of
        values), "nulls", and
        number, date, timestamp (in days), if there are values: "min", "max", "mean", "std" (population), "quantiles"
        {percent: value} (Hyndman and Fan 1996, definition 7), "points" [[value, values below, values up to], ...],
        ascending: those between which each percentile is, at most 200. Quantiles and points but for the least and the
        greatest are rounded to 11 significant bits (0.05 %), of a timestamp down to the hour, of a date not at all.
        text, boolean: "distinct" (number of different values), "nulls_positive", "values" [[value, rows, positive], ...]:
        the 50 commonest, by code point among equally common ones.
        array: nothing else.
    """
    numbers: dict[str, Number] = {}
    texts: dict[str, Text] = {}
    for column in contract.columns:
        name, quoted = column.name, f"`{column.name}`"
        match kind(column.type):
            case "text":
                texts[name] = Text(spark.text([name]), max_values=MAX_VALUES)
            case "array":
                numbers[name] = Number(f"CASE WHEN {quoted} IS NOT NULL THEN 0.0D END", step=1.0)
            case "number":
                fits = column.type in ("tinyint", "smallint", "int")
                numbers[name] = Number(f"CAST({quoted} AS DOUBLE)", step=1.0 if fits else None, parts=(_PARTS,))
            case "time":
                days = f"(unix_micros(CAST({quoted} AS TIMESTAMP)) / 8.64E10D)"
                is_date = column.type == "date"
                numbers[name] = Number(
                    days, step=1.0 if is_date else None, parts=(_PARTS,) if is_date else (), exact=True
                )
                if not is_date:
                    # 11 bits of a number of days are two weeks; all different times would be too many.
                    numbers[_hours(name)] = Number(f"floor({days} * 24.0D) / 24.0D", parts=(_PARTS,), exact=True)
    has_splits = by in rows.columns
    if has_splits:
        texts[_SPLITS] = Text(spark.text([by]))
    counts = counting.count(rows, numbers=numbers, texts=texts, positive=spark.positive(label))
    columns: dict[str, dict[str, Any]] = {}
    for column in contract.columns:
        name = column.name
        match kind(column.type):
            case "text":
                found = _text(counts.texts[name])
            case "array":
                found = {"count": counts.numbers[name].count, "nulls": counts.numbers[name].nulls}
            case _:
                found = _number(counts.numbers[name], counts.numbers.get(_hours(name), counts.numbers[name]))
        columns[name] = {"type": column.type, **found}
    splits = counts.texts[_SPLITS] if has_splits else None
    return {
        "format": FORMAT,
        "rows": counts.rows,
        "positive": counts.positive,
        "label": label.column,
        "splits": {
            value: {"rows": num_rows, "positive": splits.positive[value]} for value, num_rows in splits.values.items()
        }
        if splits
        else {},
        "columns": columns,
    }


# Not names that a column can have.
_SPLITS = "by split"


def _hours(name: str) -> str:
    return f"{name} in hours"


def _number(found: NumberCounts, cut: NumberCounts) -> dict[str, Any]:
    """Return the record of a number whose cuts are those of `cut`, which is rounded: its ends are put right."""
    if not found.count:
        return {"count": 0, "nulls": found.nulls}
    steps = [(min(max(value, found.min), found.max), below, upto) for value, below, upto in cut.steps]
    if len(steps) > 1:
        steps[0], steps[-1] = (found.min, *steps[0][1:]), (found.max, *steps[-1][1:])
    steps = _needed(steps, found.count)
    cuts = replace(cut, steps=tuple(steps)).cuts(_PARTS)
    cuts[0], cuts[-1] = found.min, found.max
    return {
        "count": found.count,
        "nulls": found.nulls,
        "min": found.min,
        "max": found.max,
        "mean": found.mean,
        "std": found.std,
        "quantiles": {str(percent): cuts[percent] for percent in PERCENTS},
        "points": [list(step) for step in steps],
    }


def _needed(steps: list[tuple[float, int, int]], count: int) -> list[tuple[float, int, int]]:
    """Return the steps that the percentiles are, or are between: at most 200."""
    places = [(count - 1) * percent for percent in range(_PARTS + 1)]
    ranks = sorted({place // _PARTS for place in places} | {-(-place // _PARTS) for place in places})
    is_needed = (bisect.bisect_left(ranks, below) < bisect.bisect_left(ranks, upto) for _, below, upto in steps)
    return list(itertools.compress(steps, is_needed))


def _text(found: TextCounts) -> dict[str, Any]:
    named = sorted(found.values, key=lambda value: (-found.values[value], value))
    return {
        "count": sum(found.values.values()) + found.rare,
        "nulls": found.nulls,
        "nulls_positive": found.nulls_positive,
        "distinct": len(named) + found.rare_values,
        "values": [[value, found.values[value], found.positive[value]] for value in named],
    }
