"""Row groups read and decoded in a planned order, by Petastorm's engine: its Reader, pools, workers and ventilators."""

import os
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mlspark.errors import DatasetError
from mlspark.streaming.petastorm_import import Reader, WorkerThread
from mlspark.streaming.petastorm_pools import PlannedProcesses, PlannedThreads, WorkerGoneError
from mlspark.streaming.read_ahead import MAX_AHEAD, ReadAhead, ReadOptions
from mlspark.streaming.row_group_worker import Failure, InProgress, RowGroupWorker, WorkerTask
from mlspark.streaming.schema import TableColumn
from mlspark.streaming.snapshot import RowGroup

Decoded = TypeVar("Decoded")


class PlannedResults(Generic[Decoded]):
    """Hands on what the workers published: all of it, in the order of the plan, or an error that says what is missing."""

    batched_output = True

    def __init__(self, ventilator: ReadAhead, num_planned: int, in_progress: InProgress) -> None:
        self._ventilator, self._in_progress = ventilator, in_progress
        self._num_planned = num_planned
        self._position = 0
        self._early: dict[int, Any] = {}  # never more than may be read ahead

    def read_next(self, pool: Any, schema: Any, ngram: Any) -> Decoded:
        """Return the next item of the plan; called by Petastorm's Reader.

        Raises:
            DatasetError: a row group could not be read or decoded, or its worker died; names file and row group.
        """
        if self._position == self._num_planned:
            raise StopIteration
        while self._position not in self._early:
            try:
                result = pool.get_results()
            except WorkerGoneError as gone:
                raise self._worker_gone(gone) from None
            if result is not None:
                number, decoded = result
                # A lower number is of an earlier read with the same workers, which was given up.
                if number >= self._ventilator.first_number:
                    self._early[number - self._ventilator.first_number] = decoded
        decoded = self._early.pop(self._position)
        if isinstance(decoded, Failure):
            raise DatasetError(decoded.message) from decoded.error
        self._ventilator.taken(self._position, getattr(decoded, "nbytes", 0))
        self._position += 1
        return decoded  # type: ignore[no-any-return]

    def _worker_gone(self, gone: WorkerGoneError) -> DatasetError:
        position = self._position
        if gone.worker_id is not None:
            position = max(0, self._in_progress.last(gone.worker_id) - self._ventilator.first_number)
        group = self._ventilator.at(position)
        worker = "thread" if gone.worker_id is None else "process"
        to_come = self._num_planned - self._position
        return DatasetError(
            f"{group.uri}: row group {group.number}: the reader's {worker} {gone.how} with this as its last; "
            f"{to_come} of {self._num_planned} row groups were still to come"
        )


class Workers(Generic[Decoded]):
    """Started threads or processes of a pool, for one read after another; a context manager.

    Starting a process takes seconds, because Petastorm's imports do.
    """

    def __init__(
        self,
        columns: Sequence[TableColumn | str],
        decode: Callable[[pa.Table], Decoded],
        *,
        transform: Callable[[pa.Table], pa.Table] | None = None,
        options: ReadOptions | None = None,
    ) -> None:
        """Start them.

        Args:
            columns: columns to read; a mere name takes the type that the file has.
            decode: runs in the workers; with a process pool, it and its result must be picklable. A result's `nbytes`, if
                it has any, counts for the read-ahead.
            transform: runs in the workers before `decode`; keeps number and order of the rows.
            options: threads or processes, read-ahead, cache.

        Raises:
            DatasetError: the processes do not start.
        """
        self.options = options or ReadOptions()
        self.next_number = 0
        """Number of the next item; items are numbered through all reads."""
        self.pool = (
            PlannedProcesses(self.options.workers)
            if self.options.pool == "process"
            else PlannedThreads(self.options.workers, results_queue_size=self.options.workers * MAX_AHEAD * 4)
        )
        # The threads do not hold this object: when it is not closed, they end when it goes.
        self._ending = weakref.finalize(self, self.pool.stop)
        self._notes = tempfile.NamedTemporaryFile(suffix=".in-progress")  # noqa: SIM115 (goes with this object)
        self.in_progress = InProgress(self._notes.name)
        named = tuple(TableColumn.named(column) if isinstance(column, str) else column for column in columns)
        task = WorkerTask(named, transform, decode, self.options, os.getpid(), self._notes.name)
        self.pool.start(RowGroupWorker, task)

    def __enter__(self) -> "Workers[Decoded]":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End them; more than once is all right."""
        if self._ending.detach() is not None:
            self.pool.stop()
            self.pool.join()
            self._notes.close()
            for worker in self.pool._workers:
                if isinstance(worker, WorkerThread):
                    worker._worker_impl.shutdown()  # Petastorm shuts its processes' workers down, its threads' not


class PlannedReader(Reader, Generic[Decoded]):  # type: ignore[misc]
    """Iterates over decode(row group) for each planned row group, in the planned order; a context manager.

    One at a time for the same workers. Leaving it early is all right: what was being read is dropped.
    """

    def __init__(
        self, workers: Workers[Decoded], groups: Sequence[RowGroup], order: NDArray[np.int64] | None = None
    ) -> None:
        """Start reading at once.

        Args:
            workers: read and decode.
            groups: row groups to choose from.
            order: which of `groups` to read, in order; None: all.
        """
        planned = np.arange(len(groups), dtype=np.int64) if order is None else order
        # The parent's constructor opens the data set itself, the legacy way: all that it would set is set here.
        self._workers_pool = workers.pool
        self.ventilator = ReadAhead(workers.pool.ventilate, groups, planned, workers.options, workers.next_number)
        workers.next_number += len(planned)
        self._results_queue_reader = PlannedResults[Decoded](self.ventilator, len(planned), workers.in_progress)
        self.schema = self.ngram = self.cache = None
        self.num_epochs = 1
        self.last_row_consumed = self.stopped = False
        self._workers_pool._ventilator = self.ventilator
        self.ventilator.start()

    def __enter__(self) -> "PlannedReader[Decoded]":
        return self

    def __iter__(self) -> Iterator[Decoded]:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End this read; the workers stay."""
        self.ventilator.stop()
        self.stopped = True
