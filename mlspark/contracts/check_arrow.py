"""A contract on rows in memory, with Spark's verdict: each row typed, each broken rule named. Runs anywhere."""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import compute as pc

from mlspark.contracts import bounds, column_types, conversions, patterns, schema_differences
from mlspark.contracts.column_types import arrow_type
from mlspark.contracts.conditions import Condition
from mlspark.contracts.contract import ColumnRule, Contract
from mlspark.contracts.logic import flat
from mlspark.contracts.plain_rows import PlainRows
from mlspark.errors import ContractError
from mlspark.pictures import media


@dataclass(frozen=True)
class Broken:
    """A rule that a row breaks."""

    row: int
    """Position of the row, from 0."""
    column: str
    """Column that the rule is about; "" for a row rule."""
    rule: str
    value: Any
    """Value as it came, before any cast; bytes as their SHA-256 and number; for a row rule, its condition."""
    what: str = ""
    """What is wrong with the value's type, for the rule `type`, or with a picture; else empty."""

    @property
    def reason(self) -> str:
        """Name of the rule, as the account of a batch has it: "age.min"."""
        return f"{self.column}.{self.rule}" if self.column else self.rule

    def moved(self, rows: int) -> "Broken":
        """Return it of a row that stands so many rows later."""
        return replace(self, row=self.row + rows) if rows else self

    def __str__(self) -> str:
        if not self.column:
            return f"{self.reason}: row {self.row} breaks {self.value}"
        is_nan = isinstance(self.value, float) and math.isnan(self.value)
        what = f" {self.what}:" if self.what else ""
        return f"{self.reason}:{what} row {self.row} has {'NaN' if is_nan else repr(self.value)}"


@dataclass(frozen=True)
class Conformed:
    """Rows held against their contract."""

    rows: pa.Table
    """All rows, the contract's columns in its types and order; null where a value is of another type."""
    broken: tuple[Broken, ...]
    """Every rule that a row breaks, row by row and in the contract's order."""

    @property
    def good(self) -> pa.Table:
        """The rows that break no rule."""
        bad = sorted({broken.row for broken in self.broken})
        return self.rows.filter(pa.array(~np.isin(np.arange(self.rows.num_rows), bad)))


def conform(table: pa.Table, contract: Contract, *, ignored: Sequence[str] = ()) -> Conformed:
    """Return every row typed, with what is wrong with it; the same rows are bad for the same rules as on Spark.

    Rules that are `batch_only` are not looked at, nor is a unique key. NaN is a missing value, as pandas has it; in an
    array it is an element that is not finite.

    Args:
        table: the contract's columns, by their names or by those that they have in the sources, in types that convert, see
            `conversions`; other columns are left out.
        contract: theirs.
        ignored: columns that may be there whatever the schema policy: the label, in rows to be scored.

    Raises:
        ContractError: a column is missing, or there is another one, and the contract's schema policy refuses it; a column
            stands there twice.
    """
    table = _named(table, contract)
    _check_columns(table, contract, ignored)
    given = {name: flat(table.column(name)) for name in contract.names if name in table.column_names}
    return conform_columns(
        {name: given[name] if name in given else pa.nulls(table.num_rows) for name in contract.names}, contract
    )


def conform_columns(given: Mapping[str, pa.Array], contract: Contract) -> Conformed:
    """Return what `conform` does of all columns of a contract, by its names, each (n,)."""
    columns: dict[str, pa.Array] = {}
    broken: list[Broken] = []
    for column in contract.columns:
        columns[column.name], of_column = conform_column(given[column.name], column)
        broken += of_column
    rows = pa.table(list(columns.values()), schema=pa.schema([(c.name, arrow_type(c.type)) for c in contract.columns]))
    broken += _broken_rules(rows, contract, {each.row for each in broken})
    # Sorting keeps the order of equals: the rules of a row stay in the contract's order.
    return Conformed(rows, tuple(sorted(broken, key=lambda each: each.row)))


