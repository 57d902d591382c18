"""The columns of a table in one Parquet file: where they stand, their values as Spark reads them, what statistics say."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pyarrow as pa
from pyarrow import parquet as pq

from mlspark import storage
from mlspark.errors import DatasetError
from mlspark.streaming.calendars import Calendar
from mlspark.streaming.decoded_memory import decoded_memory
from mlspark.streaming.filters import ValueRange
from mlspark.streaming.schema import TableColumn
from mlspark.streaming.stored_values import Stored, as_declared

_BYTES_AT_ONCE = 2**20  # of the columns of a local file's row group, about
_GONE = (
    "this file of the table is not there any more; VACUUM removes files of old versions, which such a version and a stream "
    "begun before then lack: open a newer version, or have files kept longer (delta.deletedFileRetentionDuration)"
)


def open_file(uri: str, source: pa.NativeFile | None = None, footer: pq.FileMetaData | None = None) -> pq.ParquetFile:
    """Return the open Parquet file, its footer read.

    Args:
        uri: of the file.
        source: what `open_source` returned of a remote file; None: it is opened.
        footer: the file's footer where it is known; None: it is read.

    Raises:
        DatasetError: it is not there.
        Exception: whatever the store's client, or Arrow for a damaged footer, raises.
    """
    is_local = storage.is_local(uri)
    options = {
        "pre_buffer": not is_local,  # one request for neighbouring columns, where a request takes long
        "coerce_int96_timestamp_unit": "us",
    }
    try:
        if source is None:
            # Not mapped, though it saves 5 ns a row: mapped pages count as this process's memory, so that it seems to grow
            # with the table.
            source = pa.OSFile(storage.local_path(uri)) if is_local else open_source(uri)
        file = pq.ParquetFile(source, metadata=footer, **options)
    except FileNotFoundError:
        raise DatasetError(f"{uri}: {_GONE}") from None
    if is_local:
        file.reader = pq.ParquetReader(decoded_memory())  # which ParquetFile has no argument for
        file.reader.open(source, metadata=file.metadata, **options)
    return file


def open_source(uri: str) -> pa.NativeFile:
    """Return a file, open for reading; raises DatasetError where it is not there, else what the store's client raises."""
    filesystem, path = storage.filesystem(uri)
    try:
        return filesystem.open_input_file(path)
    except FileNotFoundError:
        raise DatasetError(f"{uri}: {_GONE}") from None


@dataclass(frozen=True)
class _Place:
    """Where a column of the table stands in the file."""

    field: str
    """Name of the field at the top of the file's schema."""
    leaves: tuple[int, ...]
    """Numbers of the Parquet columns that it consists of."""
    stored: Stored


