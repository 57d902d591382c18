"""Joins as of a moment checked on the schemas: what is wrong with keys, times and columns. Runs no action."""

from collections.abc import Mapping, Sequence

from pyspark.sql import DataFrame
from pyspark.sql.types import (
    ArrayType,
    BinaryType,
    BooleanType,
    DataType,
    DateType,
    DayTimeIntervalType,
    DecimalType,
    IntegralType,
    NumericType,
    StringType,
    StructType,
    TimestampNTZType,
    TimestampType,
    UserDefinedType,
    YearMonthIntervalType,
)

from mlspark.errors import FeatureError
from mlspark.features.timeline import types_of

_MAX_SECONDS = 10_000 * 366 * 86_400  # all of years 1 to 9999; differences of times then fit a bigint
_TIMES = (DateType, TimestampType, TimestampNTZType)
# No floats: Spark rewrites a float key of a window (-0.0, NaN), and the order of rows below would be lost with it.
_KEYS = (BinaryType, BooleanType, DecimalType, IntegralType, StringType, *_TIMES)
_ORDERED = (NumericType, DayTimeIntervalType, YearMonthIntervalType, *_KEYS)


def has_order(kind: DataType) -> bool:
    if isinstance(kind, ArrayType):
        return has_order(kind.elementType)
    if isinstance(kind, StructType):
        return all(has_order(field.dataType) for field in kind.fields)
    if isinstance(kind, UserDefinedType):
        return has_order(kind.sqlType())
    return isinstance(kind, _ORDERED)


def refuse(function: str, problems: Sequence[str]) -> None:
    if problems:
        raise FeatureError(f"{function}: " + "; ".join(problems))


def frame_problems(
    labels: DataFrame,
    events: DataFrame,
    keys: Mapping[str, str],
    label_time: str,
    event_time: str,
    outputs: Sequence[str],
    argument: str,
) -> list[str]:
    other = "features" if argument == "columns" else "events"
    left, right = types_of(labels), types_of(events)
    problems = [] if keys else ["keys: none given, expected label column -> feature column"]
    problems += [] if outputs else [f"{argument}: none given"]
    for name, key in keys.items():
        unknown = name_problems("keys", labels, "labels", name) + name_problems("keys", events, other, key)
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
        unknown = name_problems(argument_name, frame, side, name)
        problems += unknown
        if not unknown and not isinstance(kind := types_of(frame)[name], _TIMES):
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


def name_problems(argument: str, frame: DataFrame, side: str, name: str) -> list[str]:
    if name not in frame.schema.names:
        return [f"{argument}: {name}: not a column of {side} ({', '.join(frame.schema.names)})"]
    if [column.lower() for column in frame.schema.names].count(name.lower()) > 1:
        return [f"{argument}: {name}: {side} has two columns of this name"]
    return []


def _can_match(left: DataType, right: DataType) -> bool:
    if isinstance(left, IntegralType) and isinstance(right, IntegralType):
        return True
    return left == right and isinstance(left, _KEYS)


def _repeated(names: Sequence[str]) -> set[str]:
    return {name for name in names if names.count(name) > 1}


def seconds_problems(name: str, seconds: object) -> list[str]:
    if isinstance(seconds, int) and not isinstance(seconds, bool) and 1 <= seconds <= _MAX_SECONDS:
        return []
    return [f"{name}: got {seconds!r}, expected a whole number of seconds, 1 to {_MAX_SECONDS}"]
