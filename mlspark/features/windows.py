"""Features as of a moment: aggregates over the events in windows of time before the label. Driver, lazy.

Labels and events are united, shuffled once by key and walked in the order of time. No row meets more than its own key's
rows, and no label row is multiplied or lost.

Cost: one shuffle of labels, events and a short row per label and distinct window; two sorts in place; all aggregates share
them. A key's rows are walked by one task, which spills them to disk but holds in memory the rows of one key in each distinct
window (Spark's sliding frame does not spill). Events that no window reaches are dropped. For each label time of a key, and
each span between window starts and label times that has events, the events of its windows are added up anew: one label over
200,000 events took 4 s, 200,000 labels and events of one key 7 s with 60 in the window; 10,000 of each, all in the window,
11 s (five aggregates, one core), and that grows with the square. For a key of millions of events in the window, take shorter
windows or fewer labels.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, get_args

from pyspark.sql import Column, DataFrame, Window, WindowSpec
from pyspark.sql import functions as F
from pyspark.sql.types import DataType, DecimalType, IntegralType, NumericType

from mlspark.errors import FeatureError
from mlspark.features.join_checks import frame_problems, has_order, name_problems, refuse, seconds_problems
from mlspark.features.timeline import (
    MICROS,
    UNITS,
    DatesKnown,
    all_present,
    event_rows,
    key_types_of,
    label_columns,
    label_rows,
    one_zero,
    partition_columns,
    quoted_column,
    types_of,
)

_LEAVES_BIGINT = "is beyond bigint"
_DIGITS, _PLACES = 18, 6
"""Most digits, and most after the point, of decimals that are added exactly: their sums fit the 38 digits of Spark."""

Function = Literal["count", "sum", "mean", "min", "max", "distinct", "last"]


@dataclass(frozen=True)
class Aggregate:
    """One number per label row, over the events of its key in the `window_seconds` before it.

    Args:
        output: name of the new column, see `aggregate_name`.
        function: what is computed; a null in `column` is no value for any of them.
        column: column of the events; None, for count only, counts the events themselves.
        window_seconds: events of label_time - window_seconds <= event_time < label_time are used.

    Raises:
        FeatureError: unknown function, a function other than count without column, a window that is no whole number
            of seconds from 1.
    """

    output: str
    function: Function
    column: str | None
    window_seconds: int

    def __post_init__(self) -> None:
        problems = _aggregate_problems(self.function, self.column, self.window_seconds)
        if problems:
            raise FeatureError(f"aggregate {self.output}: " + "; ".join(problems))


def aggregate_name(function: Function, column: str | None, window_seconds: int) -> str:
    """Return the usual name of an aggregate: count_clicks_7d, mean_amount_90m, count_1h; largest unit that divides.

    Raises:
        FeatureError: as `Aggregate`.
    """
    problems = _aggregate_problems(function, column, window_seconds)
    if problems:
        raise FeatureError(f"aggregate {function} of {column}: " + "; ".join(problems))
    unit, size = next((unit, size) for unit, size in UNITS.items() if window_seconds % size == 0)
    return "_".join([function, *([] if column is None else [column]), f"{window_seconds // size}{unit}"])


def aggregate_windows(
    labels: DataFrame,
    events: DataFrame,
    *,
    keys: Mapping[str, str],
    label_time: str,
    event_time: str,
    aggregates: Sequence[Aggregate],
    dates_known: DatesKnown = "end_of_day",
) -> DataFrame:
    """Return `labels` with one column per aggregate over the events of its key in the window before it.

    Runs on the driver, lazy. One output row per label row, in no particular order. Used are events of
    label_time - window_seconds <= event_time < label_time; an event at exactly label time never counts. Nulls are no
    values. Without any value, or for a null key or time, count and distinct are 0 and the others null.

    Types: count and distinct bigint; sum bigint of integers, else double; mean double; min, max and last those of the
    column. NaN is greatest and equal to itself, -0.0 is 0.0. Of several values at one time last is the greatest. Sums
    of floats are added in the order of time, then of the values of all columns to be summed, by column name. So their
    bits depend on the events in the window alone: not on partitions, row order or other labels. Integers are added
    exactly, for a mean too. A sum of them beyond bigint fails the job, see `leaves_bigint`.

    Args:
        labels: one row per example; all its columns are kept.
        events: rows with key, time and values; any number per key and time.
        keys: column of `labels` -> column of `events`, of one type (integers of any two widths).
        label_time: date or timestamp column of `labels`.
        event_time: date or timestamp column of `events`.
        aggregates: what to compute, in the order of the new columns.
        dates_known: when an event is known whose event_time is a date.

    Raises:
        FeatureError: unknown column, new column that `labels` already has, key or time of an unfit type, sum or mean
            of what is no number, a column without order (checked on the schemas, no action).
    """
    outputs = [aggregate.output for aggregate in aggregates]
    problems = frame_problems(labels, events, keys, label_time, event_time, outputs, "aggregates")
    problems += [problem for aggregate in aggregates for problem in _column_problems(aggregate, events)]
    refuse("aggregate_windows", problems)

    columns = list(dict.fromkeys(aggregate.column for aggregate in aggregates if aggregate.column is not None))
    values = {name: f"value_{index}" for index, name in enumerate(columns)}
    key_types = key_types_of(labels, events, keys)
    moments = _moments(label_rows(labels, list(keys), key_types, label_time), keys, aggregates)
    taken = [one_zero(quoted_column(name), types_of(events)[name]).alias(value) for name, value in values.items()]
    timeline = moments.unionByName(
        event_rows(events, list(keys.values()), key_types, event_time, taken, dates_known=dates_known),
        allowMissingColumns=True,
    )
    aggregated = _aggregated(
        _in_intervals(timeline, keys, values, aggregates), keys, values, aggregates, types_of(events)
    )
    return aggregated.select(
        *label_columns(labels),
        # Again: infinity - infinity is a NaN whose sign bit the processor chooses.
        *(
            one_zero(F.col(name), aggregated.schema[name].dataType).alias(output)
            for name, output in zip(aggregated.schema.names[1:], outputs, strict=True)
        ),
    )


def _frames(aggregates: Sequence[Aggregate]) -> list[int]:
    """Return the lengths of the windows in microseconds, ascending."""
    return sorted({aggregate.window_seconds * MICROS for aggregate in aggregates})


def _moments(rows: DataFrame, keys: Mapping[str, str], aggregates: Sequence[Aggregate]) -> DataFrame:
    """Return each label row at its time, and without label at the start of each of its windows.

    The starts of all windows cut time into intervals, as do the labels. An event is in a window if and only if the end of
    its interval is after the window's start and not after the label.
    """
    partition = partition_columns(keys)
    every_offset = F.array(*(F.lit(offset).cast("bigint") for offset in (0, *_frames(aggregates))))
    offsets = F.when(all_present(partition[:-1]), every_offset).otherwise(F.array(F.lit(0).cast("bigint")))
    return rows.select("*", F.explode(offsets).alias("offset")).select(
        *partition,
        (F.col("micros") - F.col("offset")).alias("micros"),
        "is_event",
        F.when(F.col("offset") == 0, F.col("label")).alias("label"),
    )


def _in_intervals(
    timeline: DataFrame, keys: Mapping[str, str], values: Mapping[str, str], aggregates: Sequence[Aggregate]
) -> DataFrame:
    """Return labels and the events that a window reaches, sorted by the end of the interval that each is in.

    Spark evaluates a sliding frame anew wherever it changes, at events as at labels. Ordered by the end of the interval,
    which its events share, the frame changes once per interval and not at each event: 500 keys of 1,000 events and one
    label took 3.2 s, and 16.5 s when ordered by time.
    """
    partition, is_label = partition_columns(keys), F.col("label").isNotNull()
    # By name, so that the order of aggregates leaves the bits of their sums alone.
    added = sorted({item.column for item in aggregates if item.column and item.function in ("sum", "mean")})
    backwards = (
        Window.partitionBy(*partition)
        .orderBy(F.col("micros").desc(), F.col("is_event").desc())
        .rowsBetween(Window.unboundedPreceding, Window.currentRow)
    )
    next_cut = F.last(F.when(~F.col("is_event"), F.col("micros")), ignorenulls=True).over(backwards)
    next_label = F.last(F.when(is_label, F.col("micros")), ignorenulls=True).over(backwards)
    is_reached = F.col("next_label") - F.col("micros") <= _frames(aggregates)[-1]
    return (
        timeline.select(
            *partition,
            *("micros", "is_event", "label", *values.values()),
            F.when(F.col("is_event"), next_cut).otherwise(F.col("micros")).alias("interval_end"),
            next_label.alias("next_label"),
        )
        .filter(is_label | (F.col("is_event") & is_reached))
        # The window of `_aggregated` needs a prefix of this order and keeps the rest: the order in which floats are added.
        .sortWithinPartitions(*partition, "interval_end", "micros", *(values[name] for name in added))
    )


def _aggregated(
    ordered: DataFrame,
    keys: Mapping[str, str],
    values: Mapping[str, str],
    aggregates: Sequence[Aggregate],
    types: Mapping[str, DataType],
) -> DataFrame:
    """Return label and aggregate_0, aggregate_1, ... of each label row."""
    by_end = Window.partitionBy(*partition_columns(keys)).orderBy("interval_end")
    return ordered.select(
        "label",
        *(
            _over(
                aggregate,
                by_end.rangeBetween(1 - aggregate.window_seconds * MICROS, Window.currentRow),
                None if aggregate.column is None else F.col(values[aggregate.column]),
                None if aggregate.column is None else types[aggregate.column],
            ).alias(f"aggregate_{index}")
            for index, aggregate in enumerate(aggregates)
        ),
    ).filter(F.col("label").isNotNull())


def _over(aggregate: Aggregate, frame: WindowSpec, value: Column | None, kind: DataType | None) -> Column:
    if value is None:
        return F.count(F.when(F.col("is_event"), F.lit(1))).over(frame)
    match aggregate.function:
        case "count":
            return F.count(value).over(frame)
        case "sum":
            if isinstance(kind, IntegralType):
                return _as_bigint(_exact_sum(value, frame), aggregate)
            return _sum(value, frame, kind)
        case "mean":
            # Not 0 / 0: without a value the sum is null.
            return _sum(value, frame, kind) / F.greatest(F.count(value).over(frame), F.lit(1))
        case "min":
            return F.min(value).over(frame)
        case "max":
            return F.max(value).over(frame)
        case "distinct":
            # Spark has no count(distinct) over a window.
            return F.size(F.collect_set(value).over(frame)).cast("bigint")
        case "last":
            latest = F.max(F.when(value.isNotNull(), F.struct("micros", value.alias("value"))))
            return latest.over(frame).getField("value")


def _sum(value: Column, frame: WindowSpec, kind: DataType | None) -> Column:
    """Return the sum as a double: of integers, and decimals of up to 18 digits, 6 after the point, the nearest to it."""
    if isinstance(kind, IntegralType):
        return _exact_sum(value, frame).cast("double")
    if isinstance(kind, DecimalType) and kind.precision <= _DIGITS and kind.scale <= _PLACES:
        units = _exact_sum(value * F.lit(Decimal(10**kind.scale)), frame)
        return (units * F.lit(Decimal(1).scaleb(-kind.scale))).cast("double")
    return F.sum(value.cast("double")).over(frame)


def _exact_sum(value: Column, frame: WindowSpec) -> Column:
    """Return the sum of integers, a decimal: its halves of 32 bits are added apart, so that no sum of them overflows."""
    whole = value.cast("bigint")
    high = F.sum(F.shiftright(whole, 32)).over(frame).cast("decimal(19,0)")
    low = F.sum(whole.bitwiseAND(F.lit(2**32 - 1))).over(frame).cast("decimal(19,0)")
    return high * F.lit(2**32).cast("decimal(10,0)") + low


def _as_bigint(total: Column, aggregate: Aggregate) -> Column:
    limits = (F.lit(str(limit)).cast("decimal(19,0)") for limit in (-(2**63), 2**63 - 1))
    message = F.lit(f"{aggregate.output}: the sum of {aggregate.column} {_LEAVES_BIGINT}")
    refused = F.raise_error(message).cast("bigint")
    return F.when(total.isNull() | total.between(*limits), total.cast("bigint")).otherwise(refused)


def leaves_bigint(error: Exception) -> str:
    """Return which sum of integers left bigint where that is why Spark failed, with the remedy; else ""."""
    found = re.search(rf"\w+: the sum of \w+ {_LEAVES_BIGINT}", str(error))
    return f"{found.group()}; take its mean, a shorter window, or a column of type double" if found else ""


def _aggregate_problems(function: str, column: str | None, window_seconds: object) -> list[str]:
    problems = seconds_problems("window_seconds", window_seconds)
    if function not in get_args(Function):
        problems.append(f"function: got {function}, expected one of {', '.join(get_args(Function))}")
    elif column is None and function != "count":
        problems.append(f"column: none given, {function} needs one; only count goes without")
    return problems


def _column_problems(aggregate: Aggregate, events: DataFrame) -> list[str]:
    if aggregate.column is None:
        return []
    where = f"aggregates: {aggregate.output}"
    unknown = name_problems(where, events, "events", aggregate.column)
    if unknown:
        return unknown
    kind = types_of(events)[aggregate.column]
    if aggregate.function in ("sum", "mean") and not isinstance(kind, NumericType):
        return [f"{where}: {aggregate.function} of {aggregate.column}: type {kind.simpleString()}, expected a number"]
    if not has_order(kind) and aggregate.function != "count":
        return [f"{where}: {aggregate.function} of {aggregate.column}: type {kind.simpleString()} has no order"]
    return []
