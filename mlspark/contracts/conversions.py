"""Rows in memory in a contract's types, with which values do not survive: as Spark's casts and the contract's rules say.

Typed values are converted where they stay what they are, see `column_types.CASTS`: 39.0 is the whole number 39 and 39.5 is
none, true is 1, and 1 is true. A float of 2^53 (of single precision: 2^24) or more is no whole number or decimal: its last
digits may be lost already. Dates, times and decimals may be text, and bytes base64, as JSON has no other way. Runs anywhere.
"""

import base64
import re
from collections.abc import Callable, Sequence
from datetime import date, datetime
from decimal import ROUND_HALF_UP, Context, Decimal, InvalidOperation
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import compute as pc

from mlspark.contracts import bounds, column_types

_FROM_TEXT = ("date", "timestamp", "decimal", "binary")
_BASE64 = re.compile(r"[A-Za-z0-9+/]*={0,2}")
_CONTEXT = Context(prec=400, rounding=ROUND_HALF_UP, Emax=999999, Emin=-999999)
_SINGLE = pa.float32()
_MICROS_PER_DAY = 86_400_000_000
_NANOS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}


def is_converted(arrow: pa.DataType, name: str) -> bool:
    """Return whether columns of an Arrow type are converted to a contract's, value by value."""
    if pa.types.is_null(arrow):
        return True
    if column_types.is_text(arrow):
        return column_types.family(name) in ("string", *_FROM_TEXT)
    return column_types.is_cast(column_types.spark_type(arrow), name)


def convert(values: pa.Array, name: str) -> pa.Array:
    """Return the values in a contract's type; null where they are, or where they do not survive.

    Dates and times beyond the years 1 to 9999 survive here; arrays with missing elements, too.

    Args:
        values: of a type that `is_converted`.
        name: the contract's type.
    """
    wanted = column_types.arrow_type(name)
    if values.type == wanted:
        return values
    if pa.types.is_null(values.type):
        return pa.nulls(len(values), wanted)
    family = column_types.family(name)
    if family == "string":
        return values.cast(wanted)
    if family == "array":
        return _array(values, wanted)
    if family == "binary":
        return _by_value(values, wanted, _bytes) if column_types.is_text(values.type) else values.cast(wanted)
    if family == "date":
        return _by_value(values, wanted, _date) if column_types.is_text(values.type) else _dates(values)
    if family == "timestamp":
        return _by_value(values, wanted, _time) if column_types.is_text(values.type) else _times(values)
    if family == "decimal" or pa.types.is_decimal(values.type):
        return _exactly(values, name)
    return _numbers(values, wanted)


def _numbers(values: pa.Array, wanted: pa.DataType) -> pa.Array:
    """Convert whole numbers, floats and booleans among one another."""
    is_missing = np.asarray(pc.is_null(values).to_numpy(zero_copy_only=False))
    plain = pc.fill_null(values, pa.scalar(0).cast(values.type)).to_numpy(zero_copy_only=False)
    if pa.types.is_boolean(wanted):
        survives = (plain == 0) | (plain == 1)
        converted = plain == 1
    elif pa.types.is_floating(wanted):
        survives, converted = _floats(plain, wanted)
    else:
        survives, converted = _whole(plain, np.iinfo(wanted.to_pandas_dtype()))
    return pa.array(converted, wanted, mask=is_missing | ~survives)


def _whole(plain: NDArray[Any], limits: "np.iinfo[Any]") -> tuple[NDArray[np.bool_], NDArray[Any]]:
    if plain.dtype.kind == "f":
        most = 2.0**24 if plain.dtype == np.float32 else 2.0**53
        survives = (np.abs(plain) < most) & (np.trunc(plain) == plain)
        plain = np.where(survives, plain, 0).astype(np.int64)
    else:
        survives = np.ones(len(plain), np.bool_)
        plain = plain.astype(np.uint64 if plain.dtype == np.uint64 else np.int64)
    survives &= (plain >= limits.min) & (plain <= limits.max) if plain.dtype != np.uint64 else plain <= limits.max
    return survives, np.where(survives, plain, 0).astype(limits.dtype)


def _floats(plain: NDArray[Any], wanted: pa.DataType) -> tuple[NDArray[np.bool_], NDArray[Any]]:
    with np.errstate(over="ignore"):  # 1e300 is infinite in single precision, which `finite` refuses
        converted: NDArray[np.floating[Any]] = plain.astype(np.float32 if wanted == _SINGLE else np.float64)
    if wanted == _SINGLE or plain.dtype.kind != "i":
        return np.ones(len(plain), np.bool_), converted
    # 2^63 itself is no bigint.
    is_inside = converted < 2.0**63
    return is_inside & (np.where(is_inside, converted, 0).astype(np.int64) == plain), converted


def _exactly(values: pa.Array, name: str) -> pa.Array:
    """Convert to or from decimals, through exact arithmetic."""
    wanted = column_types.arrow_type(name)
    if name == "boolean":
        return _by_value(values, wanted, lambda value: {0: False, 1: True}.get(value))
    if name == "float":
        return _by_value(values, wanted, lambda value: np.float32(float(value)))
    if name == "double":
        scale = values.type.scale
        return _by_value(values, wanted, lambda value: _double(value, scale))
    if name in column_types.WHOLE_BITS:
        least, greatest = (int(limit) for limit in bounds.limits(name))
        return _by_value(
            values, wanted, lambda value: int(value) if least <= value <= greatest and value == int(value) else None
        )
    digits, scale = column_types.decimal_digits(name)
    is_single = values.type == _SINGLE
    return _by_value(values, wanted, lambda value: _decimal(value, digits, scale, is_single=is_single))


