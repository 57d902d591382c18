"""Processes that fill batches with pictures: Python runs one thread of a process at a time, and decoding needs much of it.

Threads take Python's part in turns with each other and with the loop that trains: two of them decode 0.77 of the 500x375
JPEGs that two processes do in a bare loop, and 0.4 of 32x32 ones. So threads of a stream, once they have worked for a while,
hand their pictures to processes and wait. Files and random numbers go there, and pixels come back, in memory that they
share; the bits are those that a thread computes.

One process imports what is needed and is copied (fork), so that the memory of libraries is there once. They end when
the sockets to the process that started them close, however it ended.
"""

import logging
import mmap
import os
import pickle
import queue
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from functools import lru_cache
from io import FileIO
from typing import Any

import numpy as np

from mlspark.pictures.augment import Draws, Pictures
from mlspark.pictures.filling import Filling

logger = logging.getLogger(__name__)

AREA_BYTES = 2**21
"""Most bytes that go to a process at a time, and that come back."""
MOST_AT_ONCE = 512
"""Pictures that go to a process at a time; the system writes up to 1,024 values at once."""
_SECONDS_IN_THREADS = 0.25  # of processor time in threads before processes start, about what a start takes
_LOOK_SECONDS = 0.5  # how often one who waits looks whether the other side is still there
_END_SECONDS = 5.0
_REQUEST = struct.Struct("<II")  # number of a slot, bytes of what stands in it before the files
_READY = b"ready"
_SIGNALLED = 128  # status of a process that a signal ended: this and the signal's number
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class FillersGoneError(Exception):
    """A process that was to fill pictures in is no more."""


class Fillers:
    """Fill pictures into batches for threads, as `Filling` does: in those threads at first, in processes later.

    Streams with equally many workers share them. Processes start when there is work for them, and end with the last stream.
    """

    def __init__(self, num_workers: int) -> None:
        self.num_threads = 2 * num_workers
        """Threads that may call `fill`: while one copies what came back, its process has the next pictures."""
        self._num_workers, self._lock = num_workers, threading.Lock()
        self._places = threading.Semaphore(num_workers)  # for filling in threads
        self._seconds_in_threads: dict[Filling, float] = {}  # of processor time
        self._processes: _Processes | None = None
        self._is_refused = not hasattr(os, "memfd_create")  # elsewhere than on Linux

    @classmethod
    def of(cls, num_workers: int) -> "Fillers":
        """Return those of so many workers."""
        return _known.setdefault(num_workers, cls(num_workers))

    def fill(self, filling: Filling, pictures: Pictures, values: Sequence[Any] | None, draws: Sequence[Draws]) -> None:
        """Write stored values into `pictures` (n, C, H, W), changed by random numbers; None: they hold pixels already.

        Raises:
            UnreadablePicture: a value is no picture; holds its number among `values`.
            FillersGoneError: the process that was to do it was killed.
        """
        processes = self._ready() if self._is_for_processes(filling, values) else None
        if processes is None or not processes.has_room(pictures, values, draws):
            self._fill_here(filling, pictures, values, draws)
            return
        try:
            processes.fill(filling, pictures, values, draws)
        except FillersGoneError:
            with self._lock:
                self._processes = None if self._processes is processes else self._processes
            raise

    def _fill_here(
        self, filling: Filling, pictures: Pictures, values: Sequence[Any] | None, draws: Sequence[Draws]
    ) -> None:
        with self._places:
            seconds, started = self._seconds_in_threads.get(filling), time.thread_time()
            if values is None:
                filling.change(pictures, draws)
            else:
                filling.fill(pictures, values, draws)
            # What the first time took was for imports.
            self._seconds_in_threads[filling] = 0.0 if seconds is None else seconds + time.thread_time() - started

    def _is_for_processes(self, filling: Filling, values: Sequence[Any] | None) -> bool:
        if self._is_refused or self._seconds_in_threads.get(filling, -1.0) < _SECONDS_IN_THREADS:
            return False
        # Pixels are moved and mirrored all at once by numpy, which would not be worth the copies.
        return values is not None or filling.changes_colours

    def _ready(self) -> "_Processes | None":
        """Return the processes, once they are ready; start them where there are none."""
        processes = self._processes
        if processes is not None and processes.is_ready:
            return processes
        with self._lock:
            try:
                self._processes = self._processes or _Processes(self._num_workers, list(self._seconds_in_threads))
                why = self._processes.look()
            except OSError as error:
                why = str(error)
            if not why:
                return self._processes if self._processes is not None and self._processes.is_ready else None
            self._processes, self._is_refused = None, True
        logger.warning("pictures are decoded in threads only, because processes for it did not start: %s", why)
        return None


