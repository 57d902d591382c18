"""The one seam to Petastorm: its reader engine, driven in a planned order, on pyarrow 14 to 25 and numpy 1.26 to 2.4.

Petastorm 0.13.1 imports two pyarrow modules that pyarrow 16 removed and numpy 1 names; the stand-ins below let it import,
and nothing of them is called. Its stock readers are not used: they need pyarrow's removed legacy datasets, give ranks
unequal shards and lose row groups (see `PlannedThreads`). Its iterator, its pools of threads and processes, its workers
and its ventilators are.
"""

import os
import queue
import random
import subprocess
import sys
import tempfile
import threading
import time
import types
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

import dill
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import fs
from pyarrow import parquet as pq

from mlspark import storage
from mlspark.errors import DatasetError, MlsparkError
from mlspark.streaming.disk_cache import DiskCache
from mlspark.streaming.filters import partition_value
from mlspark.streaming.schema import TableColumn
from mlspark.streaming.snapshot import RowGroup, unpack_rows


def _stand_in_for_removed_names() -> None:
    try:
        import pyarrow.filesystem  # noqa: F401
    except ModuleNotFoundError:
        for name, attribute in (("pyarrow.filesystem", "LocalFileSystem"), ("pyarrow.hdfs", "HadoopFileSystem")):
            module = types.ModuleType(name)
            setattr(module, attribute, type(attribute, (), {}))
            sys.modules[name] = module
    if not hasattr(np, "unicode_"):
        np.unicode_, np.string_ = np.str_, np.bytes_  # type: ignore[attr-defined]


_stand_in_for_removed_names()
from petastorm.reader import Reader  # noqa: E402
from petastorm.workers_pool import VentilatedItemProcessedMessage, process_pool, thread_pool  # noqa: E402
from petastorm.workers_pool.process_pool import ProcessPool  # noqa: E402
from petastorm.workers_pool.thread_pool import ThreadPool, WorkerThread  # noqa: E402
from petastorm.workers_pool.ventilator import Ventilator  # noqa: E402
from petastorm.workers_pool.worker_base import WorkerBase  # noqa: E402


def _start_reader_process(function: Callable[..., None], *args: Any, **kwargs: Any) -> subprocess.Popen[bytes]:
    """Start a process that calls `function`: Petastorm's own imports petastorm first, which fails on new pyarrows."""
    handle, file = tempfile.mkstemp(suffix=".dill")
    with os.fdopen(handle, "wb") as content:
        dill.dump((function, args, kwargs), content)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", "mlspark.streaming.reader_process", file]
    return subprocess.Popen(command, env=environment)  # noqa: S603


process_pool.exec_in_new_process = _start_reader_process
# A thread without work looks so often whether it shall end. Petastorm's 1 ms take 4 % of a core for two idle threads.
thread_pool.IO_TIMEOUT_INTERVAL_S = 0.02

Decoded = TypeVar("Decoded")

_START_SECONDS = 120.0
_LOOK_SECONDS = 0.1  # how often one who waits for a result looks whether a worker is gone
_ATTEMPTS = 4
_FIRST_PAUSE_SECONDS = 0.1  # before the second attempt; then twice as long each time
_OPEN_FILES = 16  # of a worker
_MAX_AHEAD = 4096
_LASTING = (FileNotFoundError, PermissionError, pa.ArrowInvalid, pa.ArrowNotImplementedError, MlsparkError)


@dataclass(frozen=True)
class ReadOptions:
    """How row groups are read."""

    workers: int = 2
    pool: Literal["thread", "process"] = "thread"
    """Threads share this process and copy nothing; processes suit a transform written in Python."""
    read_ahead_bytes: int = 256 * 2**20
    """Decoded rows read and not yet taken; one row group for each worker may always be."""
    cache_folder: str = ""
    """Local folder that keeps what was read, for later epochs, ranks and runs; empty: none."""
    cache_bytes: int = 10 * 2**30
    """Size of that folder."""


@dataclass(frozen=True)
class _Failed:
    """What a worker publishes in place of rows."""

    message: str
    error: BaseException | None


