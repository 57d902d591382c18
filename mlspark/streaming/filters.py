"""Conditions on columns: one comparison in the column's own type and in Spark's order, whatever it is made on.

NaN is above all other numbers and equal to itself, -0.0 equals 0.0, texts are compared by their bytes, and null satisfies
no condition: on partition values, on rows and on the statistics of row groups alike.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import compute as pc

from mlspark.errors import DatasetError
from mlspark.streaming.condition_values import Point, comparable, is_comparable, point
from mlspark.streaming.schema import TableColumn

Condition: TypeAlias = tuple[str, str, Any]
"""Condition (column, operator, value), such as ("day", ">=", date(2024, 1, 1))."""

OPERATORS = ("=", "!=", "<", "<=", ">", ">=", "in")
_SHOWN_CHOICES = 5


@dataclass(frozen=True)
class ValueRange:
    """What the statistics of a row group say of a column, and are known to say soundly."""

    bounds: pa.Array | None
    """Two values in the table's type: none of the column's is less than the first or greater than the second, NaN aside;
    None: all are null."""
    has_nulls: bool = True
    """Whether there may be nulls."""
    is_exact: bool = False
    """Whether the bounds are values of the column; texts may have been cut."""


@dataclass(frozen=True)
class Comparison:
    """One condition, its value in the column's type."""

    column: TableColumn
    operator: str
    points: tuple[Point, ...]
    """What the column is compared with; for "in" any number of values."""
    text: str
    """The condition as it was written."""

    def holds(self, values: pa.Array | pa.ChunkedArray) -> NDArray[np.bool_]:
        """Return for each of `values`, which are of the column's type, whether the condition holds: shape (n,)."""
        array = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
        is_valid = _mask(array.is_valid())
        array = comparable(array)
        holds = np.zeros(len(array), np.bool_)
        for choice in self.points:
            is_less, is_equal = _order(array, choice)
            holds |= is_equal if self.operator == "in" else _hold(self.operator, is_less, is_equal)
        holds &= is_valid
        return holds

    def holds_within(self, values: ValueRange) -> bool | None:
        """Return True where the condition holds for every row of the range, False where for none, None where unknown."""
        if values.bounds is None:
            return False
        kind = values.bounds.type
        bounds = comparable(values.bounds)
        may_be_nan = pa.types.is_floating(kind)
        answers = [self._within(bounds, choice, may_be_nan, values.is_exact) for choice in self.points]
        if self.operator == "in":
            return None if any(answer is not False for answer in answers) else False
        return None if answers[0] and values.has_nulls else answers[0]

    def _within(self, bounds: pa.Array, choice: Point, may_be_nan: bool, is_exact: bool) -> bool | None:
        """Return what `holds_within` does, nulls aside."""
        if choice.is_nan:
            return None
        (least_below, most_below), (least_at, most_at) = _order(bounds, choice)
        least_above, most_above = not (least_below or least_at), not (most_below or most_at)
        is_outside = bool(least_above or most_below) or not choice.is_exact
        is_one = bool(least_at and most_at) and is_exact and not may_be_nan
        # NaN is above every bound: what holds for it may hold for a row, what does not may not hold for all.
        match self.operator:
            case "=" | "in":
                return False if is_outside else True if is_one else None
            case "!=":
                return True if is_outside else False if is_one else None
            case "<":
                return False if not least_below else True if most_below and not may_be_nan else None
            case "<=":
                return False if least_above else True if not most_above and not may_be_nan else None
            case ">":
                return True if least_above else False if not most_above and not may_be_nan else None
            case _:
                return True if not least_below else False if most_below and not may_be_nan else None


@dataclass(frozen=True)
class Conditions:
    """Conditions of which all must hold."""

    on_partitions: tuple[Comparison, ...] = ()
    on_rows: tuple[Comparison, ...] = ()
    texts: tuple[str, ...] = ()
    """All of them as they were written."""

    def hold_in_partition(self, partition: Mapping[str, str | None]) -> bool:
        """Return whether those on partition columns hold for the rows of a file."""
        for comparison in self.on_partitions:
            value = partition_value(partition[comparison.column.name], comparison.column)
            if not value.is_valid or not comparison.holds(pa.repeat(value, 1))[0]:
                return False
        return True


def conditions(
    where: Iterable[Condition], columns: Mapping[str, TableColumn], partition_columns: set[str], table: str
) -> Conditions:
    """Return the conditions with their values in the columns' types, parted by what decides them.

    Args:
        where: column, operator and value of each.
        columns: the table's columns.
        partition_columns: names of those whose values stand in the table's log.
        table: names the table in errors.

    Raises:
        DatasetError: no condition, an unknown operator or column, a column that has no order, or a value of another type;
            names the condition and what to give.
    """
    comparisons = [_comparison(condition, columns, table) for condition in where]
    return Conditions(
        tuple(each for each in comparisons if each.column.name in partition_columns),
        tuple(each for each in comparisons if each.column.name not in partition_columns),
        tuple(each.text for each in comparisons),
    )


