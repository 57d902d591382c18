"""A contract on rows in memory, for scoring outside Spark. Runs anywhere."""

import math
from collections.abc import Callable

import pyarrow as pa
from pyarrow import compute as pc

from mlspark.contracts.contract import ColumnRule, Contract
from mlspark.errors import ContractError

_ARROW_TYPES = {
    "boolean": pa.bool_(),
    "smallint": pa.int16(),
    "int": pa.int32(),
    "bigint": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "string": pa.string(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us", "UTC"),
    "array<float>": pa.list_(pa.float32()),
    "array<double>": pa.list_(pa.float64()),
}
_FROM_TEXT = ("date", "timestamp", "decimal")
"""Types that JSON has no other way to say."""


def arrow_type(kind: str) -> pa.DataType:
    """Return the Arrow type of one of the contract's."""
    if kind.startswith("decimal"):
        digits, scale = (int(number) for number in kind[len("decimal(") : -1].split(","))
        return pa.decimal128(digits, scale)
    return _ARROW_TYPES[kind]


def conform(table: pa.Table, contract: Contract) -> pa.Table:
    """Return the contract's columns in its types and order; columns that it does not name are left out.

    Raises:
        ContractError: a column is missing, or a value breaks a rule; names column, rule, row (from 0) and value.
    """
    missing = [column.name for column in contract.columns if column.name not in table.column_names]
    if missing:
        raise ContractError(f"contract {contract.name}: columns missing: {', '.join(missing)}")
    arrays = [_typed(table.column(column.name), column, contract.name) for column in contract.columns]
    conformed = pa.table(arrays, names=[column.name for column in contract.columns])
    for column in contract.columns:
        _check(conformed.column(column.name), column, contract.name)
    return conformed


def _typed(values: pa.ChunkedArray, column: ColumnRule, contract: str) -> pa.ChunkedArray:
    wanted = arrow_type(column.type)
    if column.type != "string" and pa.types.is_floating(values.type):
        # A data frame has no missing value but NaN in a column of numbers.
        values = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
    is_text = pa.types.is_string(values.type) or pa.types.is_large_string(values.type)
    may_be_text = column.is_text or column.type.startswith(_FROM_TEXT)
    is_other = (is_text and not may_be_text) or (column.is_text and not is_text)
    if is_other and values.null_count < len(values):
        raise ContractError(f"contract {contract}: {column.name}.type: is {values.type}, expected {column.type}")
    try:
        return values.cast(wanted)
    except pa.ArrowInvalid as error:
        raise ContractError(f"contract {contract}: {column.name}.type: expected {column.type}: {error}") from None


def _check(values: pa.ChunkedArray, column: ColumnRule, contract: str) -> None:
    rules = []
    if not column.nullable:
        rules.append(("null", pc.is_null(values)))
    if column.type in ("float", "double"):
        rules.append(("finite", pc.invert(pc.is_finite(values))))
    if column.min is not None:
        rules.append(("min", pc.less(values, _bound(column.min, values.type))))
    if column.max is not None:
        rules.append(("max", pc.greater(values, _bound(column.max, values.type))))
    if column.allowed is not None:
        known = pc.is_in(values, value_set=pa.array(column.allowed, pa.string()))
        rules.append(("allowed", pc.and_(pc.is_valid(values), pc.invert(known))))
    if column.pattern is not None:
        matches = pc.match_substring_regex(values, rf"\A(?:{column.pattern})\z")
        rules.append(("pattern", pc.invert(matches)))
    if column.is_array:
        rules.append(("finite", _has_an_element(values, lambda elements: pc.invert(pc.is_finite(elements)))))
        rules.append(("type", _has_an_element(values, pc.is_null)))
    if column.min_length is not None or column.max_length is not None:
        length = pc.list_value_length(values) if column.is_array else pc.utf8_length(values)
        rules.append(("min_length", pc.less(length, column.min_length or 0)))
        if column.max_length is not None:
            rules.append(("max_length", pc.greater(length, column.max_length)))
    for rule, broken in rules:
        row = pc.index(pc.fill_null(broken, False), True).as_py()
        if row >= 0:
            value = values[row].as_py()
            shown = "NaN" if isinstance(value, float) and math.isnan(value) else repr(value)
            raise ContractError(f"contract {contract}: {column.name}.{rule}: row {row} has {shown}")


def _bound(bound: float | str, kind: pa.DataType) -> pa.Scalar:
    return pa.scalar(bound).cast(kind) if isinstance(bound, str) else pa.scalar(bound, pa.float64())


def _has_an_element(values: pa.ChunkedArray, is_wrong: Callable[[pa.Array], pa.Array]) -> pa.Array:
    """Return whether a row's array has an element that is wrong."""
    column = values.combine_chunks()
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    rows = pc.list_parent_indices(column).filter(pc.fill_null(is_wrong(pc.list_flatten(column)), False))
    return pc.is_in(pa.array(range(len(column)), rows.type), value_set=rows)
