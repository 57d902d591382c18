"""What each thread or process of a pool does: read a row group, transform and decode it, publish it or what went wrong."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from mlspark.errors import DatasetError, MlsparkError, one_line
from mlspark.streaming.disk_cache import DiskCache
from mlspark.streaming.petastorm_import import WorkerBase
from mlspark.streaming.read_ahead import ReadOptions
from mlspark.streaming.row_group_files import ATTEMPTS, RowGroupFiles, may_pass
from mlspark.streaming.schema import TableColumn
from mlspark.streaming.shared_footers import SharedFooters
from mlspark.streaming.snapshot import RowGroup


@dataclass(frozen=True)
class Failure:
    """What a worker publishes in place of rows."""

    message: str
    error: BaseException | None


@dataclass(frozen=True)
class WorkerTask:
    """What every worker of a pool does with a row group; sent to each process."""

    columns: tuple[TableColumn, ...]
    """Columns to read."""
    transform: Callable[[pa.Table], pa.Table] | None
    decode: Callable[[pa.Table], Any]
    options: ReadOptions
    process_id: int
    """Id of the process that started the pool."""
    in_progress: str
    """File of `InProgress`."""
    footers: SharedFooters = field(default_factory=SharedFooters)
    """Footers of the files, shared by the threads of a process."""


class InProgress:
    """The row group that each worker process began last, in a file: what a killed one had still to send is lost."""

    def __init__(self, path: str) -> None:
        self._path = path

    def note(self, worker_id: int, number: int) -> None:
        with open(self._path, "r+b", buffering=0) as file:
            file.seek(8 * worker_id)
            file.write(number.to_bytes(8, "little"))

    def last(self, worker_id: int) -> int:
        with open(self._path, "rb") as file:
            file.seek(8 * worker_id)
            return int.from_bytes(file.read(8), "little")


class RowGroupWorker(WorkerBase):  # type: ignore[misc]
    """Reads one row group per item, in a thread or process of the pool."""

    def __init__(self, worker_id: int, publish: Callable[[Any], None], task: WorkerTask) -> None:
        super().__init__(worker_id, publish, task)
        self._task = task
        self._is_process = task.process_id != os.getpid()
        self._in_progress = InProgress(task.in_progress)
        options = task.options
        cache = DiskCache(options.cache_folder, options.cache_bytes) if options.cache_folder else None
        self._files = RowGroupFiles(task.columns, cache, task.footers)
        if self._is_process:
            pa.set_cpu_count(1)

    def process(self, number: int, group: RowGroup) -> None:
        """Publish (number of the item, decoded row group), or what went wrong, which the consumer raises in its turn."""
        if self._is_process:
            self._in_progress.note(self.worker_id, number)
        place = f"{group.uri}: row group {group.number}"
        result: Any
        try:
            table = self._files.read(group)
        except BaseException as error:
            attempts = f" after {ATTEMPTS} attempts" if may_pass(error) else ""
            result = self._failure(f"{place} cannot be read{attempts}", error)
        else:
            try:
                result = self._task.decode(self._transformed(table))
            except BaseException as error:  # SystemExit in a transform too: else the thread would end without a word
                result = self._failure(place, error)
        self.publish_func((number, result))

    def shutdown(self) -> None:
        """Close the files; called when the pool ends."""
        self._files.close()

    def _failure(self, place: str, error: BaseException) -> Failure:
        said = one_line(str(error)) if isinstance(error, OSError | pa.ArrowException) else str(error)
        text = said if isinstance(error, MlsparkError) else f"{type(error).__name__}: {said}"
        # The cause stays where it would have to travel: an exception of any class may not survive that.
        return Failure(f"{place}: {text}", None if self._is_process else error)

    def _transformed(self, table: pa.Table) -> pa.Table:
        if self._task.transform is None:
            return table
        result = self._task.transform(table)
        if result.num_rows != table.num_rows:
            raise DatasetError(
                f"the transform made {result.num_rows} rows of {table.num_rows}; it must keep each row, in order"
            )
        return result
