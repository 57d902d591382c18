"""`mlspark stream-bench`: how fast a person's own table streams here, and what would make it faster."""

import os
import resource
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any, Literal

import pyarrow as pa
from pyarrow import parquet as pq

from mlspark import storage
from mlspark.errors import DatasetError
from mlspark.streaming import snapshots
from mlspark.streaming.decoding import is_list, is_number
from mlspark.streaming.plan import DEFAULT_LANES as LANES
from mlspark.streaming.read_ahead import default_workers
from mlspark.streaming.schema import TableColumn
from mlspark.streaming.snapshot import Snapshot
from mlspark.streaming.stream import Stream

_SMALL_GROUP_BYTES = 2**20
_HIGH_WAIT = 0.1


@dataclass(frozen=True)
class Bench:
    """What streaming some seconds of a table measured."""

    table: str
    version: int
    rows: int
    """Rows of the table."""
    files: int
    row_groups: int
    rows_per_group: int
    """Median of the rows of a row group."""
    codec: str
    """Compression codec of the first file."""
    columns: list[str]
    left_out: list[str]
    """Columns of a type that cannot be streamed."""
    rows_read: int
    seconds: float
    rows_per_second: float
    stored_mb_per_second: float
    """Megabytes of the columns per second, as stored."""
    tensor_mb_per_second: float
    first_batch_seconds: float
    wait_fraction: float
    """Share of the time that is not spent in training steps; 1 without a step time."""
    peak_memory_mb: float
    """Peak memory of this process, with torch."""
    advice: list[str]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class _Reading:
    """Some seconds of a stream."""

    rows: int
    steps: int
    tensor_bytes: int
    seconds: float
    first_batch_seconds: float


def measure(
    table: str,
    *,
    version: int | None = None,
    columns: Sequence[str] | None = None,
    batch_size: int = 1024,
    shuffle_window_rows: int = 400_000,
    workers: int | None = None,
    pool: Literal["thread", "process"] = "thread",
    step_seconds: float = 0.0,
    seconds: float = 10.0,
) -> Bench:
    """Return the figures of streaming `table` for some seconds, epoch after epoch, as a training loop would.

    Args:
        table: URI of a Delta table, or of Parquet files.
        version: of the table; None: the latest.
        columns: to stream, nulls as zeros or empty; None: all that can be.
        batch_size: rows of a batch.
        shuffle_window_rows: as for `Stream`.
        workers: as for `Stream`.
        pool: as for `Stream`.
        step_seconds: time that a training step takes, spent sleeping.
        seconds: at least so long, and at least one batch.

    Raises:
        DatasetError: the table has no rows, or no column that can be streamed.
    """
    snapshot = snapshots.take(table, version=version)
    snapshot.refuse_no_rows()
    streamable = [name for name, column in snapshot.columns.items() if _can_be_streamed(column)]
    chosen = list(columns or streamable)
    if not chosen:
        raise DatasetError(f"{table}: none of its columns ({', '.join(snapshot.columns)}) can be streamed")
    fill = {name: _zero(snapshot.columns[name]) for name in chosen if name in streamable}
    started = time.perf_counter()
    with Stream(
        snapshot,
        columns=chosen,
        fill=fill,
        batch_size=batch_size,
        shuffle_window_rows=shuffle_window_rows,
        workers=workers,
        pool=pool,
    ) as stream:
        reading = _read(stream, started, seconds, step_seconds)
    left_out = [name for name in snapshot.columns if name not in streamable]
    bench = _figures(snapshot, chosen, left_out, reading, step_seconds)
    row_bytes = reading.tensor_bytes / reading.rows
    workers = default_workers(snapshot.table) if workers is None else workers
    bench.advice.extend(_advise(bench, row_bytes, shuffle_window_rows, workers, bool(step_seconds)))
    return bench


def _read(stream: Stream, started: float, seconds: float, step_seconds: float) -> _Reading:
    """Take batches, epoch after epoch, until `seconds` after `started`."""
    rows = tensor_bytes = steps = 0
    first: float | None = None
    while time.perf_counter() - started < seconds or first is None:
        for batch in stream:
            if first is None:
                first = time.perf_counter() - started
            rows += int((~batch["is_padding"]).sum())
            tensor_bytes += sum(tensor.nbytes for tensor in batch.values())
            steps += 1
            if step_seconds:
                time.sleep(step_seconds)
            if time.perf_counter() - started >= seconds:
                break
    return _Reading(rows, steps, tensor_bytes, max(time.perf_counter() - started, 1e-9), first)