def conform_column(values: pa.Array, column: ColumnRule) -> tuple[pa.Array, list[Broken]]:
    """Return a column (n,) in its type, and the rules of the column that its values break, rule by rule."""
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    present = _without_nan(values)
    is_converted = conversions.is_converted(values.type, column.type)
    wanted = arrow_type(column.type)
    typed = conversions.convert(present, column.type) if is_converted else pa.nulls(len(values), wanted)
    expected = "binary, or base64 without line ends" if column.type == "binary" else column.type
    what = f"expected {expected}" if is_converted else f"is {values.type}, expected {expected}"
    broken = [
        Broken(int(row), column.name, rule, _shown(values[int(row)], column), what if rule == "type" else "")
        for rule, is_broken in _failures(column, present, typed)
        for row in _rows(is_broken)
    ]
    broken += [
        Broken(row, column.name, rule, _shown(values[row], column), problem)
        for row, rule, problem in _bad_pictures(column, typed)
    ]
    return typed, broken


def check(table: pa.Table, contract: Contract, *, ignored: Sequence[str] = ()) -> pa.Table:
    """Return the contract's columns in its types and order; columns that it does not name are left out.

    Args:
        table: see `conform`.
        contract: theirs.
        ignored: see `conform`.

    Raises:
        ContractError: a column is missing, or a value breaks a rule; names column, rule, row (from 0) and value.
    """
    conformed = conform(table, contract, ignored=ignored)
    if conformed.broken:
        first = conformed.broken[0]
        raise ContractError(f"contract {contract.name}: {first}")
    return conformed.rows


def _named(table: pa.Table, contract: Contract) -> pa.Table:
    """Return the table with the contract's names for those that columns have in the sources."""
    renamed = table.rename_columns(contract.named_here(table.column_names))
    if twice := sorted({name for name in contract.names if renamed.column_names.count(name) > 1}):
        raise ContractError(f"contract {contract.name}: columns given twice: {', '.join(twice)}")
    return renamed


def _check_columns(table: pa.Table, contract: Contract, ignored: Sequence[str]) -> None:
    headers = {name: header for header, name in contract.names_by_header.items()}
    types = {headers.get(field.name, field.name): column_types.spark_type(field.type) for field in table.schema}
    differences = schema_differences.differences(types, contract, has_types=False, ignored=ignored)
    if differences.missing and contract.schema_policy.missing == "refuse":
        raise ContractError(f"contract {contract.name}: columns missing: {', '.join(differences.missing)}")
    if differences.extra and contract.schema_policy.extra == "refuse":
        raise ContractError(
            f"contract {contract.name}: extra columns: {', '.join(differences.extra)}; leave them out, or set the "
            f"contract's schema_policy.extra to ignore"
        )


def _without_nan(values: pa.Array) -> pa.Array:
    """Return floats with null for NaN; other values as they are."""
    if not (pa.types.is_float32(values.type) or pa.types.is_float64(values.type)):
        return values
    return pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)


def _failures(column: ColumnRule, values: pa.Array, typed: pa.Array) -> Iterator[tuple[str, pa.Array]]:
    """Yield (rule, whether a row breaks it) for each rule of a column, in the order of `check_spark`."""
    if typed is not values or column.is_array:
        is_lost = pc.and_(pc.is_valid(values), pc.is_null(typed))
        yield "type", pc.or_(is_lost, _has_an_element(typed, pc.is_null)) if column.is_array else is_lost
    if column.type in ("date", "timestamp"):
        yield "range", _is_out_of_range(typed)
    if column.type in ("float", "double"):
        yield "finite", pc.invert(pc.is_finite(typed))
    if column.is_array:
        yield "finite", _has_an_element(typed, lambda elements: pc.invert(pc.is_finite(elements)))
    if not column.nullable and values.null_count:
        yield "null", pc.is_null(values)
    if (least := column.bound("min")) is not None:
        yield "min", _compared(pc.less, typed, least)
    if (greatest := column.bound("max")) is not None:
        yield "max", _compared(pc.greater, typed, greatest)
    if column.allowed is not None:
        known = pc.is_in(typed, value_set=pa.array(column.allowed, pa.string()))
        yield "allowed", pc.and_(pc.is_valid(typed), pc.invert(known))
    if column.pattern is not None:
        yield "pattern", pc.invert(pc.match_substring_regex(typed, patterns.arrow(column.pattern)))
    if column.min_length is not None or column.max_length is not None:
        length = pc.list_value_length(typed) if column.is_array else pc.utf8_length(typed)
        if column.min_length is not None:
            yield "min_length", pc.less(length, column.min_length)
        if column.max_length is not None:
            yield "max_length", pc.greater(length, column.max_length)