_known: "weakref.WeakValueDictionary[int, Fillers]" = weakref.WeakValueDictionary()


class _Processes:
    """Started processes, and the memory that this one shares with them: a slot for each thread that waits."""

    def __init__(self, num_processes: int, fillings: Sequence[Filling]) -> None:
        num_slots = 2 * num_processes
        self.is_ready = False
        self._free: queue.SimpleQueue[int] = queue.SimpleQueue()
        with ExitStack() as theirs:
            # No name that stays behind, and no part of /dev/shm, which is small in containers.
            self._file = os.fdopen(os.memfd_create("mlspark-pictures"), "r+b", buffering=0)
            self._file.truncate(num_slots * 2 * AREA_BYTES)
            self._memory = mmap.mmap(self._file.fileno(), 0)
            handles, sockets = [self._file.fileno()], []
            for _ in range(1 + num_slots):
                mine, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                theirs.callback(other.close)
                _look_up_while_waiting(mine)
                sockets.append(mine)
                handles.append(other.fileno())
            self._requests, self._answers = sockets[0], sockets[1:]
            path = os.pathsep.join(filter(None, sys.path))
            self._process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", "mlspark.pictures.processes", str(num_processes), *map(str, handles)],
                stdin=subprocess.PIPE,
                pass_fds=handles,
                env=os.environ | _ONE_THREAD | {"PYTHONPATH": path},
            )
        self._ending = weakref.finalize(self, _end, self._process, [self._file, *sockets])
        assert self._process.stdin is not None
        with self._process.stdin as stdin:
            stdin.write(pickle.dumps(fillings))
        for slot in range(num_slots):
            self._free.put(slot)

    def look(self) -> str:
        """Take note if they are ready; return what went wrong, or "" where nothing did."""
        if self.is_ready:
            return ""
        with suppress(BlockingIOError, ConnectionError):
            self.is_ready = self._answers[0].recv(len(_READY), socket.MSG_DONTWAIT) == _READY
        return "" if self.is_ready or self._process.poll() is None else self._how_it_ended()

    def has_room(self, pictures: Pictures, values: Sequence[Any] | None, draws: Sequence[Draws]) -> bool:
        """Return whether all of it fits into a slot. Much larger pictures take long to decode: threads do not mind."""
        if pictures.nbytes > AREA_BYTES or len(pictures) > MOST_AT_ONCE:
            return False
        num_bytes = sum(draw.nbytes for draw in draws) + sum(map(len, values or ())) + 16 * len(pictures)
        return num_bytes < AREA_BYTES - 2**16

    def fill(self, filling: Filling, pictures: Pictures, values: Sequence[Any] | None, draws: Sequence[Draws]) -> None:
        slot = self._free.get()
        try:
            start = slot * 2 * AREA_BYTES
            lengths = None if values is None else list(map(len, values))
            head = pickle.dumps((_pickled(filling), pictures.shape, lengths, [*map(np.ascontiguousarray, draws)]))
            num_written = os.pwritev(self._file.fileno(), [head, *(values or ())], start)
            assert num_written == len(head) + sum(lengths or ())
            shared = np.ndarray(pictures.shape, np.uint8, self._memory, start + AREA_BYTES)
            if values is None:
                shared[...] = pictures
            try:
                self._requests.send(_REQUEST.pack(slot, len(head)))
                error = self._answer(slot)
            except ConnectionError:
                raise self._gone() from None
            if error is not None:
                raise error
            pictures[...] = shared
        finally:
            self._free.put(slot)

    def _answer(self, slot: int) -> Exception | None:
        """Return what went wrong with the pictures in a slot, when they are done."""
        while True:
            try:
                content = self._answers[slot].recv(2**16)
            except BlockingIOError:
                if self._process.poll() is not None:
                    raise self._gone() from None
                continue
            if not content:
                raise self._gone()
            error: Exception | None = pickle.loads(content)  # noqa: S301 (of a process that this one started)
            return error

    def _gone(self) -> FillersGoneError:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_SECONDS)
        return FillersGoneError(self._how_it_ended())

    def _how_it_ended(self) -> str:
        status = self._process.poll()
        if status is not None and abs(status) % _SIGNALLED and (status < 0 or status > _SIGNALLED):
            return f"was killed by signal {abs(status) % _SIGNALLED}"
        return f"ended with status {status}"