def _figures(
    snapshot: Snapshot, columns: list[str], left_out: list[str], reading: _Reading, step_seconds: float
) -> Bench:
    """Return what was measured, without advice."""
    groups = [count for file in snapshot.files for count in file.row_groups if count]
    rows_per_second = reading.rows / reading.seconds
    return Bench(
        table=snapshot.table,
        version=snapshot.version,
        rows=snapshot.num_rows,
        files=len(snapshot.files),
        row_groups=len(groups),
        rows_per_group=int(statistics.median(groups)),
        codec=_first_footer(snapshot).row_group(0).column(0).compression,
        columns=columns,
        left_out=left_out,
        rows_read=reading.rows,
        seconds=reading.seconds,
        rows_per_second=rows_per_second,
        stored_mb_per_second=rows_per_second * _stored_bytes_per_row(snapshot, columns) / 1e6,
        tensor_mb_per_second=reading.tensor_bytes / reading.seconds / 1e6,
        first_batch_seconds=reading.first_batch_seconds,
        wait_fraction=max(0.0, 1.0 - reading.steps * step_seconds / reading.seconds),
        peak_memory_mb=_peak_memory_bytes() / 1e6,
        advice=[],
    )


def _advise(bench: Bench, row_bytes: float, window: int, workers: int, has_steps: bool) -> list[str]:
    """Return what to change, most useful first."""
    advice = []
    group_bytes = bench.rows_per_group * row_bytes
    per_lane = max(1, window // LANES)
    if group_bytes < _SMALL_GROUP_BYTES and bench.row_groups > LANES:
        better = int(4 * _SMALL_GROUP_BYTES / row_bytes)
        advice.append(
            f"row groups are small ({bench.rows_per_group:,} rows, {group_bytes / 1e6:.2f} MB): write about "
            f"{better:,} rows in each (OPTIMIZE joins small files)"
        )
    if bench.rows_per_group > 4 * per_lane:
        advice.append(
            f"row groups of {bench.rows_per_group:,} rows are larger than a lane's part of the window "
            f"({per_lane:,}): {LANES} of them, {LANES * group_bytes / 1e6:,.0f} MB, lie in memory to shuffle "
            f"{window:,} rows; raise shuffle_window_rows to {bench.rows_per_group * LANES:,} for a better shuffle at "
            f"no cost, or write smaller row groups"
        )
    if bench.row_groups < LANES:
        advice.append(
            f"{bench.row_groups} row groups for {LANES} lanes: each is read more than once; write more of them"
        )
    cores = os.cpu_count() or 1
    if not has_steps or bench.wait_fraction > _HIGH_WAIT:
        if workers < cores:
            advice.append(f"{workers} workers on {cores} cores: try more")
        if bench.codec in ("ZSTD", "GZIP", "BROTLI"):
            advice.append(
                f"the files are {bench.codec}: Snappy, LZ4 and uncompressed ones decode two to four times as fast; "
                f"for float columns that hardly compress, also turn the dictionary off (parquet.enable.dictionary=false)"
            )
    share = bench.rows * row_bytes
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if share < memory / 4:
        advice.append(
            f"the table is {share / 1e6:,.0f} MB as tensors: memory_bytes={int(share * 1.5) + 10**6} keeps it in memory, "
            f"and later epochs read nothing"
        )
    return advice


def _can_be_streamed(column: TableColumn) -> bool:
    kind = column.type
    return kind is not None and (not is_list(kind) or is_number(kind.value_type))


def _zero(column: TableColumn) -> Any:
    kind = column.type
    assert kind is not None
    if is_list(kind):
        return []
    if pa.types.is_decimal(kind):
        return Decimal(0)
    if pa.types.is_string(kind):
        return ""
    if pa.types.is_binary(kind):
        return b""
    return False if pa.types.is_boolean(kind) else 0


def _first_footer(snapshot: Snapshot) -> pq.FileMetaData:
    filesystem, path = storage.filesystem(snapshot.uri(next(file for file in snapshot.files if any(file.row_groups))))
    return pq.read_metadata(path, filesystem=filesystem)


def _stored_bytes_per_row(snapshot: Snapshot, columns: Sequence[str]) -> float:
    """Return the compressed bytes of the columns in a row of the first file."""
    footer, size = _first_footer(snapshot), 0
    names = {snapshot.columns[name].physical for name in columns if name in snapshot.columns}
    for number in range(footer.num_row_groups):
        group = footer.row_group(number)
        stored = [group.column(index) for index in range(group.num_columns)]
        size += sum(column.total_compressed_size for column in stored if column.path_in_schema.split(".")[0] in names)
    return float(size / max(1, footer.num_rows))


def _peak_memory_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
