"""Row groups as Arrow tables: read from Parquet files of any store or a local cache, tried again after a passing error."""

from collections import OrderedDict
from collections.abc import Sequence

import pyarrow as pa
from pyarrow import fs
from pyarrow import parquet as pq
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from mlspark import storage
from mlspark.errors import DatasetError, MlsparkError
from mlspark.streaming.disk_cache import DiskCache
from mlspark.streaming.filters import partition_value
from mlspark.streaming.schema import TableColumn
from mlspark.streaming.snapshot import RowGroup, unpack_rows

ATTEMPTS = 4
_FIRST_PAUSE_SECONDS = 0.1  # on average, before the second attempt; then twice as long each time
_OPEN_FILES = 16  # of a worker
_LASTING = (FileNotFoundError, PermissionError, pa.ArrowInvalid, pa.ArrowNotImplementedError, MlsparkError)


def may_pass(error: BaseException) -> bool:
    """Return whether the same read may succeed later. A store's client raises errors of any class."""
    return isinstance(error, Exception) and not isinstance(error, _LASTING)


class RowGroupFiles:
    """Reads row groups of some columns, for one worker; keeps the last files open."""

    def __init__(self, columns: Sequence[TableColumn], cache: DiskCache | None) -> None:
        """Open nothing yet.

        Args:
            columns: to read.
            cache: keeps what was read; None: every read goes to the file.
        """
        self._columns, self._cache = tuple(columns), cache
        self._files: OrderedDict[str, pq.ParquetFile] = OrderedDict()
        self._retrying = Retrying(
            retry=retry_if_exception(may_pass),
            stop=stop_after_attempt(ATTEMPTS),
            wait=wait_random_exponential(multiplier=2 * _FIRST_PAUSE_SECONDS),  # ranks must not return all at once
            after=self._close_file,
            reraise=True,
        )

    def close(self) -> None:
        """Close the files."""
        self._files.clear()

    def read(self, group: RowGroup) -> pa.Table:
        """Return the columns of a row group, without deleted rows.

        Raises:
            DatasetError: the file has other rows than the snapshot, or lacks a column.
            Exception: whatever the store's client raises, after `ATTEMPTS` attempts where it `may_pass`.
        """
        table: pa.Table = self._retrying(self._read, group)
        return table

    def _close_file(self, failed: RetryCallState) -> None:
        """Close the file of an attempt that failed: a new connection may do better."""
        self._files.pop(failed.args[0].uri, None)

    def _read(self, group: RowGroup) -> pa.Table:
        names = tuple(column.name for column in self._columns if column.name not in group.partition)
        if self._cache is None:
            table = self._read_columns(group, names)
        else:
            wanted = [column for column in self._columns if column.name in names]
            key = f"{group.uri}\n{group.size_bytes}\n{group.number}\n{group.deleted}\n{wanted}"
            table = self._cache.get(key, lambda: self._read_columns(group, names))
        if table.num_rows != group.rows:
            raise DatasetError(f"{table.num_rows} rows where the snapshot has {group.rows}: the file was changed")
        for column in self._columns:
            if column.name in group.partition:
                table = table.append_column(column.name, _constant(group, column, table.num_rows))
        return table

    def _read_columns(self, group: RowGroup, names: tuple[str, ...]) -> pa.Table:
        file = self._open(group.uri)
        wanted = [column for column in self._columns if column.name in names]
        in_file = {column.name: _name_in_file(column, file.schema_arrow) for column in wanted}
        stored = file.read_row_group(
            group.number, columns=[name for name in in_file.values() if name is not None], use_threads=False
        )
        num_rows = file.metadata.row_group(group.number).num_rows  # also when no column is in the file
        arrays = {}
        for column in wanted:
            name = in_file[column.name]
            if name is not None:
                arrays[column.name] = _as_declared(stored.column(name), column)
            elif column.type is not None:  # written before the column was added: null, as for Spark
                arrays[column.name] = pa.chunked_array([pa.nulls(num_rows, column.type)])
            else:
                raise DatasetError(f"no column {column.name}; there are {', '.join(file.schema_arrow.names)}")
        rows = pa.table(arrays) if arrays else pa.table({"": pa.nulls(num_rows)}).select([])
        if group.deleted:
            first = sum(file.metadata.row_group(index).num_rows for index in range(group.number))
            is_deleted = unpack_rows(group.deleted, file.metadata.num_rows)[first : first + num_rows]
            rows = rows.filter(pa.array(~is_deleted))
        return rows

    def _open(self, uri: str) -> pq.ParquetFile:
        """Return the open file: a plan visits a file's row groups in any order, between those of others."""
        file = self._files.pop(uri, None)
        if file is None:
            filesystem, path = storage.filesystem(uri)
            is_local = isinstance(filesystem, fs.LocalFileSystem)
            file = pq.ParquetFile(
                path if is_local else filesystem.open_input_file(path),
                # Not memory_map, though it saves 5 ns a row: mapped pages count as this process's memory, so that
                # it seems to grow with the table.
                pre_buffer=not is_local,  # one request for neighbouring columns, where a request takes long
                coerce_int96_timestamp_unit="us",
            )
        self._files[uri] = file
        if len(self._files) > _OPEN_FILES:
            self._files.popitem(last=False)
        return file


def _name_in_file(column: TableColumn, schema: pa.Schema) -> str | None:
    if column.field_id is None:
        return column.physical if column.physical in schema.names else None
    wanted = str(column.field_id).encode()
    return next((field.name for field in schema if (field.metadata or {}).get(b"PARQUET:field_id") == wanted), None)


def _as_declared(values: pa.ChunkedArray, column: TableColumn) -> pa.ChunkedArray:
    """Return the column in the table's type: a file may be older than a widening of it."""
    declared, stored = column.type, values.type
    if declared is None or stored == declared or not _is_plain(declared):
        return values
    if pa.types.is_timestamp(declared) and pa.types.is_timestamp(stored) and stored.tz is None:
        values = values.cast(pa.timestamp(stored.unit, declared.tz))  # INT96: UTC without saying so
    return values.cast(declared)


def _is_plain(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_primitive(kind) or types.is_decimal(kind))


def _constant(group: RowGroup, column: TableColumn, num_rows: int) -> pa.ChunkedArray:
    """Return a partition column, whose value stands in the table's log and not in the file."""
    text = group.partition[column.name]
    if text is None:
        return pa.chunked_array([pa.nulls(num_rows, column.type or pa.string())])
    return pa.chunked_array([pa.repeat(partition_value(text, column), num_rows)])