class ReadAhead(Ventilator):  # type: ignore[misc]
    """Hands row groups to the pool in order, as long as what was read and not yet taken fits a number of bytes.

    Petastorm's own counts items, and reads 300 MB ahead of one table and 3 GB of another with the same setting. The size
    of a decoded row is learnt from those that came; until the first came, each worker has one row group.
    """

    def __init__(
        self,
        ventilate: Callable[..., None],
        groups: Sequence[RowGroup],
        order: NDArray[np.int64],
        options: ReadOptions,
        first_number: int,
    ) -> None:
        super().__init__(ventilate)
        self._groups, self._order, self._options = groups, order, options
        self.first_number = first_number
        self._next = self._taken = 0  # positions in `order`
        self._rows_ahead = self._rows_seen = self._bytes_seen = 0
        self._changed = threading.Condition()
        self.is_stopped = False
        self._thread: threading.Thread | None = None
        self.error: BaseException | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="mlspark-read-ahead", daemon=True)
        self._thread.start()

    def at(self, position: int) -> RowGroup:
        """Return the row group at a position of the plan."""
        return self._groups[int(self._order[position])]

    def taken(self, position: int, num_bytes: int) -> None:
        """Take note that the consumer has the decoded row group, of that size."""
        rows = self.at(position).rows
        with self._changed:
            self._taken += 1
            self._rows_ahead -= rows
            self._rows_seen += rows
            self._bytes_seen += num_bytes
            self._changed.notify()

    def processed_item(self) -> None:
        """Nothing: what the pool has processed still lies in memory until it is taken."""

    def completed(self) -> bool:
        return self.is_stopped or self._next == len(self._order)

    def stop(self) -> None:
        with self._changed:
            self.is_stopped = True
            self._changed.notify()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        try:
            while self._next < len(self._order):
                group = self.at(self._next)
                with self._changed:
                    self._changed.wait_for(lambda rows=group.rows: self.is_stopped or self._has_room(rows))  # type: ignore[misc]
                    if self.is_stopped:
                        return
                    self._rows_ahead += group.rows
                self._ventilate_fn(number=self.first_number + self._next, group=group)
                self._next += 1
        except BaseException as error:  # told by whoever waits for a result
            self.error = error

    def _has_room(self, rows: int) -> bool:
        ahead = self._next - self._taken
        if ahead < self._options.workers:
            return True
        if not self._rows_seen or ahead >= _MAX_AHEAD:
            return False
        return (self._rows_ahead + rows) * self._bytes_seen <= self._options.read_ahead_bytes * self._rows_seen


class PlannedThreads(ThreadPool):  # type: ignore[misc]
    """Petastorm's threads, with results that are neither lost nor out of order.

    When the consumer keeps up with the ventilator, `ThreadPool.get_results` (0.13.1) skips a worker that has nothing
    ventilated yet as if it were done (wrong order), and can see "all workers done" just before, and "ventilator completed"
    just after, the last items are ventilated: it reports the end and the last row groups are lost. Seen with stock
    make_batch_reader: 4,000 rows in 40 row groups, 31 of 150 reads lost 400 to 800 rows. Items go to the workers in turn,
    so result n is worker (n mod workers)'s next one: wait for that, and let the reader count.
    """

    _num_results = 0

    def get_results(self) -> Any:
        worker = self._num_results % self.workers_count
        while True:
            try:
                result = self._results_queues[worker].get(timeout=_LOOK_SECONDS)
            except queue.Empty:
                if self._ventilator.error is not None:
                    raise DatasetError("the order of reading could not be followed") from self._ventilator.error
                if self._ventilator.is_stopped or not self._workers[worker].is_alive():
                    raise _WorkerGoneError("was stopped") from None
                continue
            if isinstance(result, Exception):
                raise result
            if not isinstance(result, VentilatedItemProcessedMessage):
                self._num_results += 1
                return result