class FileColumns:
    """Some columns of a table in one open file."""

    def __init__(self, file: pq.ParquetFile, columns: Sequence[TableColumn], *, is_local: bool = False) -> None:
        """Find the columns.

        Args:
            file: the open file.
            columns: columns of the table, partition columns aside; one of which only the name is known must be there.
            is_local: whether requests cost little, so that a row group is read by some columns at a time.

        Raises:
            DatasetError: the file has a column twice, not at all although its type is not known, or has no ids where the
                table's columns are matched by id.
        """
        self.file, self._columns, self._is_local = file, tuple(columns), is_local
        schema: pa.Schema = file.schema_arrow
        calendar, parquet = Calendar.of(file.metadata), file.schema
        tops: dict[str, list[int]] = {}
        for leaf, path in enumerate(file.reader.column_paths):
            tops.setdefault(path[0], []).append(leaf)
        self._places: dict[str, _Place] = {}
        for column in self._columns:
            name = _name_in_file(column, schema)
            if name is not None:
                is_int96 = parquet.column(tops[name][0]).physical_type == "INT96"
                self._places[column.name] = _Place(name, tuple(tops[name]), Stored(calendar, is_int96))
            elif column.type is None:
                raise DatasetError(f"no column {column.name}; there are {', '.join(schema.names)}")

    def only(self, names: Iterable[str]) -> "FileColumns":
        """Return some of the columns in the same open file."""
        wanted = set(names)
        columns = [column for column in self._columns if column.name in wanted]
        return FileColumns(self.file, columns, is_local=self._is_local)

    def read(self, number: int) -> pa.Table:
        """Return the columns in a row group, in the table's types and as Spark reads them; null where the file lacks one.

        Raises:
            DatasetError: a column has another type than the table, and not one that Spark reads as the table's.
        """
        try:
            columns = self._decoded(number)
        except pa.ArrowInvalid:
            self._refuse_null_lists(number)
            raise
        finally:
            if not self._is_local:
                # What the row group was decoded from stays in memory until the next is read, of each open file.
                self.file.reader.read_row_groups([], column_indices=[], use_threads=False)
        num_rows = self.file.metadata.row_group(number).num_rows  # also when no column is in the file
        arrays = {}
        for column in self._columns:
            place = self._places.get(column.name)
            if place is None:  # written before the column was added: null, as for Spark
                arrays[column.name] = pa.chunked_array([pa.nulls(num_rows, column.type)])
            else:
                arrays[column.name] = as_declared(columns[place.field], column, place.stored)
        return pa.table(arrays) if arrays else pa.table({"": pa.nulls(num_rows)}).select([])

    def _decoded(self, number: int) -> dict[str, pa.ChunkedArray]:
        """Return the file's fields in a row group.

        Of a local file some at a time: until all are there, Arrow keeps what each was decoded from, twice as much as it.
        """
        group = self.file.metadata.row_group(number)
        places = sorted(set(self._places.values()), key=lambda place: place.leaves)
        at_once = max(1, len(places))
        if self._is_local:
            at_once = max(1, group.num_columns * _BYTES_AT_ONCE // max(1, group.total_byte_size))
        columns: dict[str, pa.ChunkedArray] = {}
        for first in range(0, len(places), at_once):
            leaves = [leaf for place in places[first : first + at_once] for leaf in place.leaves]
            rows = self.file.reader.read_row_group(number, column_indices=leaves, use_threads=False)
            columns.update(zip(rows.column_names, rows.columns, strict=True))
        return columns

    def _refuse_null_lists(self, number: int) -> None:
        """Raise DatasetError where a row group has null lists of a fixed length; names their column."""
        for name, place in self._places.items():
            if not pa.types.is_fixed_size_list(self.file.schema_arrow.field(place.field).type):
                continue
            try:
                self.file.reader.read_row_group(number, column_indices=list(place.leaves), use_threads=False)
            except pa.ArrowInvalid as error:
                raise DatasetError(
                    f"column {name} holds a null list of a fixed length, which Arrow does not read ({error}); write the "
                    f"column as lists of any length, or leave it out"
                ) from error

    def values_within(self, column: TableColumn, number: int) -> ValueRange | None:
        """Return what a row group's statistics soundly say of a column that is no list; None: nothing.

        They say nothing of a row group of NaN, of texts that are padded when they are read, or of times in another calendar.
        A column of nulls only has a range without values.
        """
        group = self.file.metadata.row_group(number)
        place = self._places.get(column.name)
        if place is None:
            return ValueRange(None)
        chunk = group.column(place.leaves[0])
        statistics = chunk.statistics
        if statistics is None:
            return None
        if statistics.has_null_count and statistics.null_count == group.num_rows:
            return ValueRange(None)
        kind = self.file.schema_arrow.field(place.field).type
        if not statistics.has_min_max or column.char_length is not None or place.stored.has_another_calendar(kind):
            return None
        bounds = _as_stored((statistics.min_raw, statistics.max_raw), kind, chunk.physical_type)
        if bounds is None:
            return None
        declared = as_declared(pa.chunked_array([bounds]), column, place.stored).combine_chunks()
        has_nulls = not statistics.has_null_count or statistics.null_count > 0
        return ValueRange(declared, has_nulls, is_exact=not _is_text(declared.type))


def _as_stored(bounds: tuple[Any, Any], kind: pa.DataType, physical: str) -> pa.Array | None:
    """Return a column's bounds in its Arrow type; None where they are not known to be sound."""
    types = pa.types
    if physical in ("FLOAT", "DOUBLE"):
        # With a NaN among them the bounds of some writers are whatever they were compared with first.
        return None if any(bound != bound for bound in bounds) else pa.array(bounds, kind)
    if _is_text(kind):
        return pa.array(bounds, pa.large_binary())
    if types.is_boolean(kind):
        return pa.array([bool(bound) for bound in bounds])
    if types.is_decimal(kind):
        units = [bound if isinstance(bound, int) else int.from_bytes(bound, "big", signed=True) for bound in bounds]
        digits = [Decimal((int(unit < 0), tuple(map(int, str(abs(unit)))), -kind.scale)) for unit in units]
        return pa.array(digits, kind)
    if types.is_signed_integer(kind) or (types.is_timestamp(kind) and physical == "INT64"):
        return pa.array(bounds, pa.int64()).cast(kind)
    return pa.array(bounds, pa.int32()).cast(kind) if types.is_date32(kind) else None


def _is_text(kind: pa.DataType) -> bool:
    types = pa.types
    checks = (
        types.is_string, types.is_large_string, types.is_string_view,
        types.is_binary, types.is_large_binary, types.is_binary_view,
    )  # fmt: skip
    return any(check(kind) for check in checks)


def _name_in_file(column: TableColumn, schema: pa.Schema) -> str | None:
    """Return the name of the file's field that Spark takes for a column; None where it takes none."""
    if column.field_id is not None:
        ids = [(field.metadata or {}).get(b"PARQUET:field_id") for field in schema]
        if not any(ids):
            raise DatasetError(
                "this file has no field ids, by which the table's columns are matched "
                "(delta.columnMapping.mode = id); rewrite it with: OPTIMIZE, or remove it"
            )
        wanted = str(column.field_id).encode()
        names = [field.name for field, number in zip(schema, ids, strict=True) if number == wanted]
    else:
        asked = column.physical.lower()
        names = [name for name in schema.names if name.lower() == asked]
    if len(names) > 1:
        raise DatasetError(
            f"column {column.name} may be any of {', '.join(names)} in this file, which Spark does not tell apart; "
            f"write the file with one of them"
        )
    return names[0] if names else None
