"""What the rows of a version hold, counted once and kept as a small JSON record. Driver."""

import bisect
import itertools
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyspark.sql import DataFrame

from mlspark.contracts.contract import Contract
from mlspark.features import counting
from mlspark.features.counts import Counts, Number, NumberCounts, Text, TextCounts
from mlspark.features.distribution import kind
from mlspark.features.kinds.categories import text_sql
from mlspark.tasks.binary import BinaryTask
from mlspark.tasks.classes import ClassTask
from mlspark.tasks.losses import key_text
from mlspark.tasks.task import Task

FORMAT = 2
"""Version of the record's format; raised when an older reader would misread it."""

MAX_VALUES = 50
"""Most values of a text column that are named, the commonest."""

PERCENTS = (0, 1, 5, 10, 20, 25, 30, 40, 50, 60, 70, 75, 80, 90, 95, 99, 100)
"""Quantiles of a number; the deciles among them are what `drift.compare` bins by."""

_PARTS = 100


def profile(
    rows: DataFrame, contract: Contract, task: Task, *, by: str = "split", most_rows: int | None = None
) -> dict[str, Any]:
    """Return the record of `rows`, JSON-able. At most two Spark jobs, each one pass over them, whatever the columns.

    The same rows yield the same record, in whatever order and partitions they are. It names values of the data: keep it
    where the data may be kept. What is not finite has no value, as for the encoder. Days are since 1970-01-01 UTC.

    Args:
        rows: conformed good rows with the contract's columns.
        contract: says which columns there are, and their types.
        task: says which rows are those of the event, or which class each row has; resolved.
        by: column of `rows` by which rows are counted, too; without effect where they have none of that name.
        most_rows: there are no more rows than that, which are counted faster where they are few; None: not known.

    Returns:
        "format", "rows", "target" {"column", "kind", and "event" (a class) or "classes" {class: rows} where the task has
        them}, "splits" {value of `by`: {"rows"}} and "columns" {name: record}, in the contract's order. With an event class,
        beside each "rows", "events": those of the event class. A column's record has "type", "count" (of values), "nulls",
        and
        number, date, timestamp (in days), if there are values: "min", "max", "mean", "std" (population), "quantiles"
        {percent: value} (Hyndman and Fan 1996, definition 7), "points" [[value, values below, values up to], ...],
        ascending: those between which each percentile is, at most 200. Quantiles and points but for the least and the
        greatest are rounded to 11 significant bits (0.05 %), of a timestamp down to the hour, of a date not at all.
        text, boolean: "distinct" (number of different values), "nulls_events" where the task has an event class, "values"
        [[value, rows, events or null], ...]: the 50 commonest, by code point among equally common ones.
        array: nothing else.
    """
    types = {column.name: column.type for column in contract.columns}
    numbers, texts = _questions(types)
    has_splits = by in rows.columns
    if has_splits:
        texts[_SPLITS] = Text(text_sql([by]))
    type_ = contract.column(task.target).type
    event = task.event_sql(type_)
    if event is None and isinstance(task, ClassTask):
        texts[_CLASSES] = Text(f"CAST(({task.label_sql(type_)}) AS STRING)")
    events = () if event is None else (event,)
    counts = counting.count(rows, numbers=numbers, texts=texts, events=events, most_rows=most_rows)
    splits = counts.texts[_SPLITS] if has_splits else None
    return {
        "format": FORMAT,
        "rows": counts.rows,
        **_events(counts.events),
        "target": {"column": task.target, "kind": task.kind, **_classes(task, counts)},
        "splits": {
            value: {"rows": num_rows, **_events(splits.events[value])} for value, num_rows in splits.values.items()
        }
        if splits
        else {},
        "columns": {name: _column(name, type_, counts) for name, type_ in types.items()},
    }


def columns(rows: DataFrame, types: Mapping[str, str], *, event: str | None = None) -> dict[str, dict[str, Any]]:
    """Return the record of each of some columns, as `profile` has them. At most two Spark jobs.

    Args:
        rows: any rows.
        types: column of `rows` -> its type, of those that a contract may have.
        event: SQL condition of the rows of the event class; None: there is none.
    """
    numbers, texts = _questions(types)
    counts = counting.count(rows, numbers=numbers, texts=texts, events=() if event is None else (event,))
    return {name: _column(name, type_, counts) for name, type_ in types.items()}


def of_numbers(values: NDArray[np.float64]) -> dict[str, Any]:
    """Return the record of finite numbers (n,) that are at hand, as of a column of type double. No Spark; exact."""
    if not len(values):
        return {"type": "double", **number_record(NumberCounts(0, 0), NumberCounts(0, 0))}
    different, rows = np.unique(np.asarray(values, np.float64) + 0.0, return_counts=True)
    upto = np.cumsum(rows)
    steps = zip(different.tolist(), (upto - rows).tolist(), upto.tolist(), strict=True)
    # By fsum: the order of the values changes no bit.
    mean = math.fsum(values) / len(values)
    std = math.sqrt(math.fsum((values - mean) ** 2) / len(values))
    counts = NumberCounts(len(values), 0, float(different[0]), float(different[-1]), mean, std, steps=tuple(steps))
    return {"type": "double", **number_record(counts, counts)}


