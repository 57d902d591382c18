"""Types of a contract's columns: their names, their families, their Arrow types. Runs anywhere."""

import difflib
import re
from typing import Literal

import pyarrow as pa

Family = Literal["whole", "decimal", "floating", "boolean", "string", "date", "timestamp", "array", "binary"]

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
    "binary": pa.binary(),
    "array<float>": pa.list_(pa.float32()),
    "array<double>": pa.list_(pa.float64()),
}
WHOLE_BITS = {"tinyint": 8, "smallint": 16, "int": 32, "bigint": 64}
NAMES = (*_ARROW_TYPES, "decimal(P,S)")
_OTHER_NAMES = {
    "integer": "int", "int32": "int", "int16": "smallint", "short": "smallint", "tinyint": "smallint", "byte": "smallint",
    "int8": "smallint", "long": "bigint", "int64": "bigint", "real": "float", "float32": "float", "float64": "double",
    "number": "double", "str": "string", "text": "string", "varchar": "string", "char": "string", "bool": "boolean",
    "datetime": "timestamp", "timestamp_ntz": "timestamp", "time": "timestamp", "decimal": "decimal(10,2)",
    "numeric": "decimal(10,2)", "array": "array<double>", "vector": "array<double>",
    "bytes": "binary", "blob": "binary", "bytea": "binary", "varbinary": "binary", "image": "binary", "picture": "binary",
}  # fmt: skip
_DECIMAL = re.compile(r"decimal\((\d{1,2}),(\d{1,2})\)")
_MAX_DIGITS = 38

CASTS: dict[Family, tuple[Family, ...]] = {
    "whole": ("decimal", "floating", "boolean"),
    "decimal": ("whole", "floating", "boolean"),
    "floating": ("whole", "decimal", "boolean"),
    "boolean": ("whole", "decimal", "floating"),
    "string": (),
    "date": ("timestamp",),
    "timestamp": ("date",),
    "array": (),
    "binary": (),
}
"""Family of a contract's type -> other families whose typed values are cast to it, where the value survives.

Text is no typed value: sources of text parse it, for every type, bytes as base64. A text column takes what Spark writes as
text from a batch source, and nothing but text from rows in memory.
"""


def known(name: str) -> str:
    """Return the name of a type.

    Raises:
        ValueError: the name is not a type; lists the types, and says which one may be meant.
    """
    if name in _ARROW_TYPES:
        return name
    if decimal := _DECIMAL.fullmatch(name):
        digits, scale = int(decimal[1]), int(decimal[2])
        if not (1 <= digits <= _MAX_DIGITS and scale <= digits):
            raise ValueError(f"{name}: a decimal has 1 to {_MAX_DIGITS} digits, and no more of them after the point")
        return name
    plain = name.lower().replace(" ", "")
    meant = plain if plain in _ARROW_TYPES or _DECIMAL.fullmatch(plain) else _OTHER_NAMES.get(plain.split("(")[0])
    if meant is None:
        meant = next(iter(difflib.get_close_matches(plain, _ARROW_TYPES, n=1)), None)
    hint = f", did you mean {meant}?" if meant else ""
    raise ValueError(f"{name!r} is not a type of a column{hint} Types are {', '.join(NAMES)}")


def family(name: str) -> Family | None:
    """Return the family of a Spark type, one of a source's among them; None where a contract has none for it."""
    if name in WHOLE_BITS:
        return "whole"
    if name.startswith("decimal"):
        return "decimal"
    if name in ("float", "double"):
        return "floating"
    if name.startswith(("string", "char", "varchar")):
        return "string"
    if name == "timestamp_ntz":
        return "timestamp"
    if name in ("boolean", "date", "timestamp", "binary"):
        return name  # type: ignore[return-value]  # just compared
    if name.startswith("array<") and family(name[len("array<") : -1]) in ("whole", "decimal", "floating"):
        return "array"
    return None


def is_cast(source_type: str, name: str) -> bool:
    """Return whether typed values of a source are cast to the type `name`, where they survive it."""
    of_source, wanted = family(source_type), family(name)
    assert wanted is not None, name
    return of_source is not None and (of_source == wanted or of_source in CASTS[wanted])


def decimal_digits(name: str) -> tuple[int, int]:
    """Return (digits, digits after the point) of a decimal type, or of a whole number's."""
    if name in WHOLE_BITS:
        return len(str(2 ** (WHOLE_BITS[name] - 1))), 0
    digits, scale = name[len("decimal(") : -1].split(",")
    return int(digits), int(scale)


def arrow_type(name: str) -> pa.DataType:
    """Return the Arrow type of a contract's."""
    if name.startswith("decimal"):
        return pa.decimal128(*decimal_digits(name))
    return _ARROW_TYPES[name]


def spark_type(arrow: pa.DataType) -> str:
    """Return the Spark type of rows in memory, as a source's columns are named; Arrow's own name where Spark has none."""
    for name, kind in (*_ARROW_TYPES.items(), ("tinyint", pa.int8())):
        if arrow == kind:
            return name
    if pa.types.is_decimal(arrow):
        return f"decimal({arrow.precision},{arrow.scale})"
    if pa.types.is_timestamp(arrow):
        return "timestamp"
    if pa.types.is_date(arrow):
        return "date"
    if is_text(arrow):
        return "string"
    if is_bytes(arrow):
        return "binary"
    if pa.types.is_list(arrow) or pa.types.is_large_list(arrow) or pa.types.is_fixed_size_list(arrow):
        return f"array<{spark_type(arrow.value_type)}>"
    return str(arrow)


def is_text(arrow: pa.DataType) -> bool:
    """Return whether it is one of Arrow's types of text."""
    return bool(pa.types.is_string(arrow) or pa.types.is_large_string(arrow) or pa.types.is_string_view(arrow))


def is_bytes(arrow: pa.DataType) -> bool:
    """Return whether it is one of Arrow's types of bytes."""
    kinds = pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary, pa.types.is_binary_view
    return any(is_kind(arrow) for is_kind in kinds)