def _bad_pictures(column: ColumnRule, typed: pa.Array) -> Iterator[tuple[int, str, str]]:
    """Yield (row, rule, what is wrong) of each picture that is not as the column's `media` says."""
    if column.media is None:
        return
    for row, value in enumerate(typed):
        if (problem := media.problem(value.as_py(), column.media)) is not None:
            yield row, *problem


def _broken_rules(rows: pa.Table, contract: Contract, bad: set[int]) -> Iterator[Broken]:
    """Yield the row rules that rows without other reasons break; they alone are sure to have values that compute."""
    others = np.setdiff1d(np.arange(rows.num_rows), list(bad))
    good = rows.take(pa.array(others)) if bad else rows
    for name, condition in contract.conditions.items():
        for place in breaking_rows(condition, good):
            yield Broken(int(others[place]), "", name, condition.text)


def breaking_rows(condition: Condition, rows: pa.Table | PlainRows) -> NDArray[np.int64]:
    """Return the positions of rows that do not meet a condition; where it is unknown, a row does."""
    return _rows(pc.invert(condition.evaluate_condition(rows)))


def _rows(is_broken: pa.Array) -> NDArray[np.int64]:
    if not is_broken.true_count:  # of single rows, most of the time would go into the rest
        return np.empty(0, np.int64)
    return np.flatnonzero(pc.fill_null(is_broken, False).to_numpy(zero_copy_only=False))


def _compared(compare: Callable[[pa.Array, pa.Scalar], pa.Array], typed: pa.Array, bound: bounds.Value) -> pa.Array:
    if pa.types.is_floating(typed.type):
        return compare(typed.cast(pa.float64()), pa.scalar(bound, pa.float64()))
    return compare(typed, pa.scalar(bound, typed.type))


def _is_out_of_range(typed: pa.Array) -> pa.Array:
    """Return whether dates or times are beyond the years 1 to 9999."""
    is_date = pa.types.is_date(typed.type)
    units = typed.view(pa.int32() if is_date else pa.int64())
    first, last = (bounds.FIRST_DAY, bounds.LAST_DAY) if is_date else (bounds.FIRST_MICROS, bounds.LAST_MICROS)
    return pc.or_(pc.less(units, first), pc.greater(units, last))


def _has_an_element(lists: pa.Array, is_wrong: Callable[[pa.Array], pa.Array]) -> pa.Array:
    """Return whether a row's array has an element that is wrong."""
    rows = pc.list_parent_indices(lists).filter(pc.fill_null(is_wrong(pc.list_flatten(lists)), False))
    return pc.is_in(pa.array(range(len(lists)), rows.type), value_set=rows)


def _shown(value: pa.Scalar, column: ColumnRule) -> Any:
    if column.is_binary and value.is_valid and (column_types.is_text(value.type) or column_types.is_bytes(value.type)):
        content = value.as_buffer().to_pybytes()
        return f"sha256:{hashlib.sha256(content).hexdigest()}, {len(content)} bytes"
    try:
        return value.as_py()
    except (ValueError, OverflowError):  # a date or time that Python does not know
        is_date = pa.types.is_date32(value.type)
        return (
            f"{value.cast(pa.int32() if is_date else pa.int64()).as_py()} {'days' if is_date else 'units'} since 1970"
        )