def of_values(rows_by_value: Mapping[str, int]) -> dict[str, Any]:
    """Return the record of texts that are at hand, value -> rows, as of a column of type string. No Spark."""
    known = {value: rows for value, rows in sorted(rows_by_value.items()) if rows}
    named = sorted(known, key=lambda value: (-known[value], value))[:MAX_VALUES]
    return {
        "type": "string",
        "count": sum(known.values()),
        "nulls": 0,
        "distinct": len(known),
        "values": [[value, known[value], None] for value in named],
    }


def _questions(types: Mapping[str, str]) -> tuple[dict[str, Number], dict[str, Text]]:
    """Return what is asked of columns of these types, by their names; of timestamps under a second name, too."""
    numbers: dict[str, Number] = {}
    texts: dict[str, Text] = {}
    for name, type_ in types.items():
        quoted = f"`{name}`"
        match kind(type_):
            case "text":
                texts[name] = Text(text_sql([name]), max_values=MAX_VALUES)
            case "array":
                numbers[name] = Number(f"CASE WHEN {quoted} IS NOT NULL THEN 0.0D END", step=1.0)
            case "number":
                fits = type_ in ("tinyint", "smallint", "int")
                numbers[name] = Number(f"CAST({quoted} AS DOUBLE)", step=1.0 if fits else None, parts=(_PARTS,))
            case "time":
                days = f"(unix_micros(CAST({quoted} AS TIMESTAMP)) / 8.64E10D)"
                is_date = type_ == "date"
                numbers[name] = Number(
                    days, step=1.0 if is_date else None, parts=(_PARTS,) if is_date else (), exact=True
                )
                if not is_date:
                    # 11 bits of a number of days are two weeks; all different times would be too many.
                    numbers[_hours(name)] = Number(f"floor({days} * 24.0D) / 24.0D", parts=(_PARTS,), exact=True)
    return numbers, texts


def _column(name: str, type_: str, counts: Counts) -> dict[str, Any]:
    """Return the record of one column."""
    match kind(type_):
        case "text":
            record = _text(counts.texts[name])
        case "array":
            record = {"count": counts.numbers[name].count, "nulls": counts.numbers[name].nulls}
        case _:
            record = number_record(counts.numbers[name], counts.numbers.get(_hours(name), counts.numbers[name]))
    return {"type": type_, **record}


def _classes(task: Task, counts: Counts) -> dict[str, Any]:
    """Return the event of a task that has one, or else the rows of each class, by its text; nothing without classes."""
    if isinstance(task, BinaryTask):
        return {"event": key_text(task.event_class)}
    if not isinstance(task, ClassTask):
        return {}
    rows = counts.texts[_CLASSES].values
    return {"classes": {key_text(value): rows.get(str(place), 0) for place, value in enumerate(task.known_classes)}}


def _events(events: tuple[int, ...]) -> dict[str, int]:
    """Return {"events": rows} of the event class, nothing for a task without one."""
    return {"events": events[0]} if events else {}


# Not names that a column can have.
_SPLITS = "by split"
_CLASSES = "by class"


def _hours(name: str) -> str:
    return f"{name} in hours"


def number_record(number: NumberCounts, cut: NumberCounts) -> dict[str, Any]:
    """Return the record of a number whose cuts are those of `cut`, which is rounded: its ends are put right."""
    if not number.count:
        return {"count": 0, "nulls": number.nulls}
    steps = [(min(max(value, number.min), number.max), below, upto) for value, below, upto in cut.steps]
    if len(steps) > 1:
        steps[0], steps[-1] = (number.min, *steps[0][1:]), (number.max, *steps[-1][1:])
    steps = _needed(steps, number.count)
    cuts = replace(cut, steps=tuple(steps)).cuts(_PARTS)
    cuts[0], cuts[-1] = number.min, number.max
    return {
        "count": number.count,
        "nulls": number.nulls,
        "min": number.min,
        "max": number.max,
        "mean": number.mean,
        "std": number.std,
        "quantiles": {str(percent): cuts[percent] for percent in PERCENTS},
        "points": [list(step) for step in steps],
    }


def _needed(steps: list[tuple[float, int, int]], count: int) -> list[tuple[float, int, int]]:
    """Return the steps that the percentiles are, or are between: at most 200."""
    places = [(count - 1) * percent for percent in range(_PARTS + 1)]
    ranks = sorted({place // _PARTS for place in places} | {-(-place // _PARTS) for place in places})
    is_needed = (bisect.bisect_left(ranks, below) < bisect.bisect_left(ranks, upto) for _, below, upto in steps)
    return list(itertools.compress(steps, is_needed))


def _text(text: TextCounts) -> dict[str, Any]:
    named = sorted(text.values, key=lambda value: (-text.values[value], value))
    return {
        "count": sum(text.values.values()) + text.rare,
        "nulls": text.nulls,
        **{f"nulls_{name}": rows for name, rows in _events(text.nulls_events).items()},
        "distinct": len(named) + text.rare_values,
        "values": [[value, text.values[value], *(text.events[value] or (None,))] for value in named],
    }