class PlannedProcesses(ProcessPool):  # type: ignore[misc]
    """Petastorm's processes, with a dead one noticed: stock `ProcessPool.get_results` waits for it for ever."""

    def get_results(self) -> Any:
        while not self._results_receiver_poller.poll(_LOOK_SECONDS * 1000):
            if self._ventilator.is_stopped:
                raise _WorkerGoneError("was stopped")
            for worker_id, worker in enumerate(self._workers):
                if worker.poll() is not None:
                    status = worker.returncode
                    how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
                    raise _WorkerGoneError(how, worker_id)
            if self._ventilator.error is not None:
                raise DatasetError("the order of reading could not be followed") from self._ventilator.error
        # One message is there, and it is a result or the note of a finished one; neither is the end of the epoch.
        rows, _ = self._results_receiver.recv_multipart(copy=self._zmq_copy_buffers)
        return self._serializer.deserialize(rows) if rows else None

    def _wait_for_workers_to_start(self) -> None:
        # Petastorm's own gives each 20 seconds, also to those that are dead.
        deadline = time.monotonic() + _START_SECONDS
        num_started = 0
        while num_started < self.workers_count:
            if self._results_receiver_poller.poll(_LOOK_SECONDS * 1000):
                self._results_receiver.recv_pyobj()
                num_started += 1
            elif time.monotonic() > deadline or any(worker.poll() is not None for worker in self._workers):
                for worker in self._workers:
                    worker.kill()
                raise DatasetError(
                    f"{self.workers_count - num_started} of {self.workers_count} reader processes did not start within "
                    f"{_START_SECONDS:.0f} s; see their output above, or use the thread pool"
                )

    def join(self) -> None:
        # Petastorm's own tells the workers to finish and waits for ever for one that is busy.
        deadline = time.monotonic() + 5.0
        while any(worker.poll() is None for worker in self._workers):
            self.stop()
            time.sleep(0.02)
            if time.monotonic() > deadline:
                for worker in self._workers:
                    worker.kill()
        super().join()


class _WorkerGoneError(Exception):
    """A thread or process of the pool is no more."""

    def __init__(self, how: str, worker_id: int | None = None) -> None:
        super().__init__(how)
        self.how, self.worker_id = how, worker_id


class _AtWork:
    """What each worker process began with last, in a file: what a killed one had still to send is lost."""

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


class PlannedResults(Generic[Decoded]):
    """Hands on what the workers published: all of it, in the order of the plan, or an error that says what is missing."""

    batched_output = True

    def __init__(self, ventilator: ReadAhead, num_planned: int, at_work: "_AtWork") -> None:
        self._ventilator, self._at_work = ventilator, at_work
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
            except _WorkerGoneError as gone:
                position = self._position
                if gone.worker_id is not None:
                    position = max(0, self._at_work.last(gone.worker_id) - self._ventilator.first_number)
                group = self._ventilator.at(position)
                worker = "thread" if gone.worker_id is None else "process"
                to_come = self._num_planned - self._position
                raise DatasetError(
                    f"{group.uri}: row group {group.number}: the reader's {worker} {gone.how} with this as its last; "
                    f"{to_come} of {self._num_planned} row groups were still to come"
                ) from None
            if result is not None:
                number, decoded = result
                # A lower number is of an earlier read with the same workers, which was given up.
                if number >= self._ventilator.first_number:
                    self._early[number - self._ventilator.first_number] = decoded
        decoded = self._early.pop(self._position)
        if isinstance(decoded, _Failed):
            raise DatasetError(decoded.message) from decoded.error
        self._ventilator.taken(self._position, getattr(decoded, "nbytes", 0))
        self._position += 1
        return decoded  # type: ignore[no-any-return]