def partition_value(text: str | None, column: TableColumn) -> pa.Scalar:
    """Return a partition value, which the table's log keeps as text, in the column's type.

    Raises:
        DatasetError: the text is no value of that type.
    """
    kind = column.type
    if text is None or kind is None:
        return pa.scalar(text, kind or pa.string())
    if pa.types.is_binary(kind) and ("\\u" in text or "\ufffd" in text):
        raise DatasetError(
            f"partition column {column.name}: a table's log holds texts only, and {text!r} may stand for other bytes; "
            f"leave {column.name} out"
        )
    try:
        if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
            return _moment(text, kind)
        return pa.scalar(text.ljust(column.char_length or 0)).cast(kind)
    except (pa.ArrowException, ValueError) as error:
        raise DatasetError(f"partition column {column.name}: {text!r} is no {column.declared}: {error}") from error


def _moment(text: str, kind: pa.DataType) -> pa.Scalar:
    """Return a date or time; in UTC where it names no zone."""
    is_date = pa.types.is_date(kind)
    if re.match(r"[+-]?\d{5,}-|-", text):  # a year that Arrow does not parse
        moment = np.datetime64(text, "D" if is_date else kind.unit)
        return pa.scalar(int(moment.astype(np.int64)), pa.int32() if is_date else pa.int64()).cast(kind)
    if not is_date and kind.tz and "+" not in text and not text.endswith("Z"):
        text += "+00:00"
    return pa.scalar(text).cast(kind)


def _comparison(condition: Condition, columns: Mapping[str, TableColumn], table: str) -> Comparison:
    """Return one condition in its column's type."""
    if not isinstance(condition, tuple | list) or len(condition) != 3 or not isinstance(condition[0], str):
        raise DatasetError(
            f"{table}: condition {condition!r}: expected (column, operator, value), such as ('age', '>=', 18); "
            f"where is a list of them"
        )
    name, operator, value = condition
    if name not in columns:
        raise DatasetError(f"{table}: condition on {name}: no such column; there are {', '.join(columns)}")
    if operator not in OPERATORS:
        raise DatasetError(f"{table}: condition on {name}: unknown operator {operator!r}, use {' '.join(OPERATORS)}")
    column = columns[name]
    text = f"{name} {operator} {_shown(value) if operator == 'in' else repr(value)}"
    if not is_comparable(column):
        kind = f"{column.declared}{f' of collation {column.collation}' if column.collation else ''}"
        raise DatasetError(
            f"{table}: condition {text}: column {name} is {kind}, which has no order here; "
            f"conditions are on numbers, booleans, texts, bytes, dates and timestamps"
        )
    choices = (value,)
    if operator == "in":
        if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
            raise DatasetError(f"{table}: condition {text}: in takes a list of values, such as [{value!r}]")
        choices = tuple(value)
    try:
        points = tuple(point(choice, column) for choice in choices)
    except DatasetError as error:
        raise DatasetError(f"{table}: condition {text}: {error}") from None
    return Comparison(column, operator, points, text)


def _shown(choices: Any) -> str:
    """Return the values of an "in" as they are written, the first few of many."""
    if isinstance(choices, str | bytes) or not isinstance(choices, Iterable):
        return repr(choices)
    listed = sorted(map(repr, choices)) if isinstance(choices, set | frozenset) else [repr(each) for each in choices]
    more = len(listed) - _SHOWN_CHOICES
    return f"[{', '.join(listed[:_SHOWN_CHOICES])}{f', and {more} more' if more > 0 else ''}]"


def _order(array: pa.Array, choice: Point) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return (is less, is equal) of each value in Spark's order; anything for nulls."""
    if choice.value is None:  # below all values of the type
        return np.zeros(len(array), np.bool_), np.zeros(len(array), np.bool_)
    if choice.is_nan:
        is_equal = _mask(pc.is_nan(array))
        return ~is_equal, is_equal
    is_less, is_equal = _mask(pc.less(array, choice.value)), _mask(pc.equal(array, choice.value))
    if not choice.is_exact:  # what equals the next smaller value of the type is less than the one that was meant
        return is_less | is_equal, np.zeros(len(array), np.bool_)
    return is_less, is_equal


def _hold(operator: str, is_less: NDArray[np.bool_], is_equal: NDArray[np.bool_]) -> NDArray[np.bool_]:
    match operator:
        case "=":
            return is_equal
        case "!=":
            return ~is_equal
        case "<":
            return is_less
        case "<=":
            return is_less | is_equal
        case ">":
            return ~(is_less | is_equal)
        case _:
            return ~is_less


def _mask(answers: pa.Array) -> NDArray[np.bool_]:
    return np.asarray(pc.fill_null(answers, False).to_numpy(zero_copy_only=False), dtype=np.bool_)
