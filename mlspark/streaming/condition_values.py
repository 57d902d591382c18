"""Values of conditions in the type of the column that they are compared with: exactly, or refused with what to give."""

import datetime as dt
import math
import sys
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa

from mlspark.errors import DatasetError
from mlspark.streaming.schema import TableColumn

_EPOCH = dt.datetime(1970, 1, 1)
_NULL = "null satisfies no condition; give a value, or leave the condition out"
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


@dataclass(frozen=True)
class Point:
    """A value on the axis of a column's type: the greatest of the type that is not above what was given."""

    value: pa.Scalar | None
    """In the type of `comparable`; None: what was given is below all values of the type."""
    is_exact: bool = True
    """Whether it is what was given; False: 2.5 lies between two whole numbers, 300 above all bytes."""
    is_nan: bool = False


def is_comparable(column: TableColumn) -> bool:
    """Return whether values of the column have an order that is Spark's."""
    kind, types = column.type, pa.types
    if kind is None or column.collation:
        return False
    is_number = types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind) or types.is_boolean(kind)
    return bool(is_number or types.is_date(kind) or types.is_timestamp(kind) or _is_text(kind) or _is_bytes(kind))


def comparable(array: pa.Array) -> pa.Array:
    """Return values as what Arrow compares as Spark does: whole numbers for times, bytes for texts."""
    kind, types = array.type, pa.types
    if types.is_boolean(kind):
        return array.cast(pa.int8())
    if types.is_date(kind):
        return array.cast(pa.date32()).cast(pa.int32())
    if types.is_timestamp(kind):
        return array.cast(pa.int64())
    if _is_text(kind) or _is_bytes(kind):
        return array.cast(pa.large_string() if _is_text(kind) else pa.large_binary()).cast(pa.large_binary())
    return array


def point(value: Any, column: TableColumn) -> Point:
    """Return what a condition's value is to a column for which `is_comparable`.

    Numbers are compared with whole numbers and decimals exactly, whatever they are written as; with floats as the nearest
    float. A timestamp without a zone is in UTC; texts in ISO form stand for dates and timestamps.

    Raises:
        DatasetError: it is no value that can be compared with the column's; says what to give.
    """
    kind, types = column.type, pa.types
    assert kind is not None
    if isinstance(value, pa.Scalar):
        value = value.as_py()
    if isinstance(value, np.generic) and not isinstance(value, np.datetime64):
        value = value.item()
    if value is None:
        raise DatasetError(_NULL)
    if types.is_date(kind) or types.is_timestamp(kind):
        return _moment(value, kind, column)
    if types.is_boolean(kind):
        if isinstance(value, bool):
            return Point(pa.scalar(int(value), pa.int8()))
        raise _unlike(value, column, "True or False")
    if _is_text(kind):
        if isinstance(value, str):
            return Point(pa.scalar(value.ljust(column.char_length or 0).encode(), pa.large_binary()))
        raise _unlike(value, column, "a text")
    if _is_bytes(kind):
        if isinstance(value, bytes | bytearray | memoryview):
            return Point(pa.scalar(bytes(value), pa.large_binary()))
        raise _unlike(value, column, "bytes")
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal | Fraction):
        raise _unlike(value, column, "a number")
    return _number(value, kind)


def _unlike(value: Any, column: TableColumn, wanted: str) -> DatasetError:
    return DatasetError(
        f"column {column.name} is {column.declared}, but {value!r} is a {type(value).__name__}; give {wanted}"
    )