def _end(process: "subprocess.Popen[bytes]", handles: Sequence[FileIO | socket.socket]) -> None:
    for handle in handles:  # the others end with the sockets, this one may be importing still
        handle.close()
    process.kill()
    process.wait()


def _look_up_while_waiting(connection: socket.socket) -> None:
    """Have `recv` raise BlockingIOError from time to time. A timeout of Python's would wake all who wait at a message."""
    connection.settimeout(None)
    seconds = int(_LOOK_SECONDS)
    interval = struct.pack("@ll", seconds, int((_LOOK_SECONDS - seconds) * 1e6))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, interval)


@lru_cache(maxsize=16)
def _pickled(filling: Filling) -> bytes:
    return pickle.dumps(filling)


@lru_cache(maxsize=16)
def _unpickled(filling: bytes) -> Filling:
    value: Filling = pickle.loads(filling)  # noqa: S301 (of the process that started this one)
    return value


# What runs in the processes: python -m mlspark.pictures.processes NUMBER MEMORY REQUESTS ANSWERS...


def main(num_processes: int, memory: int, requests: int, answers: Sequence[int]) -> int:
    """Import what is needed, start the others, and wait until one of them or the process that started this one is gone."""
    # Who is interrupted at a terminal decides what becomes of its processes.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    starter, fillings = os.getppid(), sys.stdin.buffer.read()
    if not fillings:  # that process is gone already
        return 1
    for filling in pickle.loads(fillings):  # noqa: S301 (of the process that started this one)
        filling.load()
    shared = mmap.mmap(memory, 0)
    connections = [socket.socket(fileno=handle) for handle in (requests, *answers)]
    children, status = [], 1
    for _ in range(num_processes):
        child = os.fork()
        if not child:
            try:
                _serve(shared, connections[0], connections[1:], os.getppid())
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    with suppress(ConnectionError):  # the others notice, too, that nobody is there
        connections[1].send(_READY)
    for connection in connections:
        connection.close()
    status = 0
    while children and os.getppid() == starter and not status:
        child, ended = os.waitpid(-1, os.WNOHANG)
        if not child:
            time.sleep(_LOOK_SECONDS / 5)
            continue
        children.remove(child)
        status = os.waitstatus_to_exitcode(ended)
    for child in children if status or os.getppid() != starter else ():
        os.kill(child, signal.SIGKILL)
    return _SIGNALLED - status if status < 0 else status


def _serve(memory: mmap.mmap, requests: socket.socket, answers: Sequence[socket.socket], starter: int) -> None:
    """Fill pictures in until nobody can ask for it any more."""
    _look_up_while_waiting(requests)
    while True:
        try:
            request = requests.recv(_REQUEST.size)
        except BlockingIOError:
            if os.getppid() != starter:
                return
            continue
        if not request:
            return
        slot, head = _REQUEST.unpack(request)
        error: Exception | None = None
        try:
            _fill(memory, slot * 2 * AREA_BYTES, head)
        except Exception as raised:
            error = raised
        try:
            answer = pickle.dumps(error)
        except Exception:
            answer = pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))
        try:
            answers[slot].send(answer)
        except ConnectionError:
            return


def _fill(memory: mmap.mmap, start: int, head: int) -> None:
    place = start + head
    filling, shape, lengths, draws = pickle.loads(memory[start:place])  # noqa: S301 (of the process that started this one)
    pictures = np.ndarray(shape, np.uint8, memory, start + AREA_BYTES)
    if lengths is None:
        _unpickled(filling).change(pictures, draws)
        return
    values = []
    for length in lengths:
        values.append(memory[place : place + length])
        place += length
    _unpickled(filling).fill(pictures, values, draws)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), [int(handle) for handle in sys.argv[4:]]))
