"""Labels and events as rows of one timeline per key, for the joins as of a moment. Driver, lazy.

Times are compared as UTC microseconds: the date of a label is its midnight, that of an event the end of its day, a timestamp
without time zone is taken as UTC.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from operator import and_
from typing import Literal

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import DataType, DateType, DoubleType, FloatType, LongType, TimestampType

DatesKnown = Literal["end_of_day", "start_of_day"]
MICROS = 1_000_000
UNITS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}


def label_rows(labels: DataFrame, keys: Sequence[str], key_types: Sequence[DataType], time: str) -> DataFrame:
    """Return the partition columns, micros, is_event (false) and label, a struct of all columns by position."""
    whole = [quoted_column(field.name).alias(f"column_{index}") for index, field in enumerate(labels.schema.fields)]
    return labels.select(
        *_keys(keys, key_types),
        # Rows that cannot match would all be one key: one task would walk them.
        F.when(~all_present(keys), micros_of(labels, time)).alias("spread"),
        micros_of(labels, time).alias("micros"),
        F.lit(False).alias("is_event"),
        F.struct(*whole).alias("label"),
    )


def event_rows(
    events: DataFrame,
    keys: Sequence[str],
    key_types: Sequence[DataType],
    time: str,
    values: Sequence[Column],
    *,
    dates_known: DatesKnown,
) -> DataFrame:
    """Return the rows that can match: partition columns, micros, is_event (true) and `values`.

    A row whose time is a date is known at its end, the last microsecond of that day, or at its start.
    """
    return events.select(
        *_keys(keys, key_types),
        F.lit(None).cast("bigint").alias("spread"),
        known_at(events, time, dates_known).alias("micros"),
        F.lit(True).alias("is_event"),
        *values,
    ).filter(all_present([*partition_columns(keys)[:-1], "micros"]))


def label_columns(labels: DataFrame) -> list[Column]:
    return [F.col("label").getField(f"column_{index}").alias(name) for index, name in enumerate(labels.schema.names)]


def partition_columns(keys: Iterable[str]) -> list[str]:
    return [*(f"key_{index}" for index, _ in enumerate(keys)), "spread"]


def _keys(names: Sequence[str], types: Sequence[DataType]) -> list[Column]:
    pairs = zip(names, types, strict=True)
    return [quoted_column(name).cast(kind).alias(f"key_{index}") for index, (name, kind) in enumerate(pairs)]


def key_types_of(labels: DataFrame, events: DataFrame, keys: Mapping[str, str]) -> list[DataType]:
    """Return the type in which each key is compared: its own, or bigint for integers of two widths."""
    left, right = types_of(labels), types_of(events)
    return [left[name] if left[name] == right[other] else LongType() for name, other in keys.items()]


def all_present(names: Sequence[str]) -> Column:
    return reduce(and_, (quoted_column(name).isNotNull() for name in names))


def quoted_column(name: str) -> Column:
    return F.col("`" + name.replace("`", "``") + "`")  # quoted: a dot is part of the name


def micros_of(frame: DataFrame, name: str) -> Column:
    """Return a time as microseconds since 1970 UTC, whatever the session's time zone."""
    time, kind = quoted_column(name), types_of(frame)[name]
    if isinstance(kind, TimestampType):
        return F.unix_micros(time)
    midnight = F.unix_date(time.cast("date")).cast("bigint") * (UNITS["d"] * MICROS)
    if isinstance(kind, DateType):
        return midnight
    # A cast to timestamp would read it in the session's time zone, where some hours of spring do not exist.
    seconds = F.hour(time) * 3_600 + F.minute(time) * 60 + F.extract(F.lit("SECOND"), time)
    return midnight + (seconds * MICROS).cast("bigint")


def known_at(events: DataFrame, time: str, dates_known: DatesKnown) -> Column:
    """Return the moment at which an event is known, as microseconds since 1970 UTC."""
    is_at_end = isinstance(types_of(events)[time], DateType) and dates_known == "end_of_day"
    return micros_of(events, time) + (UNITS["d"] * MICROS - 1 if is_at_end else 0)


def one_zero(value: Column, kind: DataType) -> Column:
    """Return a float with one zero and one NaN: those that compare equal must have equal bits."""
    if not isinstance(kind, FloatType | DoubleType):
        return value
    zero, nan = (F.lit(number).cast(kind) for number in (0.0, float("nan")))
    return F.when(value == 0, zero).when(F.isnan(value), nan).otherwise(value)


def types_of(frame: DataFrame) -> dict[str, DataType]:
    return {field.name: field.dataType for field in frame.schema.fields}
