"""From a live Parquet file to its rows to stream: row groups, without deleted rows and those for which conditions fail."""

import posixpath
import re
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet as pq

from mlspark.errors import DatasetError, MlsparkError, one_line
from mlspark.streaming.file_columns import FileColumns, open_file
from mlspark.streaming.filters import Conditions
from mlspark.streaming.snapshot import DataFile, pack_rows, unpack_rows

SortKey: TypeAlias = tuple[Any, ...]
"""Where a file stands in the order of its snapshot."""

_RANDOM_NAME = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")
_COLUMNS_OF_KEY = 16


def described(uri: str, file: DataFile, checks: Conditions, num_records: int | None = None) -> tuple[SortKey, DataFile]:
    """Return (key to sort by, the file with its row groups and the rows that are left out).

    Reads the footer, and of row groups whose statistics leave it open which rows satisfy the conditions, their columns.

    Args:
        uri: of the file.
        file: with path, size, partition and deleted rows.
        checks: conditions, of which those on partitions hold.
        num_records: rows that it has by the table's log, deleted ones included; None: the log does not say.

    Raises:
        DatasetError: the file is gone, damaged, or holds what a condition cannot be applied to; names the file.
    """
    try:
        opened = open_file(uri)
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:  # a column's name that is no UTF-8
        raise DatasetError(f"{uri}: the footer of this live file cannot be read: {one_line(str(error))}") from error
    with opened:
        footer = opened.metadata
        sizes = np.array([footer.row_group(index).num_rows for index in range(footer.num_row_groups)], np.int64)
        _check_rows(uri, footer.num_rows, int(sizes.sum()), num_records)
        left_out = unpack_rows(file.left_out, int(sizes.sum())) if file.left_out else None
        statistics = _statistics(footer)
        if checks.on_rows:
            try:
                left_out = _failing(opened, sizes, left_out, checks)
            except (OSError, pa.ArrowException, MlsparkError) as error:
                texts = " and ".join(comparison.text for comparison in checks.on_rows)
                raise DatasetError(f"{uri}: condition {texts} cannot be applied: {one_line(str(error))}") from error
    rows = sizes
    if left_out is not None:
        starts = np.cumsum(sizes) - sizes
        streamed = [size - left_out[start : start + size].sum() for start, size in zip(starts, sizes, strict=True)]
        rows = np.array(streamed, np.int64)
    packed = "" if left_out is None or not left_out.any() else pack_rows(left_out)
    described_file = replace(file, row_groups=tuple(rows.tolist()), left_out=packed)
    partition = tuple((name, value is None, value or "") for name, value in sorted(file.partition.items()))
    name = _RANDOM_NAME.sub("", posixpath.basename(file.path))
    return (partition, name, described_file.row_groups, file.size_bytes, statistics, file.path), described_file


def _check_rows(uri: str, of_footer: int, of_groups: int, num_records: int | None) -> None:
    """Refuse a footer that has lost row groups: their rows would be left out in silence."""
    told = [f"its footer says {of_footer:,}"] if of_footer != of_groups else []
    told += [f"the table's log says {num_records:,}"] if num_records not in (None, of_groups) else []
    if told:
        raise DatasetError(
            f"{uri}: the row groups of this live file hold {of_groups:,} rows, but {' and '.join(told)}; it is damaged, or "
            f"not the file that was written: restore it"
        )


def _failing(
    opened: pq.ParquetFile, sizes: NDArray[np.int64], left_out: NDArray[np.bool_] | None, checks: Conditions
) -> NDArray[np.bool_]:
    """Return which rows of the file are left out: those that already are, and those for which a condition fails."""
    columns = {comparison.column.name: comparison.column for comparison in checks.on_rows}
    in_file = FileColumns(opened, tuple(columns.values()))
    failing = np.zeros(int(sizes.sum()), np.bool_) if left_out is None else left_out.copy()
    for number, (stop, size) in enumerate(zip(np.cumsum(sizes), sizes, strict=True)):
        rows = failing[stop - size : stop]
        answers = []
        for comparison in checks.on_rows:
            known = in_file.values_within(comparison.column, number)
            answers.append(None if known is None else comparison.holds_within(known))
        if False in answers or rows.all():
            rows[:] = True
            continue
        unknown = [check for check, answer in zip(checks.on_rows, answers, strict=True) if answer is None]
        if unknown:
            wanted = {comparison.column.name for comparison in unknown}
            values = in_file.only(wanted).read(number)
            if values.num_rows != size:
                raise DatasetError(f"row group {number} holds {values.num_rows} rows, and its footer says {size}")
            for comparison in unknown:
                rows |= ~comparison.holds(values.column(comparison.column.name))
    return failing


def _statistics(footer: pq.FileMetaData) -> str:
    """Return a text of the first columns' statistics: tells files apart that differ in nothing else but rows."""
    if not footer.num_row_groups:
        return ""
    group = footer.row_group(0)
    columns = [group.column(index).statistics for index in range(min(_COLUMNS_OF_KEY, group.num_columns))]
    # As they are stored: Python has no dates before year 1 or after 9999.
    return repr([(column.min_raw, column.max_raw) for column in columns if column is not None and column.has_min_max])
