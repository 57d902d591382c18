"""The columns of plain Parquet files, all together, in the types that Spark reads them in."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
from pyarrow import parquet as pq

from mlspark.errors import DatasetError

_NAMES = {
    pa.int8(): "byte", pa.int16(): "short", pa.int32(): "integer", pa.int64(): "long",
    pa.uint8(): "short", pa.uint16(): "integer", pa.uint32(): "long", pa.uint64(): "decimal(20,0)",
    pa.float16(): "float", pa.float32(): "float", pa.float64(): "double", pa.bool_(): "boolean",
    pa.date32(): "date", pa.date64(): "date",
    pa.string(): "string", pa.large_string(): "string", pa.string_view(): "string",
    pa.binary(): "binary", pa.large_binary(): "binary", pa.binary_view(): "binary",
    pa.null(): "void",
}  # fmt: skip
_WIDER = (("byte", "short", "integer", "long"), ("float", "double"))
"""Types of which each holds the values of those before it."""


def merged(footers: Mapping[str, pq.FileMetaData]) -> dict[str, Any]:
    """Return the columns of all files as Delta's own schema: those of the first file, then those that others add.

    Raises:
        DatasetError: two files have a column of types of which neither holds the other's; names both.
    """
    fields: dict[str, tuple[str, Any, str]] = {}  # as Spark tells columns apart: by their names in lower case
    for uri, footer in footers.items():
        int96 = {
            footer.schema.column(leaf).path
            for leaf in range(len(footer.schema))
            if footer.schema.column(leaf).physical_type == "INT96"
        }
        for column in footer.schema.to_arrow_schema():
            kind = "timestamp" if column.name in int96 else _declared(column.type)
            name, known, first = fields.get(column.name.lower(), (column.name, kind, uri))
            wider = _wider(known, kind)
            if wider is None:
                raise DatasetError(
                    f"column {name} is {_spelled(known)} in {first} and {_spelled(kind)} in {uri}; write one of them again "
                    f"with the other's type, or open them one by one"
                )
            fields[column.name.lower()] = (name, wider, first)
    return {
        "type": "struct",
        "fields": [{"name": name, "type": kind, "nullable": True, "metadata": {}} for name, kind, _ in fields.values()],
    }


def _declared(kind: pa.DataType) -> Any:
    """Return an Arrow type as Delta's schema has it; a type that Delta lacks by Arrow's name, which cannot be streamed."""
    types = pa.types
    if kind in _NAMES:
        return _NAMES[kind]
    if types.is_dictionary(kind):
        return _declared(kind.value_type)
    if types.is_timestamp(kind):
        return "timestamp_ntz" if kind.tz is None else "timestamp"
    if types.is_decimal128(kind):
        return f"decimal({kind.precision},{kind.scale})"
    if types.is_fixed_size_binary(kind):
        return "binary"
    if any(check(kind) for check in (types.is_list, types.is_large_list, types.is_fixed_size_list)):
        return {"type": "array", "elementType": _declared(kind.value_type), "containsNull": True}
    return {"type": "struct", "fields": []} if types.is_struct(kind) else f"{kind} of Arrow"


def _wider(one: Any, other: Any) -> Any:
    """Return the type that holds the values of both; None: neither does."""
    if one == other or other == "void":
        return one
    if one == "void":
        return other
    for family in _WIDER:
        if one in family and other in family:
            return max(one, other, key=family.index)
    return None


def _spelled(kind: Any) -> str:
    return kind if isinstance(kind, str) else str(kind["type"])
