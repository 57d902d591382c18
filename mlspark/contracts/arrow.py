"""A contract on rows in memory, for scoring outside Spark. Runs anywhere."""

import math

import pyarrow as pa
from pyarrow import compute as pc

from mlspark.contracts.contract import ColumnRule, Contract
from mlspark.errors import ContractError

_ARROW_TYPES = {
    "int": pa.int32(),
    "bigint": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "string": pa.string(),
}


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
    wanted = _ARROW_TYPES[column.type]
    if column.type != "string" and pa.types.is_floating(values.type):
        # A data frame has no missing value but NaN in a column of numbers.
        values = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
    is_text = pa.types.is_string(values.type) or pa.types.is_large_string(values.type)
    if is_text != (column.type == "string") and values.null_count < len(values):
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
        rules.append(("min", pc.less(values, pa.scalar(column.min, pa.float64()))))
    if column.max is not None:
        rules.append(("max", pc.greater(values, pa.scalar(column.max, pa.float64()))))
    if column.allowed is not None:
        known = pc.is_in(values, value_set=pa.array(column.allowed, pa.string()))
        rules.append(("allowed", pc.and_(pc.is_valid(values), pc.invert(known))))
    for rule, broken in rules:
        row = pc.index(pc.fill_null(broken, False), True).as_py()
        if row >= 0:
            value = values[row].as_py()
            shown = "NaN" if isinstance(value, float) and math.isnan(value) else repr(value)
            raise ContractError(f"contract {contract}: {column.name}.{rule}: row {row} has {shown}")
