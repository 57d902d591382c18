"""Values of a Parquet file in the types of the table, bit for bit as Spark reads them, or refused by column and type."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from pyarrow import compute as pc

from mlspark.errors import DatasetError
from mlspark.streaming.calendars import Calendar
from mlspark.streaming.schema import TableColumn

_MOST_BYTES_OF_STRING = 2**31 - 1  # with 32-bit offsets


@dataclass(frozen=True)
class Stored:
    """What the footer says of how a column is stored, beyond its Arrow type."""

    calendar: Calendar
    is_int96: bool

    def has_another_calendar(self, kind: pa.DataType) -> bool:
        """Return whether values of this type may be other ones once they are read."""
        is_old = self.calendar.is_int96_old if self.is_int96 else self.calendar.is_old
        return is_old and bool(pa.types.is_date(kind) or pa.types.is_timestamp(kind))


def as_declared(values: pa.ChunkedArray, column: TableColumn, stored: Stored) -> pa.ChunkedArray:
    """Return a column of a file in the table's type: the file may be older than a widening of it, or of another writer.

    Texts may keep 64-bit offsets where they need them.

    Raises:
        DatasetError: the file's type is none that Spark reads as the table's, or a value does not fit.
    """
    declared = column.type
    is_plain = column.char_length is None and not stored.has_another_calendar(_element(values.type))
    if declared is None or (values.type == declared and is_plain):
        return values
    try:
        chunks = [_converted(chunk, declared, column, stored) for chunk in values.chunks]
    except pa.ArrowException as error:
        raise DatasetError(
            f"column {column.name}: a {values.type} of this file is no {column.declared} of the table: {error}"
        ) from error
    return pa.chunked_array(chunks) if chunks else pa.chunked_array([], declared)


def _converted(array: pa.Array, declared: pa.DataType, column: TableColumn, stored: Stored) -> pa.Array:
    """Return values in the type of the table, or of a list's elements."""
    types = pa.types
    if types.is_dictionary(array.type):
        array = array.dictionary_decode()
    kind = array.type
    if types.is_null(kind):
        return pa.nulls(len(array), declared)
    if types.is_list(declared):
        return _list(array, declared, column, stored)
    if types.is_string(declared) or types.is_binary(declared):
        return _text(array, declared, column)
    if kind != declared and not _is_read_as(kind, declared):
        raise _unlike(kind, column)
    if types.is_date(kind):
        array = stored.calendar.dates(array.cast(pa.date32()))
    elif types.is_timestamp(kind) and kind.tz is None and declared.tz is not None:
        array = array.cast(pa.timestamp(kind.unit, declared.tz))  # INT96, and what says no zone: UTC, as for Spark
    array = array.cast(declared)
    if types.is_timestamp(kind) and declared.tz is not None:  # those without a zone are younger than Spark 2
        array = stored.calendar.times(array, column.name, is_int96=stored.is_int96)
    return array


def _is_read_as(kind: pa.DataType, declared: pa.DataType) -> bool:
    """Return whether a number or time of a file becomes one of the table, if it fits."""
    types = pa.types
    if types.is_timestamp(declared):
        if types.is_date(kind):
            return declared.tz is None
        return bool(types.is_timestamp(kind) and (kind.tz is None or declared.tz is not None))
    if types.is_date(declared):
        return bool(types.is_date(kind))
    if types.is_integer(declared):
        return bool(types.is_integer(kind))
    if types.is_decimal(declared):
        return bool(types.is_integer(kind) or types.is_decimal(kind))
    if types.is_floating(declared):
        return bool(types.is_integer(kind) or (types.is_floating(kind) and kind.bit_width < declared.bit_width))
    return False


def _text(array: pa.Array, declared: pa.DataType, column: TableColumn) -> pa.Array:
    """Return texts or bytes with as few kinds of offsets as their length allows."""
    types = pa.types
    kind = array.type
    if types.is_fixed_size_binary(kind):
        array = array.cast(pa.binary())
    elif types.is_string_view(kind) or types.is_binary_view(kind):
        array = array.cast(pa.large_string() if types.is_string_view(kind) else pa.large_binary())
    elif not any(
        check(kind) for check in (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary)
    ):
        raise _unlike(kind, column)
    is_large = types.is_large_string(array.type) or types.is_large_binary(array.type)
    if types.is_string(declared):
        wanted = pa.large_string() if is_large and array.nbytes > _MOST_BYTES_OF_STRING else pa.string()
    else:
        wanted = pa.large_binary() if is_large and array.nbytes > _MOST_BYTES_OF_STRING else pa.binary()
    if array.type != wanted:
        array = array.cast(wanted, safe=False)  # Spark does not ask whether bytes are UTF-8 either
    return array if column.char_length is None else pc.utf8_rpad(array, column.char_length, padding=" ")


def _list(array: pa.Array, declared: pa.DataType, column: TableColumn, stored: Stored) -> pa.Array:
    """Return lists of the table's elements, whatever kind of list the file has; what stands under a null is dropped."""
    types = pa.types
    checks = (
        types.is_list,
        types.is_large_list,
        types.is_fixed_size_list,
        types.is_list_view,
        types.is_large_list_view,
    )
    if not any(check(array.type) for check in checks):
        raise _unlike(array.type, column)
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy()
    offsets = np.zeros(len(array) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    elements = _converted(array.flatten(), declared.value_type, column, stored)
    mask = array.is_null() if array.null_count else None
    if offsets[-1] > np.iinfo(np.int32).max:
        return pa.LargeListArray.from_arrays(pa.array(offsets), elements, mask=mask)
    return pa.ListArray.from_arrays(
        pa.array(offsets.astype(np.int32)), elements, type=pa.list_(elements.type), mask=mask
    )


def _element(kind: pa.DataType) -> pa.DataType:
    types = pa.types
    is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    return kind.value_type if is_list else kind


def _unlike(kind: pa.DataType, column: TableColumn) -> DatasetError:
    return DatasetError(
        f"column {column.name} is {column.declared} in the table but {kind} in this file, which Spark does not read as such "
        f"either; rewrite the file with the table's type, or leave the column out"
    )
