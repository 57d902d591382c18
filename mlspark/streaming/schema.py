"""The columns of a Delta table as its files hold them. Imports neither Petastorm nor torch."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

_PRIMITIVES = {
    "byte": pa.int8(),
    "short": pa.int16(),
    "integer": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "boolean": pa.bool_(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us", "UTC"),
    "timestamp_ntz": pa.timestamp("us"),
    "string": pa.string(),
    "binary": pa.binary(),
}
_CHAR_OR_VARCHAR = "__CHAR_VARCHAR_TYPE_STRING"
"""Where a field's metadata has the type of a string column that Spark declared with a length."""
_CHAR = re.compile(r"char\((\d+)\)")
_DECIMAL = re.compile(r"decimal\((\d+),\s*(\d+)\)")


@dataclass(frozen=True)
class TableColumn:
    """One column of a table."""

    name: str
    physical: str
    """Name in the files: another one where the table maps its columns."""
    field_id: int | None
    """Id in the files, set where their columns are matched by id and not by name (delta.columnMapping.mode = id)."""
    declared: str
    """Type as the table declares it."""
    type: pa.DataType | None
    """The same as Arrow type; None: a type that cannot be streamed, or a column of which only the name is known."""
    char_length: int | None = None
    """Characters that Spark fills a shorter text up to with spaces, set for CHAR(n)."""
    collation: str = ""
    """Name of the order and equality of texts that the table declares; empty: that of their bytes."""

    @classmethod
    def named(cls, name: str) -> "TableColumn":
        """Return a column of which only the name is known: its type is that of the file."""
        return cls(name, name, None, "", None)


def table_columns(schema: Mapping[str, Any], *, is_mapped_by_id: bool = False) -> dict[str, TableColumn]:
    """Return the columns of Delta's own schema by name, in order; empty for an empty schema.

    Args:
        schema: Delta's schema as parsed JSON.
        is_mapped_by_id: the table's delta.columnMapping.mode is "id".
    """
    columns = {}
    for field in schema.get("fields", ()):
        about = field.get("metadata", {})
        text = about.get(_CHAR_OR_VARCHAR, "") if field["type"] == "string" else ""
        char = _CHAR.fullmatch(text)
        columns[field["name"]] = TableColumn(
            name=field["name"],
            physical=about.get("delta.columnMapping.physicalName", field["name"]),
            field_id=about.get("delta.columnMapping.id") if is_mapped_by_id else None,
            declared=text or _spelled(field["type"]),
            type=arrow_type(field["type"]),
            char_length=int(char[1]) if char else None,
            collation=about.get("__COLLATIONS", {}).get(field["name"], ""),
        )
    return columns


def arrow_type(declared: Any) -> pa.DataType | None:
    """Return the Arrow type of a Delta type, None for structs, maps and what else is no number, text or list of such."""
    if isinstance(declared, str):
        decimal = _DECIMAL.fullmatch(declared)
        if decimal:
            return pa.decimal128(int(decimal[1]), int(decimal[2]))
        return _PRIMITIVES.get(declared)
    if declared.get("type") == "array":
        element = arrow_type(declared["elementType"])
        return None if element is None else pa.list_(element)
    return None


def _spelled(declared: Any) -> str:
    if isinstance(declared, str):
        return declared
    if declared.get("type") == "array":
        return f"array<{_spelled(declared['elementType'])}>"
    return str(declared.get("type"))
