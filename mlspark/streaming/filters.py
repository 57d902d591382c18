"""Conditions that leave files and row groups out before anything of them is read."""

import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import pyarrow as pa
from pyarrow import parquet as pq

from mlspark.errors import DatasetError
from mlspark.streaming.schema import TableColumn

Condition: TypeAlias = tuple[str, str, Any]
"""Condition (column, operator, value), such as ("day", ">=", date(2024, 1, 1))."""

_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "in": lambda value, choices: value in choices,
}


@dataclass(frozen=True)
class Conditions:
    """Conditions of which all must hold."""

    on_partitions: tuple[tuple[TableColumn, str, Any], ...]
    on_rows: tuple[tuple[TableColumn, str, Any], ...]

    def hold_in_partition(self, partition: Mapping[str, str | None]) -> bool:
        """Return whether they hold for all rows of a file; null satisfies none, as in SQL."""
        for column, sign, wanted in self.on_partitions:
            text = partition[column.name]
            if text is None or not _OPERATORS[sign](partition_value(text, column).as_py(), wanted):
                return False
        return True

    def may_hold_in(self, group: pq.RowGroupMetaData, uri: str) -> bool:
        """Return whether a row of the row group may satisfy them, by its statistics; True where it has none."""
        places = {group.column(index).path_in_schema: index for index in range(group.num_columns)}
        for column, sign, wanted in self.on_rows:
            place = places.get(column.physical)
            if place is None:  # written before the column was added: all null
                return False
            statistics = group.column(place).statistics
            if statistics is None or not statistics.has_min_max:
                if statistics is not None and statistics.has_null_count and statistics.null_count == group.num_rows:
                    return False
                continue
            try:
                if not _may_hold(sign, wanted, statistics.min, statistics.max):
                    return False
            except TypeError:
                raise DatasetError(
                    f"{uri}: condition {column.name} {sign} {wanted!r}: the column holds {column.declared} "
                    f"(such as {statistics.min!r}); give a value of that type"
                ) from None
        return True


def conditions(
    where: Iterable[Condition], columns: Mapping[str, TableColumn], partition_columns: set[str], table: str
) -> Conditions:
    """Return the conditions, parted by what decides them.

    Raises:
        DatasetError: an unknown operator or column.
    """
    parted: tuple[list[Any], list[Any]] = ([], [])
    for name, sign, wanted in where:
        if name not in columns:
            raise DatasetError(f"{table}: condition on {name}: no such column; there are {', '.join(columns)}")
        if sign not in _OPERATORS:
            raise DatasetError(f"{table}: condition on {name}: unknown operator {sign!r}, use {' '.join(_OPERATORS)}")
        parted[name not in partition_columns].append((columns[name], sign, wanted))
    return Conditions(tuple(parted[0]), tuple(parted[1]))


def partition_value(text: str, column: TableColumn) -> pa.Scalar:
    """Return a partition value, which Delta keeps as text, in the column's type.

    Raises:
        DatasetError: the text is no value of that type.
    """
    scalar = pa.scalar(text)
    if column.type is None:
        return scalar
    try:
        if pa.types.is_timestamp(column.type) and column.type.tz and "+" not in text and not text.endswith("Z"):
            scalar = pa.scalar(text + "+00:00")
        return scalar.cast(column.type)
    except pa.ArrowException as error:
        raise DatasetError(f"partition column {column.name}: {text!r} is no {column.declared}: {error}") from error


def _may_hold(sign: str, wanted: Any, least: Any, most: Any) -> bool:
    """Return whether a value in [least, most] may satisfy the condition."""
    if sign == "=":
        return bool(least <= wanted <= most)
    if sign == "!=":
        return isinstance(least, float) or not (least == wanted == most)  # statistics do not count NaN
    if sign == "in":
        return any(least <= choice <= most for choice in wanted)
    return bool(_OPERATORS[sign](least if sign[0] == "<" else most, wanted))
