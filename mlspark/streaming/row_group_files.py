"""Row groups as Arrow tables: read from Parquet files of any store or a local cache, tried again after a passing error."""

from collections import OrderedDict
from collections.abc import Sequence

import pyarrow as pa
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from mlspark import storage
from mlspark.errors import DatasetError, MlsparkError
from mlspark.streaming.disk_cache import DiskCache
from mlspark.streaming.file_columns import FileColumns
from mlspark.streaming.file_identity import refuse_changed
from mlspark.streaming.filters import partition_value
from mlspark.streaming.schema import TableColumn
from mlspark.streaming.shared_footers import SharedFooters
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

    def __init__(self, columns: Sequence[TableColumn], cache: DiskCache | None, footers: SharedFooters) -> None:
        """Open nothing yet.

        Args:
            columns: to read.
            cache: keeps what was read; None: every read goes to the file.
            footers: of the files, shared with the other workers of this process.
        """
        self._columns, self._cache, self._footers = tuple(columns), cache, footers
        self._files: OrderedDict[str, FileColumns] = OrderedDict()
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
        """Return the columns of a row group, without the rows that are left out.

        Raises:
            DatasetError: the file has other rows than the snapshot, or lacks a column.
            Exception: whatever the store's client raises, after `ATTEMPTS` attempts where it `may_pass`.
        """
        table: pa.Table = self._retrying(self._read, group)
        return table

    def _close_file(self, failed: RetryCallState) -> None:
        """Close the file of an attempt that failed: a new connection may do better."""
        uri = failed.args[0].uri
        self._files.pop(uri, None)
        self._footers.forget(uri)

    def _read(self, group: RowGroup) -> pa.Table:
        names = tuple(column.name for column in self._columns if column.name not in group.partition)
        if self._cache is None:
            table = self._read_columns(group, names)
        else:
            wanted = [column for column in self._columns if column.name in names]
            key = f"{group.uri}\n{group.size_bytes}\n{group.number}\n{group.left_out}\n{group.mark}\n{wanted}"
            table = self._cache.get(key, lambda: self._read_columns(group, names))
        if table.num_rows != group.rows:
            raise DatasetError(f"{table.num_rows} rows where the snapshot has {group.rows}: the file was changed")
        for column in self._columns:
            if column.name in group.partition:
                table = table.append_column(column.name, _constant(group, column, table.num_rows))
        return table

    def _read_columns(self, group: RowGroup, names: tuple[str, ...]) -> pa.Table:
        if not group.mark:
            return self._read_rows(group, names)
        if group.uri not in self._files:
            is_known = self._footers.has(group.uri)
            refuse_changed(group.uri, group.size_bytes, group.mark, footer_too=not is_known)
        try:
            rows = self._read_rows(group, names)
        except Exception:  # what is being written over fails in any way
            refuse_changed(group.uri, group.size_bytes, group.mark, footer_too=False)
            raise
        refuse_changed(group.uri, group.size_bytes, group.mark, footer_too=False)
        return rows

    def _read_rows(self, group: RowGroup, names: tuple[str, ...]) -> pa.Table:
        opened = self._open(group.uri, names)
        rows = opened.read(group.number)
        if group.left_out:
            footer = opened.file.metadata
            first = sum(footer.row_group(index).num_rows for index in range(group.number))
            is_left_out = unpack_rows(group.left_out, footer.num_rows)[first : first + rows.num_rows]
            rows = rows.filter(pa.array(~is_left_out))
        return rows

    def _open(self, uri: str, names: tuple[str, ...]) -> FileColumns:
        """Return the open file: a plan visits a file's row groups in any order, between those of others."""
        opened = self._files.pop(uri, None)
        if opened is None:
            wanted = [column for column in self._columns if column.name in names]
            opened = FileColumns(self._footers.open(uri), wanted, is_local=storage.is_local(uri))
        self._files[uri] = opened
        if len(self._files) > _OPEN_FILES:
            self._files.popitem(last=False)
        return opened


def _constant(group: RowGroup, column: TableColumn, num_rows: int) -> pa.ChunkedArray:
    """Return a partition column, whose value stands in the table's log and not in the file."""
    value = partition_value(group.partition[column.name], column)
    return pa.chunked_array([pa.repeat(value, num_rows) if value.is_valid else pa.nulls(num_rows, value.type)])
