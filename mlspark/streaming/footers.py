"""What the footer of a live Parquet file says: its row groups, and where the file stands in the order of a snapshot."""

import posixpath
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet as pq

from mlspark import storage
from mlspark.errors import DatasetError
from mlspark.streaming.filters import Conditions
from mlspark.streaming.snapshot import DataFile, unpack_rows

_RANDOM_NAME = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")
_COLUMNS_OF_KEY = 16


def described(uri: str, file: DataFile, deleted: str, checks: Conditions) -> tuple[tuple[Any, ...], DataFile]:
    """Return (key to sort by, the file with its row groups) from the file's footer."""
    filesystem, location = storage.filesystem(uri)
    try:
        footer = pq.read_metadata(location, filesystem=filesystem)
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(f"{uri}: the footer of this live file cannot be read: {error}") from error
    rows = np.array([footer.row_group(index).num_rows for index in range(footer.num_row_groups)], dtype=np.int64)
    if deleted:
        starts = np.cumsum(rows) - rows
        mask = unpack_rows(deleted, int(rows.sum()))
        rows = np.array(
            [count - mask[start : start + count].sum() for start, count in zip(starts, rows, strict=True)], np.int64
        )
    if checks.on_rows:
        for index in range(footer.num_row_groups):
            if not checks.may_hold_in(footer.row_group(index), uri):
                rows[index] = 0
    file = replace(file, row_groups=tuple(rows.tolist()), deleted=deleted)
    partition = tuple((name, value is None, value or "") for name, value in sorted(file.partition.items()))
    name = _RANDOM_NAME.sub("", posixpath.basename(file.path))
    return (partition, name, file.row_groups, file.size_bytes, _statistics(footer), file.path), file


def _statistics(footer: pq.FileMetaData) -> str:
    """Return a text of the first columns' statistics: tells files apart that differ in nothing else but rows."""
    if not footer.num_row_groups:
        return ""
    group = footer.row_group(0)
    columns = [group.column(index).statistics for index in range(min(_COLUMNS_OF_KEY, group.num_columns))]
    return repr([(column.min, column.max) for column in columns if column is not None and column.has_min_max])
