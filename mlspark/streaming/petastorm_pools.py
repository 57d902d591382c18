"""Petastorm's pools of threads and processes, made to lose nothing and to notice a worker that is gone.

The stock readers on them are not used: they need pyarrow's removed legacy datasets, leave ranks unequal shards and lose row
groups (see `PlannedThreads`).
"""

import os
import queue
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from typing import Any

import dill

from mlspark.errors import DatasetError
from mlspark.streaming.petastorm_import import (
    ProcessPool,
    ThreadPool,
    VentilatedItemProcessedMessage,
    process_pool,
    thread_pool,
)

_START_SECONDS = 120.0
_END_SECONDS = 5.0
_LINGER_MILLISECONDS = 1000
_MOST_PATH = 60
_LOOK_SECONDS = 0.1  # how often a consumer that waits for a result checks whether a worker is gone


def _start_reader_process(function: Callable[..., None], *args: Any, **kwargs: Any) -> subprocess.Popen[bytes]:
    """Start a process that calls `function`: Petastorm's own imports petastorm first, which fails on new pyarrows."""
    handle, file = tempfile.mkstemp(suffix=".dill")
    with os.fdopen(handle, "wb") as content:
        dill.dump((function, args, kwargs), content)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", "mlspark.streaming.reader_process", file]
    return subprocess.Popen(command, env=environment)  # noqa: S603


process_pool.exec_in_new_process = _start_reader_process
# How often an idle thread checks whether it must end. Petastorm's 1 ms take 4 % of a core for two idle threads.
thread_pool.IO_TIMEOUT_INTERVAL_S = 0.02


class WorkerGoneError(Exception):
    """A thread or process of the pool is no more."""

    def __init__(self, how: str, worker_id: int | None = None) -> None:
        super().__init__(how)
        self.how, self.worker_id = how, worker_id


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
                    raise WorkerGoneError("was stopped") from None
                continue
            if isinstance(result, Exception):
                raise result
            if not isinstance(result, VentilatedItemProcessedMessage):
                self._num_results += 1
                return result


class PlannedProcesses(ProcessPool):  # type: ignore[misc]
    """Petastorm's processes, with a dead one noticed: stock `ProcessPool.get_results` waits for it for ever.

    They and this process talk in pickles, over sockets in a folder of this user's own; Petastorm's are TCP ports, to which
    anybody on the machine may send pickles.
    """

    def start(self, *args: Any, **kwargs: Any) -> None:
        # A socket's path has about 100 characters at most.
        place = None if len(tempfile.gettempdir()) < _MOST_PATH else "/tmp"  # noqa: S108 (a private folder in it)
        self._sockets = tempfile.TemporaryDirectory(prefix="mlspark-", dir=place)
        super().start(*args, **kwargs)

    def _create_local_socket_on_random_port(self, context: Any, socket_type: int) -> tuple[Any, str]:
        created = context.socket(socket_type)
        created.linger = _LINGER_MILLISECONDS
        address = f"ipc://{self._sockets.name}/{uuid.uuid4().hex[:12]}"
        created.bind(address)
        return created, address

    def get_results(self) -> Any:
        while not self._results_receiver_poller.poll(_LOOK_SECONDS * 1000):
            if self._ventilator.is_stopped:
                raise WorkerGoneError("was stopped")
            for worker_id, worker in enumerate(self._workers):
                if worker.poll() is not None:
                    status = worker.returncode
                    how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
                    raise WorkerGoneError(how, worker_id)
            if self._ventilator.error is not None:
                raise DatasetError("the order of reading could not be followed") from self._ventilator.error
        # One message is there, and it is a result or the note of a finished one; neither is the end of the epoch.
        rows, _ = self._results_receiver.recv_multipart(copy=self._zmq_copy_buffers)
        return self._serializer.deserialize(rows) if rows else None

    def _wait_for_workers_to_start(self) -> None:
        # Petastorm's own waits 20 seconds for each, even for dead ones.
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
        # Petastorm's own asks the workers to finish and waits for ever for one that is busy.
        deadline = time.monotonic() + _END_SECONDS
        while any(worker.poll() is None for worker in self._workers):
            self.stop()
            time.sleep(0.02)
            if time.monotonic() > deadline:
                for worker in self._workers:
                    worker.kill()
        super().join()
        self._sockets.cleanup()
