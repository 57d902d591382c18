"""Features as of a moment: the newest row that is strictly older than the label. Driver, lazy.

Labels and features are united, shuffled once by key and walked in the order of time. No row meets more than its own key's
rows, and no label row is multiplied or lost.
"""

from collections.abc import Mapping

from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F
from pyspark.sql.types import DataType

from mlspark.errors import FeatureError
from mlspark.features.join_checks import frame_problems, has_order, name_problems, refuse, seconds_problems
from mlspark.features.timeline import (
    MICROS,
    DatesKnown,
    event_rows,
    key_types_of,
    known_at,
    label_columns,
    label_rows,
    one_zero,
    partition_columns,
    quoted_column,
)


def point_in_time_join(
    labels: DataFrame,
    features: DataFrame,
    *,
    keys: Mapping[str, str],
    label_time: str,
    event_time: str,
    columns: Mapping[str, Column | str],
    max_age_seconds: int | None = None,
    dates_known: DatesKnown = "end_of_day",
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
        dates_known: when a row is known whose event_time is a date.

    Raises:
        FeatureError: unknown column, new column that `labels` already has, key or time of an unfit type, value of a
            type without order (checked on the schemas, no action).
    """
    _refuse_unfit(labels, features, keys, label_time, event_time, columns, max_age_seconds)
    values, types = _values_and_types(features, columns)
    names = [f"value_{index}" for index in range(len(values))]
    taken = [one_zero(value, kind).alias(name) for name, value, kind in zip(names, values, types, strict=True)]
    key_types = key_types_of(labels, features, keys)
    moments = label_rows(labels, list(keys), key_types, label_time)
    # The time goes last in the struct: rows of one time are ordered by their values.
    taken_at = F.struct(*taken, known_at(features, event_time, dates_known).alias("micros")).alias("taken")
    events = event_rows(features, list(keys.values()), key_types, event_time, [taken_at], dates_known=dates_known)
    joined = (
        moments.unionByName(events, allowMissingColumns=True)
        .select("micros", "label", _newest(keys).alias("newest"))
        .filter(F.col("label").isNotNull())
    )
    newest = F.col("newest")
    if max_age_seconds is not None:
        age = F.col("micros") - F.col("newest.micros")
        newest = F.when(age <= max_age_seconds * MICROS, newest)
    return joined.select(
        *label_columns(labels),
        *(newest.getField(name).alias(output) for name, output in zip(names, columns, strict=True)),
    )


def _newest(keys: Mapping[str, str]) -> Column:
    """Return the newest feature row before each row of the timeline.

    Strict: at equal times a label (is_event false) sorts before the events, which it therefore never sees. A source stamps
    a click and its feature update in the same second, and "<=" would leak the label.
    """
    until_label = (
        Window.partitionBy(*partition_columns(keys))
        .orderBy("micros", "is_event", "taken")
        .rowsBetween(Window.unboundedPreceding, Window.currentRow)
    )
    return F.last("taken", ignorenulls=True).over(until_label)


def _refuse_unfit(
    labels: DataFrame,
    features: DataFrame,
    keys: Mapping[str, str],
    label_time: str,
    event_time: str,
    columns: Mapping[str, Column | str],
    max_age_seconds: int | None,
) -> None:
    problems = frame_problems(labels, features, keys, label_time, event_time, list(columns), "columns")
    if max_age_seconds is not None:
        problems += seconds_problems("max_age_seconds", max_age_seconds)
    problems += [
        problem
        for output, value in columns.items()
        if isinstance(value, str)
        for problem in name_problems(f"columns: {output}", features, "features", value)
    ]
    refuse("point_in_time_join", problems)


def _values_and_types(features: DataFrame, columns: Mapping[str, Column | str]) -> tuple[list[Column], list[DataType]]:
    """Return the values to take and their types; refuses those without an order."""
    values = [quoted_column(value) if isinstance(value, str) else value for value in columns.values()]
    types = [_type_of(features, output, value) for output, value in zip(columns, values, strict=True)]
    refuse(
        "point_in_time_join",
        [
            f"columns: {output}: type {kind.simpleString()} has no order to decide between rows of one time; "
            f"take a part of it, or its to_json"
            for output, kind in zip(columns, types, strict=True)
            if not has_order(kind)
        ],
    )
    return values, types


def _type_of(features: DataFrame, output: str, value: Column) -> DataType:
    try:
        return features.select(value.alias(output)).schema.fields[0].dataType
    except AnalysisException as error:
        raise FeatureError(
            f"point_in_time_join: columns: {output}: not an expression over features "
            f"({', '.join(features.schema.names)}): {error}"
        ) from error
