"""Features as of a moment: joined and aggregated from rows strictly older than the label. Driver, lazy.

Both functions union labels and events, shuffle them once by key and walk each key in the order of time. No row meets
more than its own key's rows, and no label row is multiplied or lost. Times are compared as UTC microseconds: a date is
its midnight, a timestamp without time zone is taken as UTC.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import and_
from typing import Literal, get_args

from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame, Window, WindowSpec
from pyspark.sql import functions as F
from pyspark.sql.types import (
    ArrayType,
    BinaryType,
    BooleanType,
    DataType,
    DateType,
    DayTimeIntervalType,
    DecimalType,
    DoubleType,
    FloatType,
    IntegralType,
    LongType,
    NumericType,
    StringType,
    StructType,
    TimestampNTZType,
    TimestampType,
    UserDefinedType,
    YearMonthIntervalType,
)

from mlspark.errors import FeatureError

Function = Literal["count", "sum", "mean", "min", "max", "distinct", "last"]

_UNITS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
_MICROS = 1_000_000
_MAX_SECONDS = 10_000 * 366 * 86_400  # all of years 1 to 9999; differences of times then fit a bigint
_TIMES = (DateType, TimestampType, TimestampNTZType)
# No floats: Spark rewrites a float key of a window (-0.0, NaN), and the order of rows below would be lost with it.
_KEYS = (BinaryType, BooleanType, DecimalType, IntegralType, StringType, *_TIMES)
_ORDERED = (NumericType, DayTimeIntervalType, YearMonthIntervalType, *_KEYS)


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
    unit, size = next((unit, size) for unit, size in _UNITS.items() if window_seconds % size == 0)
    return "_".join([function, *([] if column is None else [column]), f"{window_seconds // size}{unit}"])


def point_in_time_join(
    labels: DataFrame,
    features: DataFrame,
    *,
    keys: Mapping[str, str],
    label_time: str,
    event_time: str,
    columns: Mapping[str, Column | str],
    max_age_seconds: int | None = None,
) -> DataFrame:
    """Return `labels` with `columns` of the newest strictly older feature row of the same key.

    Runs on the driver, lazy. One output row per label row, in no particular order; the new columns are null where no
    feature row is older than the label and at most `max_age_seconds` old, where a key is null, where the time is null.
    The newest row is taken as it is: its nulls are not filled from older rows. Of several feature rows of one key and
    time the greatest is taken, by `columns` in their order (null is least, NaN greatest), so the result never depends
    on partitions or row order. Floats come back with one zero and one NaN: -0.0 as 0.0.

    Cost: one shuffle and one sort of labels plus features, then a single walk. A key's rows are walked by one task,
    which spills to disk what it cannot hold. Labels with a null key are spread by their time.

    Args:
        labels: one row per example; all its columns are kept.
        features: rows with key, time and values; any number per key and time.
        keys: column of `labels` -> column of `features`, of one type (integers of any two widths).
        label_time: date or timestamp column of `labels`.
        event_time: date or timestamp column of `features`.
        columns: new column -> column of `features`, by name or as an expression.
        max_age_seconds: oldest feature row accepted, seconds before label_time, inclusive; None accepts any.

    Raises:
        FeatureError: unknown column, new column that `labels` already has, key or time of an unfit type, value of a
            type without order (checked on the schemas, no action).
    """
    problems = _frame_problems(labels, features, keys, label_time, event_time, list(columns), "columns")
    if max_age_seconds is not None:
        problems += _seconds_problems("max_age_seconds", max_age_seconds)
    problems += [
        problem
        for output, value in columns.items()
        if isinstance(value, str)
        for problem in _name_problems(f"columns: {output}", features, "features", value)
    ]
    _refuse("point_in_time_join", problems)
    values = [_column(value) if isinstance(value, str) else value for value in columns.values()]
    types = [_type_of(features, output, value) for output, value in zip(columns, values, strict=True)]
    _refuse(
        "point_in_time_join",
        [
            f"columns: {output}: type {kind.simpleString()} has no order to decide between rows of one time; "
            f"take a part of it, or its to_json"
            for output, kind in zip(columns, types, strict=True)
            if not _has_order(kind)
        ],
    )

    names = [f"value_{index}" for index in range(len(values))]
    taken = [_one_zero(value, kind).alias(name) for name, value, kind in zip(names, values, types, strict=True)]
    key_types = _key_types(labels, features, keys)
    moments = _label_rows(labels, list(keys), key_types, label_time)
    # The time goes last in the struct: rows of one time are ordered by their values.
    event_micros = _micros(features, event_time).alias("micros")
    events = _event_rows(
        features, list(keys.values()), key_types, event_time, [F.struct(*taken, event_micros).alias("taken")]
    )
    # Strict: at equal times a label (is_event false) sorts before the events, which it therefore never sees.
    # A source stamps a click and its feature update in the same second, and "<=" would leak the label.
    until_label = (
        Window.partitionBy(*_partition(keys))
        .orderBy("micros", "is_event", "taken")
        .rowsBetween(Window.unboundedPreceding, Window.currentRow)
    )
    newest = F.last("taken", ignorenulls=True).over(until_label)
    joined = (
        moments.unionByName(events, allowMissingColumns=True)
        .select("micros", "label", newest.alias("newest"))
        .filter(F.col("label").isNotNull())
    )
    found = F.col("newest")
    if max_age_seconds is not None:
        age = F.col("micros") - F.col("newest.micros")
        found = F.when(age <= max_age_seconds * _MICROS, found)
    return joined.select(
        *_label_columns(labels),
        *(found.getField(name).alias(output) for name, output in zip(names, columns, strict=True)),
    )


def aggregate_windows(
    labels: DataFrame,
    events: DataFrame,
    *,
    keys: Mapping[str, str],
    label_time: str,
    event_time: str,
    aggregates: Sequence[Aggregate],
) -> DataFrame:
    """Return `labels` with one column per aggregate over the events of its key in the window before it.

    Runs on the driver, lazy. One output row per label row, in no particular order. Used are events of
    label_time - window_seconds <= event_time < label_time; an event at exactly label time never counts. Nulls are no
    values. Without any value count and distinct give 0, the others null; so it is for a null key or time.

    Types: count and distinct bigint; sum bigint of integers, else double; mean double; min, max and last those of the
    column. NaN is greatest and equal to itself, -0.0 is 0.0. Of several values at one time last is the greatest. Sums
    of floats are added in the order of time, then of the values of all columns to be summed, by column name. So their
    bits depend on the events in the window alone: not on partitions, row order or other labels. A sum of integers
    beyond bigint fails the job, as Spark's own sum does.

    Cost: one shuffle of labels, events and a short row per label and distinct window; two sorts in place; all
    aggregates share them. A key's rows are walked by one task, which spills them to disk but holds in memory the rows
    of one key in each distinct window (Spark's sliding frame does not spill). Events that no window reaches are
    dropped. For each label time of a key, and each span between window starts and label times that has events, the
    events of its windows are added up anew: one label over 200,000 events took 4 s, 200,000 labels and events of one
    key 7 s with 60 in the window; 10,000 of each, all in the window, 11 s (five aggregates, one core), and that grows
    with the square. For a key of millions of events in the window, take shorter windows or fewer labels.

    Args:
        labels: one row per example; all its columns are kept.
        events: rows with key, time and values; any number per key and time.
        keys: column of `labels` -> column of `events`, of one type (integers of any two widths).
        label_time: date or timestamp column of `labels`.
        event_time: date or timestamp column of `events`.
        aggregates: what to compute, in the order of the new columns.

    Raises:
        FeatureError: unknown column, new column that `labels` already has, key or time of an unfit type, sum or mean
            of what is no number, a column without order (checked on the schemas, no action).
    """
    outputs = [aggregate.output for aggregate in aggregates]
    problems = _frame_problems(labels, events, keys, label_time, event_time, outputs, "aggregates")
    problems += [problem for aggregate in aggregates for problem in _column_problems(aggregate, events)]
    _refuse("aggregate_windows", problems)

    columns = list(dict.fromkeys(aggregate.column for aggregate in aggregates if aggregate.column is not None))
    values = {column: f"value_{index}" for index, column in enumerate(columns)}
    types = _types(events)
    # By name, so that the order of aggregates leaves the bits of their sums alone.
    added = sorted({item.column for item in aggregates if item.column and item.function in ("sum", "mean")})
    frames = sorted({aggregate.window_seconds * _MICROS for aggregate in aggregates})
    key_types = _key_types(labels, events, keys)
    partition = _partition(keys)
    is_label = F.col("label").isNotNull()

    # The starts of all windows cut time into intervals, as do the labels. An event is in a window if and only if the
    # end of its interval is after the window's start and not after the label.
    every_offset = F.array(*(F.lit(offset).cast("bigint") for offset in (0, *frames)))
    offsets = F.when(_all_present(partition[:-1]), every_offset).otherwise(F.array(F.lit(0).cast("bigint")))
    moments = (
        _label_rows(labels, list(keys), key_types, label_time)
        .select("*", F.explode(offsets).alias("offset"))
        .select(
            *partition,
            (F.col("micros") - F.col("offset")).alias("micros"),
            "is_event",
            F.when(F.col("offset") == 0, F.col("label")).alias("label"),
        )
    )
    event_rows = _event_rows(
        events,
        list(keys.values()),
        key_types,
        event_time,
        [_one_zero(_column(column), types[column]).alias(name) for column, name in values.items()],
    )
    backwards = (
        Window.partitionBy(*partition)
        .orderBy(F.col("micros").desc(), F.col("is_event").desc())
        .rowsBetween(Window.unboundedPreceding, Window.currentRow)
    )
    next_cut = F.last(F.when(~F.col("is_event"), F.col("micros")), ignorenulls=True).over(backwards)
    next_label = F.last(F.when(is_label, F.col("micros")), ignorenulls=True).over(backwards)
    # Spark evaluates a sliding frame anew wherever it changes, at events as at labels. Ordered by the end of the
    # interval, which its events share, the frame changes once per interval and not at each event: 500 keys of 1,000
    # events and one label took 3.2 s, and 16.5 s when ordered by time.
    ordered = (
        moments.unionByName(event_rows, allowMissingColumns=True)
        .select(
            *partition,
            *("micros", "is_event", "label", *values.values()),
            F.when(F.col("is_event"), next_cut).otherwise(F.col("micros")).alias("interval_end"),
            next_label.alias("next_label"),
        )
        .filter(is_label | (F.col("is_event") & (F.col("next_label") - F.col("micros") <= frames[-1])))
        # The window below needs a prefix of this order and keeps the rest: the order in which floats are added.
        .sortWithinPartitions(*partition, "interval_end", "micros", *(values[column] for column in added))
    )
    by_end = Window.partitionBy(*partition).orderBy("interval_end")
    aggregated = ordered.select(
        "label",
        *(
            _over(
                aggregate,
                by_end.rangeBetween(1 - aggregate.window_seconds * _MICROS, Window.currentRow),
                None if aggregate.column is None else F.col(values[aggregate.column]),
                None if aggregate.column is None else types[aggregate.column],
            ).alias(f"aggregate_{index}")
            for index, aggregate in enumerate(aggregates)
        ),
    ).filter(is_label)
    return aggregated.select(
        *_label_columns(labels),
        # Again: infinity - infinity is a NaN whose sign bit the processor chooses.
        *(
            _one_zero(F.col(name), aggregated.schema[name].dataType).alias(output)
            for name, output in zip(aggregated.schema.names[1:], outputs, strict=True)
        ),
    )


def _over(aggregate: Aggregate, frame: WindowSpec, value: Column | None, kind: DataType | None) -> Column:
    if value is None:
        return F.count(F.when(F.col("is_event"), F.lit(1))).over(frame)
    match aggregate.function:
        case "count":
            return F.count(value).over(frame)
        case "sum":
            return F.sum(value if isinstance(kind, IntegralType) else value.cast("double")).over(frame)
        case "mean":
            return F.avg(value.cast("double")).over(frame)
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


def _label_rows(labels: DataFrame, keys: Sequence[str], key_types: Sequence[DataType], time: str) -> DataFrame:
    """Return the partition columns, micros, is_event (false) and label, a struct of all columns by position."""
    whole = [_column(field.name).alias(f"column_{index}") for index, field in enumerate(labels.schema.fields)]
    return labels.select(
        *_keys(keys, key_types),
        # Rows that cannot match would all be one key: one task would walk them.
        F.when(~_all_present(keys), _micros(labels, time)).alias("spread"),
        _micros(labels, time).alias("micros"),
        F.lit(False).alias("is_event"),
        F.struct(*whole).alias("label"),
    )


def _event_rows(
    events: DataFrame, keys: Sequence[str], key_types: Sequence[DataType], time: str, values: Sequence[Column]
) -> DataFrame:
    """Return the rows that can match: partition columns, micros, is_event (true) and `values`."""
    return events.select(
        *_keys(keys, key_types),
        F.lit(None).cast("bigint").alias("spread"),
        _micros(events, time).alias("micros"),
        F.lit(True).alias("is_event"),
        *values,
    ).filter(_all_present([*_partition(keys)[:-1], "micros"]))


def _label_columns(labels: DataFrame) -> list[Column]:
    return [F.col("label").getField(f"column_{index}").alias(name) for index, name in enumerate(labels.schema.names)]


def _partition(keys: Iterable[str]) -> list[str]:
    return [*(f"key_{index}" for index, _ in enumerate(keys)), "spread"]


def _keys(names: Sequence[str], types: Sequence[DataType]) -> list[Column]:
    pairs = zip(names, types, strict=True)
    return [_column(name).cast(kind).alias(f"key_{index}") for index, (name, kind) in enumerate(pairs)]


def _key_types(labels: DataFrame, events: DataFrame, keys: Mapping[str, str]) -> list[DataType]:
    """Return the type in which each key is compared: its own, or bigint for integers of two widths."""
    left, right = _types(labels), _types(events)
    return [left[name] if left[name] == right[other] else LongType() for name, other in keys.items()]


def _all_present(names: Sequence[str]) -> Column:
    return reduce(and_, (_column(name).isNotNull() for name in names))


def _column(name: str) -> Column:
    return F.col("`" + name.replace("`", "``") + "`")  # quoted: a dot is part of the name


def _micros(frame: DataFrame, name: str) -> Column:
    """Return a time as microseconds since 1970 UTC, whatever the session's time zone."""
    time, kind = _column(name), _types(frame)[name]
    if isinstance(kind, TimestampType):
        return F.unix_micros(time)
    midnight = F.unix_date(time.cast("date")).cast("bigint") * (_UNITS["d"] * _MICROS)
    if isinstance(kind, DateType):
        return midnight
    # A cast to timestamp would read it in the session's time zone, where some hours of spring do not exist.
    seconds = F.hour(time) * 3_600 + F.minute(time) * 60 + F.extract(F.lit("SECOND"), time)
    return midnight + (seconds * _MICROS).cast("bigint")


def _one_zero(value: Column, kind: DataType) -> Column:
    """Return a float with one zero and one NaN: those that compare equal must have equal bits."""
    if not isinstance(kind, FloatType | DoubleType):
        return value
    zero, nan = (F.lit(number).cast(kind) for number in (0.0, float("nan")))
    return F.when(value == 0, zero).when(F.isnan(value), nan).otherwise(value)


def _types(frame: DataFrame) -> dict[str, DataType]:
    return {field.name: field.dataType for field in frame.schema.fields}


def _type_of(features: DataFrame, output: str, value: Column) -> DataType:
    try:
        return features.select(value.alias(output)).schema.fields[0].dataType
    except AnalysisException as error:
        raise FeatureError(
            f"point_in_time_join: columns: {output}: not an expression over features "
            f"({', '.join(features.schema.names)}): {error}"
        ) from error


def _has_order(kind: DataType) -> bool:
    if isinstance(kind, ArrayType):
        return _has_order(kind.elementType)
    if isinstance(kind, StructType):
        return all(_has_order(field.dataType) for field in kind.fields)
    if isinstance(kind, UserDefinedType):
        return _has_order(kind.sqlType())
    return isinstance(kind, _ORDERED)


def _refuse(function: str, problems: Sequence[str]) -> None:
    if problems:
        raise FeatureError(f"{function}: " + "; ".join(problems))


def _frame_problems(
    labels: DataFrame,
    events: DataFrame,
    keys: Mapping[str, str],
    label_time: str,
    event_time: str,
    outputs: Sequence[str],
    argument: str,
) -> list[str]:
    other = "features" if argument == "columns" else "events"
    left, right = _types(labels), _types(events)
    problems = [] if keys else ["keys: none given, expected label column -> feature column"]
    problems += [] if outputs else [f"{argument}: none given"]
    for name, key in keys.items():
        unknown = _name_problems("keys", labels, "labels", name) + _name_problems("keys", events, other, key)
        problems += unknown
        if not unknown and not _can_match(left[name], right[key]):
            problems.append(
                f"keys: {name} is {left[name].simpleString()} in labels and {key} is {right[key].simpleString()} in "
                f"{other}, expected one type for both: integer, string, decimal, boolean, binary, date or timestamp"
            )
    for argument_name, frame, side, name in (
        ("label_time", labels, "labels", label_time),
        ("event_time", events, other, event_time),
    ):
        unknown = _name_problems(argument_name, frame, side, name)
        problems += unknown
        if not unknown and not isinstance(kind := _types(frame)[name], _TIMES):
            problems.append(f"{argument_name}: {name} is {kind.simpleString()}, expected date or timestamp; cast it")
    # Spark and the tables that it writes tell no upper from lower case in names.
    present = [name.lower() for name in labels.schema.names]
    problems += [f"labels: {name}: two columns of this name" for name in sorted(_repeated(present))]
    problems += [
        f"{argument}: {name}: already a column of labels; choose another name"
        for name in outputs
        if name.lower() in present
    ]
    repeated = _repeated([name.lower() for name in outputs])
    problems += [f"{argument}: {name}: declared twice" for name in sorted(repeated)]
    return problems


def _name_problems(argument: str, frame: DataFrame, side: str, name: str) -> list[str]:
    if name not in frame.schema.names:
        return [f"{argument}: {name}: not a column of {side} ({', '.join(frame.schema.names)})"]
    if [each.lower() for each in frame.schema.names].count(name.lower()) > 1:
        return [f"{argument}: {name}: {side} has two columns of this name"]
    return []


def _can_match(left: DataType, right: DataType) -> bool:
    if isinstance(left, IntegralType) and isinstance(right, IntegralType):
        return True
    return left == right and isinstance(left, _KEYS)


def _repeated(names: Sequence[str]) -> set[str]:
    return {name for name in names if names.count(name) > 1}


def _seconds_problems(name: str, seconds: object) -> list[str]:
    if isinstance(seconds, int) and not isinstance(seconds, bool) and 1 <= seconds <= _MAX_SECONDS:
        return []
    return [f"{name}: got {seconds!r}, expected a whole number of seconds, 1 to {_MAX_SECONDS}"]


def _aggregate_problems(function: str, column: str | None, window_seconds: object) -> list[str]:
    problems = _seconds_problems("window_seconds", window_seconds)
    if function not in get_args(Function):
        problems.append(f"function: got {function}, expected one of {', '.join(get_args(Function))}")
    elif column is None and function != "count":
        problems.append(f"column: none given, {function} needs one; only count goes without")
    return problems


def _column_problems(aggregate: Aggregate, events: DataFrame) -> list[str]:
    if aggregate.column is None:
        return []
    where = f"aggregates: {aggregate.output}"
    unknown = _name_problems(where, events, "events", aggregate.column)
    if unknown:
        return unknown
    kind = _types(events)[aggregate.column]
    if aggregate.function in ("sum", "mean") and not isinstance(kind, NumericType):
        return [f"{where}: {aggregate.function} of {aggregate.column}: type {kind.simpleString()}, expected a number"]
    if not _has_order(kind) and aggregate.function != "count":
        return [f"{where}: {aggregate.function} of {aggregate.column}: type {kind.simpleString()} has no order"]
    return []
