"""A contract on rows of JSON, each by itself: what is said of a row does not depend on the rows beside it. Runs anywhere.

JSON tells 39 from 39.0 and "39", row by row, where a column in memory has one type. The values of a column are converted
kind by kind, as `check_arrow` converts a column of that kind.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa

from mlspark.contracts import check_arrow, column_types, conversions
from mlspark.contracts.check_arrow import Broken, Conformed
from mlspark.contracts.column_types import arrow_type
from mlspark.contracts.contract import ColumnRule, Contract

Row = Mapping[str, Any]

_ABSENT: Any = object()
"""Stands where a row has no value for a column."""
_ARROW = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string(), bytes: pa.binary()}
_NUMBERS = pa.list_(pa.float64())


def conform(rows: Sequence[Row], contract: Contract, *, ignored: Sequence[str] = ()) -> Conformed:
    """Return every row typed, with what is wrong with it, as `check_arrow.conform` says of the row alone.

    Besides the contract's rules a row may break `missing` (it lacks a column, and the schema policy refuses that), `extra`
    (it has another one, likewise) and `twice` (a column by both of its names).

    Args:
        rows: column, by its name or by that of the sources -> JSON value, or bytes for a binary column.
        contract: theirs.
        ignored: columns that may be there whatever the schema policy.
    """
    columns, broken = _columns(rows, contract, ignored)
    arrays: dict[str, pa.Array] = {}
    for column in contract.columns:
        values = columns[column.name]
        if any(value is _ABSENT for value in values):
            if contract.schema_policy.missing == "refuse":
                broken += [
                    Broken(row, column.name, "missing", None) for row, value in enumerate(values) if value is _ABSENT
                ]
            columns[column.name] = values = [None if value is _ABSENT else value for value in values]
        array, lost = column_array(values, column)
        arrays[column.name] = array
        broken += [Broken(row, column.name, "type", _shown(values[row], column), what) for row, what in lost.items()]
    conformed = check_arrow.conform_columns(arrays, contract)
    if not broken and not conformed.broken:
        return conformed
    return Conformed(conformed.rows, _merged(broken, conformed.broken, columns, contract))


def _columns(
    rows: Sequence[Row], contract: Contract, ignored: Sequence[str]
) -> tuple[dict[str, list[Any]], list[Broken]]:
    """Return column -> its values, `_ABSENT` where a row has none, and what is wrong with the rows' keys."""
    columns = {name: [_ABSENT] * len(rows) for name in contract.names}
    lists = {name: columns[name] for name in contract.names} | {
        header: columns[name] for header, name in contract.names_by_header.items()
    }
    refuses_extra = contract.schema_policy.extra == "refuse"
    broken = []
    for place, row in enumerate(rows):
        for key, value in row.items():
            values = lists.get(key)
            if values is None:
                if refuses_extra and key not in ignored:
                    broken.append(Broken(place, key, "extra", value))
            elif values[place] is not _ABSENT:
                [name] = contract.named_here([key])
                broken.append(Broken(place, name, "twice", value))
            else:
                values[place] = value
    return columns, broken


def column_array(values: Sequence[Any], column: ColumnRule) -> tuple[pa.Array, dict[int, str]]:
    """Return a column's values in one type, and row -> what is wrong with a value that has none or does not survive."""
    kinds = set(map(type, values)) - {type(None)}
    if not kinds:
        return pa.nulls(len(values)), {}
    if len(kinds) == 1 and (array := _of_type(values, column.type, *kinds)) is not None:
        return array, {}
    expected = "binary, or base64 without line ends" if column.is_binary else column.type
    wanted = arrow_type(column.type)
    parts, order = [pa.nulls(0, wanted)], []
    lost: dict[int, str] = {}
    for rows, array in _by_kind(values):
        is_converted = array is not None and conversions.is_converted(array.type, column.type)
        typed = conversions.convert(array, column.type) if is_converted else pa.nulls(len(rows), wanted)
        if array is None:
            lost |= dict.fromkeys(rows, f"expected {expected}")
        elif not pa.types.is_null(array.type):
            what = f"expected {expected}" if is_converted else f"is {array.type}, expected {expected}"
            lost |= {row: what for row, is_null in zip(rows, typed.is_null().to_pylist(), strict=True) if is_null}
        parts.append(typed)
        order += rows
    return pa.concat_arrays(parts).take(pa.array(np.argsort(order))), lost


def _of_type(values: Sequence[Any], name: str, kind: type) -> pa.Array | None:
    """Return `_plain` of values, whole numbers at once in the type that a column has, where all fit in."""
    if kind is int and name in column_types.WHOLE_BITS:
        try:
            return pa.array(values, arrow_type(name))
        except (ValueError, OverflowError):
            pass
    return _plain(values, kind)


def _plain(values: Sequence[Any], kind: type) -> pa.Array | None:
    """Return values of one kind, and missing ones, as Arrow has them; None where it has not."""
    if kind not in _ARROW and kind is not list:
        return None
    try:
        array = pa.array(values) if kind is list else pa.array(values, _ARROW[kind])
    except (ValueError, OverflowError, pa.ArrowException):  # beyond 64 bits, half a surrogate, lists of several kinds
        return None
    # Without elements a list says nothing of their type.
    return array.cast(_NUMBERS) if kind is list and pa.types.is_null(array.type.value_type) else array


def _by_kind(values: Sequence[Any]) -> Iterable[tuple[list[int], pa.Array | None]]:
    """Yield (rows, their values) kind by kind; None for a value of no kind that Arrow has."""
    by_kind: dict[type, list[int]] = {}
    for row, value in enumerate(values):
        by_kind.setdefault(type(value), []).append(row)
    for kind, rows in by_kind.items():
        if kind is type(None):
            yield rows, pa.nulls(len(rows))
        elif (array := _plain([values[row] for row in rows], kind)) is not None:
            yield rows, array
        else:
            for row in rows:
                yield [row], _alone(values[row])


def _alone(value: Any) -> pa.Array | None:
    """Return one value; a whole number of more than 64 bits as a decimal."""
    if type(value) is not int or -(2**63) <= value < 2**63:
        return _plain([value], type(value))
    try:
        return pa.array([Decimal(value)])
    except (ValueError, pa.ArrowException):  # more than 76 digits
        return None


def _merged(
    own: Sequence[Broken], of_values: Sequence[Broken], columns: Mapping[str, Sequence[Any]], contract: Contract
) -> tuple[Broken, ...]:
    """Return all rules that rows break, with values as they came; without what only follows from a lost value."""
    lost = {(broken.row, broken.column) for broken in own if broken.rule != "extra"}
    bad = {broken.row for broken in own}
    kept = [
        broken
        for broken in of_values
        if (broken.row, broken.column) not in lost and (broken.column or broken.row not in bad)
    ]
    by_name = {column.name: column for column in contract.columns}
    shown = [
        replace(broken, value=columns[broken.column][broken.row])
        if broken.column and not by_name[broken.column].is_binary
        else broken
        for broken in kept
    ]
    places = {name: place for place, name in enumerate(contract.names)}
    # Sorting keeps the order of equals: the rules of a column stay as `check_arrow` has them, rules of the row come last.
    return tuple(
        sorted(
            [*own, *shown],
            key=lambda broken: (broken.row, places.get(broken.column, len(places) + (not broken.column))),
        )
    )


def _shown(value: Any, column: ColumnRule) -> Any:
    if column.is_binary and isinstance(value, str | bytes):
        content = value.encode(errors="surrogatepass") if isinstance(value, str) else value
        return f"sha256:{hashlib.sha256(content).hexdigest()}, {len(content)} bytes"
    return value
