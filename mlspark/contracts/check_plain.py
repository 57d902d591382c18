"""A contract on a few rows of JSON that are as they should be, in a fraction of the time. Runs anywhere.

It says nothing of a row that is not: `check_json.conform` does, which would find nothing wrong with these and give them the
same values.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from mlspark.contracts import bounds, check_arrow, check_json, column_types
from mlspark.contracts.column_types import arrow_type
from mlspark.contracts.contract import ColumnRule, Contract
from mlspark.contracts.plain_rows import PlainRows

MOST_ROWS = 64
"""Rows from which on Arrow, which takes its time once for all rows of a column, is as fast."""
_ABSENT: Any = object()
"""Stands where a row has no value for a column."""
_ODD: Any = object()
"""Stands for a value that `check_json` has to look at."""

Typed = Callable[[Any], Any]
"""Function that returns a value, not None, in its column's type; `_ODD` where it breaks a rule or needs a conversion."""


class PlainCheck:
    """A contract made ready once."""

    def __init__(self, contract: Contract, *, ignored: Sequence[str] = ()) -> None:
        """Make it.

        Args:
            contract: of the rows.
            ignored: columns that may be there whatever the schema policy.
        """
        self._schema = pa.schema([(column.name, arrow_type(column.type)) for column in contract.columns])
        self._places = {name: place for place, name in enumerate(contract.names)} | {
            header: contract.names.index(name) for header, name in contract.names_by_header.items()
        }
        self._refuses_extra = contract.schema_policy.extra == "refuse"
        self._refuses_missing = contract.schema_policy.missing == "refuse"
        self._ignored = frozenset(ignored)
        self._columns = [(column, _typed(column)) for column in contract.columns]
        self._conditions = list(contract.conditions.values())

    def good(self, rows: Sequence[Mapping[str, Any]]) -> PlainRows | None:
        """Return the rows as `check_json.conform` types them.

        None where a row breaks a rule or a value needs a conversion other than from whole numbers to floats, and of no rows
        or more than `MOST_ROWS`.
        """
        if not 0 < len(rows) <= MOST_ROWS:
            return None
        placed = [self._placed(row) for row in rows]
        if None in placed:
            return None
        values: dict[str, Sequence[Any]] = {}
        arrays: dict[str, pa.Array] = {}
        for (column, typed), given in zip(self._columns, zip(*placed, strict=True), strict=True):
            if typed is None:
                if (array := _checked(given, column)) is None:
                    return None
                arrays[column.name] = array
            elif None not in given:
                values[column.name] = of_column = [typed(value) for value in given]
                if _ODD in of_column:
                    return None
            elif column.nullable:
                values[column.name] = of_column = [None if value is None else typed(value) for value in given]
                if _ODD in of_column:
                    return None
            else:
                return None
        good = PlainRows(self._schema, len(rows), values, arrays)
        if any(check_arrow.breaking_rows(condition, good).size for condition in self._conditions):
            return None
        return good

    def _placed(self, row: Mapping[str, Any]) -> list[Any] | None:
        """Return a row's values in the contract's order; None where its keys are not those of the contract."""
        values = [_ABSENT] * len(self._columns)
        for key, value in row.items():
            place = self._places.get(key)
            if place is None:
                if self._refuses_extra and key not in self._ignored:
                    return None
            elif values[place] is _ABSENT:
                values[place] = value
            else:
                return None
        if _ABSENT in values:
            if self._refuses_missing:
                return None
            return [None if value is _ABSENT else value for value in values]
        return values


def _checked(given: Sequence[Any], column: ColumnRule) -> pa.Array | None:
    """Return a column by the way of all values; None where one breaks a rule."""
    array, lost = check_json.column_array(given, column)
    if lost:
        return None
    typed, broken = check_arrow.conform_column(array, column)
    return None if broken else typed


def _typed(column: ColumnRule) -> Typed | None:
    """Return the function for a column of numbers, booleans or texts; None for others, and for patterns and lengths."""
    if column.pattern is not None or column.min_length is not None or column.max_length is not None:
        return None
    if column.type in column_types.WHOLE_BITS:
        return _whole(column)
    if column.type in ("float", "double"):
        return _float(column)
    if column.type == "boolean":
        return lambda value: value if value is True or value is False else _ODD
    return _text(column) if column.type == "string" else None


def _whole(column: ColumnRule) -> Typed:
    least, greatest = (int(limit) for limit in bounds.limits(column.type))
    if (low := column.bound("min")) is not None:
        least = max(least, int(low))  # type: ignore[arg-type]  # of a whole number's column it is one
    if (high := column.bound("max")) is not None:
        greatest = min(greatest, int(high))  # type: ignore[arg-type]

    def typed(value: Any) -> Any:
        return value if type(value) is int and least <= value <= greatest else _ODD

    return typed


def _float(column: ColumnRule) -> Typed:
    low, high = column.bound("min"), column.bound("max")
    least, greatest = -math.inf if low is None else float(low), math.inf if high is None else float(high)  # type: ignore[arg-type]
    is_single = column.type == "float"

    def typed(value: Any) -> Any:
        if type(value) is int and -(2**53) < value < 2**53:
            value = float(value)
        if type(value) is not float:
            return _ODD
        if is_single:
            with np.errstate(over="ignore"):
                value = float(np.float32(value))
        return value if least <= value <= greatest and math.isfinite(value) else _ODD

    return typed


def _text(column: ColumnRule) -> Typed:
    if column.allowed is not None:
        allowed = frozenset(column.allowed)
        return lambda value: value if type(value) is str and value in allowed else _ODD

    def typed(value: Any) -> Any:
        if type(value) is not str:
            return _ODD
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:  # half a surrogate
                return _ODD
        return value

    return typed