class RowGroupWorker(WorkerBase):  # type: ignore[misc]
    """Reads one row group per item, in a thread or process of the pool."""

    def __init__(self, worker_id: int, publish: Callable[[Any], None], arguments: tuple[Any, ...]) -> None:
        super().__init__(worker_id, publish, arguments)
        self._columns: tuple[TableColumn, ...]
        self._transform: Callable[[pa.Table], pa.Table] | None
        options: ReadOptions
        self._columns, self._transform, self._decode, options, parent, at_work = arguments
        self._at_work = _AtWork(at_work)
        self._is_process = parent != os.getpid()
        self._cache = DiskCache(options.cache_folder, options.cache_bytes) if options.cache_folder else None
        self._files: OrderedDict[str, pq.ParquetFile] = OrderedDict()
        if self._is_process:
            pa.set_cpu_count(1)

    def process(self, number: int, group: RowGroup) -> None:
        """Publish (number of the item, decoded row group), or what went wrong, which the consumer raises in its turn."""
        if self._is_process:
            self._at_work.note(self.worker_id, number)
        place = f"{group.uri}: row group {group.number}"
        result: Any
        try:
            table = self._read(group)
        except BaseException as error:
            tried = "" if isinstance(error, _LASTING) else f" after {_ATTEMPTS} attempts"
            text = str(error) if isinstance(error, MlsparkError) else f"{type(error).__name__}: {error}"
            result = _Failed(f"{place} cannot be read{tried}: {text}", self._sendable(error))
        else:
            try:
                result = self._decode(self._transformed(table))
            except BaseException as error:  # SystemExit in a transform too: else the thread would end without a word
                text = str(error) if isinstance(error, MlsparkError) else f"{type(error).__name__}: {error}"
                result = _Failed(f"{place}: {text}", self._sendable(error))
        self.publish_func((number, result))

    def shutdown(self) -> None:
        """Close the files; called when the pool ends."""
        self._files.clear()

    def _sendable(self, error: BaseException) -> BaseException | None:
        """Return the cause where it needs not travel; an exception of any class may not survive that."""
        return None if self._is_process else error

    def _transformed(self, table: pa.Table) -> pa.Table:
        if self._transform is None:
            return table
        result = self._transform(table)
        if result.num_rows != table.num_rows:
            raise DatasetError(
                f"the transform made {result.num_rows} rows of {table.num_rows}; it must keep each row, in order"
            )
        return result

    def _read(self, group: RowGroup) -> pa.Table:
        """Return the columns asked for, without deleted rows; reads again after an error that may pass."""
        pause = _FIRST_PAUSE_SECONDS
        for attempt in range(_ATTEMPTS):
            try:
                return self._read_once(group)
            except _LASTING:
                raise
            except Exception:
                # Whatever class the client of the store raises. A new connection may do better: open the file anew.
                self._files.pop(group.uri, None)
                if attempt == _ATTEMPTS - 1:
                    raise
                time.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 (not for secrets): ranks shall not return at once
                pause *= 2
        raise AssertionError("unreachable")

    def _read_once(self, group: RowGroup) -> pa.Table:
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
        table = file.read_row_group(
            group.number, columns=[name for name in in_file.values() if name is not None], use_threads=False
        )
        num_rows = file.metadata.row_group(group.number).num_rows  # also when no column is in the file
        arrays = {}
        for column in wanted:
            name = in_file[column.name]
            if name is not None:
                arrays[column.name] = _as_declared(table.column(name), column)
            elif column.type is not None:  # written before the column was added: null, as for Spark
                arrays[column.name] = pa.chunked_array([pa.nulls(num_rows, column.type)])
            else:
                raise DatasetError(f"no column {column.name}; there are {', '.join(file.schema_arrow.names)}")
        found = pa.table(arrays) if arrays else pa.table({"": pa.nulls(num_rows)}).select([])
        if group.deleted:
            first = sum(file.metadata.row_group(index).num_rows for index in range(group.number))
            is_deleted = unpack_rows(group.deleted, file.metadata.num_rows)[first : first + num_rows]
            found = found.filter(pa.array(~is_deleted))
        return found

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
    found = (field.name for field in schema if (field.metadata or {}).get(b"PARQUET:field_id") == wanted)
    return next(found, None)


def _as_declared(values: pa.ChunkedArray, column: TableColumn) -> pa.ChunkedArray:
    """Return the column in the table's type: a file may be older than a widening of it."""
    declared, found = column.type, values.type
    if declared is None or found == declared or not _is_plain(declared):
        return values
    if pa.types.is_timestamp(declared) and pa.types.is_timestamp(found) and found.tz is None:
        values = values.cast(pa.timestamp(found.unit, declared.tz))  # INT96: UTC without saying so
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
        """Items are numbered through all reads."""
        self.pool = (
            PlannedProcesses(self.options.workers)
            if self.options.pool == "process"
            else PlannedThreads(self.options.workers, results_queue_size=self.options.workers * _MAX_AHEAD * 4)
        )
        # The threads do not hold this object: where nobody closes it, they end when it goes.
        self._ending = weakref.finalize(self, self.pool.stop)
        self._notes = tempfile.NamedTemporaryFile(suffix=".at-work")  # noqa: SIM115 (goes with this object)
        self.at_work = _AtWork(self._notes.name)
        named = tuple(TableColumn.named(column) if isinstance(column, str) else column for column in columns)
        self.pool.start(RowGroupWorker, (named, transform, decode, self.options, os.getpid(), self._notes.name))

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
                    worker._worker_impl.shutdown()  # Petastorm's processes are told, its threads are not


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
        self._results_queue_reader = PlannedResults[Decoded](self.ventilator, len(planned), workers.at_work)
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