def _number(value: float | Decimal | Fraction, kind: pa.DataType) -> Point:
    is_finite = isinstance(value, int | Fraction) or math.isfinite(value)
    if pa.types.is_floating(kind):
        return _float(value, kind, is_finite)
    is_decimal = pa.types.is_decimal(kind)
    if is_decimal:
        least, most = -(10**kind.precision) + 1, 10**kind.precision - 1
    else:
        bits, is_signed = kind.bit_width, pa.types.is_signed_integer(kind)
        least, most = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if is_signed else (0, 2**bits - 1)
    if is_finite:
        # Through its text: 0.1 means one tenth, not the double next to it.
        exact = (Fraction(str(value)) if isinstance(value, float) else Fraction(value)) * (
            10**kind.scale if is_decimal else 1
        )
        units = math.floor(exact)
        is_exact = units == exact and units <= most
    else:
        units, is_exact = (least - 1 if value < 0 else most + 1), False
    if units < least:
        return Point(None, is_exact=False)
    units = min(units, most)
    if not is_decimal:
        return Point(pa.scalar(units, kind), is_exact)
    digits = tuple(map(int, str(abs(units))))
    return Point(pa.scalar(Decimal((int(units < 0), digits, -kind.scale)), kind), is_exact)


def _float(value: float | Decimal | Fraction, kind: pa.DataType, is_finite: bool) -> Point:
    dtype = kind.to_pandas_dtype()
    if not is_finite:
        return Point(pa.scalar(dtype(float(value)), kind), is_nan=math.isnan(value))
    most = float(np.finfo(dtype).max)
    if -sys.float_info.max <= value <= sys.float_info.max:
        with np.errstate(over="ignore"):
            nearest = dtype(float(value))
        if np.isfinite(nearest):
            return Point(pa.scalar(nearest, kind))
    return Point(pa.scalar(dtype(most if value > 0 else -math.inf), kind), is_exact=False)


def _moment(value: Any, kind: pa.DataType, column: TableColumn) -> Point:
    """Return a date or timestamp as days, or as units of the timestamp."""
    is_date = pa.types.is_date(kind)
    wanted = (
        "a date such as datetime.date(2024, 1, 31) or '2024-01-31'"
        if is_date
        else "a time such as datetime.datetime(2024, 1, 31, 12, 0) or '2024-01-31 12:00:00'"
    )
    nanoseconds = _nanoseconds(value, column, wanted, takes_zone=not is_date and kind.tz is not None)
    step = 86_400 * 10**9 if is_date else 10**9 // _PER_SECOND[kind.unit]
    units, rest = divmod(nanoseconds, step)
    bits = 32 if is_date else 64
    if units < -(2 ** (bits - 1)):
        return Point(None, is_exact=False)
    most = 2 ** (bits - 1) - 1
    return Point(pa.scalar(min(units, most), pa.int32() if is_date else pa.int64()), rest == 0 and units <= most)


def _nanoseconds(value: Any, column: TableColumn, wanted: str, *, takes_zone: bool) -> int:
    """Return nanoseconds since 1970-01-01, of UTC where the column has a zone."""
    if isinstance(value, np.datetime64):
        return _nanoseconds_of_numpy(value)
    if isinstance(value, str):
        try:
            value = dt.datetime.fromisoformat(value)
        except ValueError:
            raise _unlike(value, column, wanted) from None
    if isinstance(value, dt.date) and not isinstance(value, dt.datetime):
        value = dt.datetime.combine(value, dt.time())
    if not isinstance(value, dt.datetime):
        raise _unlike(value, column, wanted)
    if value != value:  # NaT of pandas
        raise DatasetError(_NULL)
    if value.tzinfo is not None and not takes_zone:
        raise DatasetError(
            f"column {column.name} is {column.declared}, which has no zone, but {value!r} has one; "
            f"give {wanted}, without a zone"
        )
    epoch = _EPOCH if value.tzinfo is None else _EPOCH.replace(tzinfo=dt.UTC)
    return (value - epoch) // dt.timedelta(microseconds=1) * 1000 + int(getattr(value, "nanosecond", 0))


def _nanoseconds_of_numpy(value: np.datetime64) -> int:
    if np.isnat(value):
        raise DatasetError(_NULL)
    unit, count = np.datetime_data(value.dtype)
    if unit in ("Y", "M", "W"):
        value, unit, count = value.astype("datetime64[D]"), "D", 1
    whole = int(value.astype(np.int64)) * count
    seconds = {"D": 86_400, "h": 3_600, "m": 60}.get(unit)
    return whole * seconds * 10**9 if seconds is not None else whole * 10**9 // _PER_SECOND[unit]


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind))