def _double(value: Decimal, scale: int) -> float | None:
    converted = float(value)
    return converted if _rounded(Decimal(repr(converted)), scale) == value else None


def _rounded(value: Decimal, scale: int) -> Decimal:
    return value.quantize(Decimal((0, (1,), -scale)), context=_CONTEXT)


def _decimal(value: Any, digits: int, scale: int, *, is_single: bool) -> Decimal | None:
    if isinstance(value, float):
        if not abs(value) < (2.0**24 if is_single else 2.0**53):
            return None
        rounded = _rounded(Decimal(repr(value)), scale)
        is_same = np.float32(float(rounded)) == np.float32(value) if is_single else float(rounded) == value
    else:
        if isinstance(value, str) and not re.fullmatch(
            r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?\s*", value, re.ASCII
        ):
            return None
        try:
            written = Decimal(
                value.strip() if isinstance(value, str) else int(value) if isinstance(value, bool) else value
            )
            rounded = _rounded(written, scale)
        except InvalidOperation:
            return None
        is_same = rounded == written
    return rounded if is_same and len(rounded.as_tuple().digits) <= digits else None


def _bytes(text: str) -> bytes | None:
    return base64.b64decode(text) if len(text) % 4 == 0 and _BASE64.fullmatch(text) else None


def _date(text: str) -> date | None:
    try:
        return bounds.parse_date(text.strip())
    except ValueError:
        return None


def _time(text: str) -> datetime | None:
    try:
        return bounds.parse_timestamp(text.strip())
    except ValueError:
        return None


def _dates(values: pa.Array) -> pa.Array:
    """Convert times that are midnight (UTC), and dates of other units."""
    units = _units(values)
    if pa.types.is_date32(values.type):
        return values
    per_day = 86_400_000 if pa.types.is_date64(values.type) else _MICROS_PER_DAY * 1000 // _NANOS[values.type.unit]
    days = units // per_day
    return _of_units(days, (days * per_day == units) & _fits(days, np.int32), values, pa.int32(), pa.date32())


def _times(values: pa.Array) -> pa.Array:
    """Convert dates, and times of other units; digits below a microsecond do not survive."""
    units = _units(values)
    wanted = pa.timestamp("us", "UTC")
    if pa.types.is_timestamp(values.type) and _NANOS[values.type.unit] <= 1000:
        per_micro = 1000 // _NANOS[values.type.unit]
        micros = units // per_micro
        return _of_units(micros, micros * per_micro == units, values, pa.int64(), wanted)
    if pa.types.is_timestamp(values.type):
        factor = _NANOS[values.type.unit] // 1000
    else:
        factor = 1000 if pa.types.is_date64(values.type) else _MICROS_PER_DAY
    fits = np.abs(units) <= np.iinfo(np.int64).max // factor
    return _of_units(np.where(fits, units, 0) * factor, fits, values, pa.int64(), wanted)


def _units(values: pa.Array) -> NDArray[np.int64]:
    whole = pa.int32() if pa.types.is_date32(values.type) else pa.int64()
    return np.asarray(pc.fill_null(values.view(whole), 0).to_numpy(zero_copy_only=False)).astype(np.int64)


def _fits(numbers: NDArray[np.int64], kind: type[np.int32]) -> NDArray[np.bool_]:
    limits = np.iinfo(kind)
    return (numbers >= limits.min) & (numbers <= limits.max)


def _of_units(
    units: NDArray[np.int64], survives: NDArray[np.bool_], values: pa.Array, whole: pa.DataType, wanted: pa.DataType
) -> pa.Array:
    is_missing = np.asarray(pc.is_null(values).to_numpy(zero_copy_only=False)) | ~survives
    return pa.array(np.where(is_missing, 0, units), whole, mask=is_missing).view(wanted)


def _array(values: pa.Array, wanted: pa.DataType) -> pa.Array:
    """Convert elements; a row with one that does not survive becomes missing."""
    if values.offset:  # a part of a longer array
        values = values.take(pa.array(range(len(values))))
    elements = values.cast(pa.large_list(values.type.value_type))
    name = "float" if wanted.value_type == _SINGLE else "double"
    converted = convert(elements.values, name)
    is_lost = pc.and_(pc.is_valid(elements.values), pc.is_null(converted))
    rows = pc.list_parent_indices(pa.LargeListArray.from_arrays(elements.offsets, is_lost)) if len(elements) else None
    lists = pa.LargeListArray.from_arrays(elements.offsets, converted, mask=pc.is_null(elements)).cast(wanted)
    if rows is None or not pc.any(is_lost).as_py():
        return lists
    bad = np.zeros(len(lists), np.bool_)
    first = elements.offsets[0].as_py()
    bad[rows.to_numpy()[is_lost.slice(first, len(rows)).to_numpy(zero_copy_only=False)]] = True
    return pc.if_else(pa.array(~bad), lists, pa.scalar(None, wanted))


def _by_value(values: pa.Array, wanted: pa.DataType, change: Callable[[Any], Any]) -> pa.Array:
    changed: Sequence[Any] = [None if value is None else change(value) for value in values.to_pylist()]
    return pa.array(changed, wanted)
