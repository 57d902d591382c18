"""Rows of a pandas data frame as rows in memory, with missing values as the contract defines them. Runs anywhere."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from mlspark.contracts import check_json
from mlspark.contracts.check_arrow import Broken
from mlspark.contracts.contract import ColumnRule, Contract
from mlspark.errors import ContractError

if TYPE_CHECKING:
    import pandas as pd

_OF_JSON = {type(None), bool, int, float, str, list}
"""Types of values that rows of JSON have, too."""


def from_pandas(frame: "pd.DataFrame", contract: Contract) -> pa.Table:
    """Return the rows of a data frame, for `check_arrow`.

    None, NaN, NaT and pd.NA are missing values, NaN in columns of floats too: a data frame has no other way to say it, and
    most cannot tell the two apart. Elements of arrays are taken as they are, so that NaN in one is not finite. Columns that
    the contract does not name, by its own names or those of the sources, keep their name alone.

    Raises:
        ContractError: a column stands there twice, or has a value that its type does not hold beside others or of more than
            64 bits.
    """
    given = [str(name) for name in frame.columns]
    if twice := sorted({name for name in given if given.count(name) > 1}):
        raise ContractError(f"contract {contract.name}: columns given twice: {', '.join(twice)}")
    names = {*contract.names, *contract.names_by_header}
    arrays = [
        _array(frame[name], str(name), contract) if name in names else pa.nulls(len(frame)) for name in frame.columns
    ]
    return pa.table(arrays, names=given)


def _array(values: "pd.Series[Any]", name: str, contract: Contract) -> pa.Array:
    import pandas as pd

    plain: list[Any] = []
    try:
        # Unsigned numbers are no type of a contract; as Python's they are taken for what they say.
        if values.dtype != object and not pd.api.types.is_unsigned_integer_dtype(values.dtype):
            array = pa.array(values, from_pandas=True)
            return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
        plain = [None if pd.api.types.is_scalar(value) and pd.isna(value) else value for value in values]
        return pa.array(plain)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError) as error:
        [known] = contract.named_here([name])
        column = contract.column(known)
        if plain and {*map(type, plain)} <= _OF_JSON:
            return _one_by_one(plain, column, contract)
        raise ContractError(f"contract {contract.name}: {known}.type: expected {column.type}: {error}") from None


def _one_by_one(values: Sequence[Any], column: ColumnRule, contract: Contract) -> pa.Array:
    """Return values of several types, or of more than 64 bits, as rows of JSON have them; raises in the same words."""
    array, lost = check_json.column_array(values, column)
    if lost:
        row = min(lost)
        broken = Broken(row, column.name, "type", values[row], lost[row])
        raise ContractError(f"contract {contract.name}: {broken}")
    return array
