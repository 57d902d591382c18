"""Which row groups are read before they are asked for: in planned order, up to a number of bytes."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mlspark import storage
from mlspark.streaming.petastorm_import import Ventilator
from mlspark.streaming.plan import DEFAULT_READ_AHEAD_BYTES
from mlspark.streaming.snapshot import RowGroup

MAX_AHEAD = 4096
"""Most row groups that are read ahead, however small they are."""

_LOCAL_WORKERS, _REMOTE_WORKERS = 2, 4


def default_workers(table: str) -> int:
    """Return how many workers read a table at that URI unless a number is asked for: more where each request takes long."""
    return _LOCAL_WORKERS if storage.is_local(table) else _REMOTE_WORKERS


@dataclass(frozen=True)
class ReadOptions:
    """How row groups are read."""

    workers: int = _LOCAL_WORKERS
    pool: Literal["thread", "process"] = "thread"
    """Kind of the workers: threads share this process and copy nothing; processes suit a transform written in Python."""
    read_ahead_bytes: int = DEFAULT_READ_AHEAD_BYTES
    """Most bytes of decoded rows that are read and not yet taken; one row group per worker is always allowed."""
    cache_folder: str = ""
    """Local folder that keeps what was read, for later epochs, ranks and runs; empty: none."""
    cache_bytes: int = 10 * 2**30
    """Most bytes of that folder."""


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
        except BaseException as error:  # raised where a result is waited for
            self.error = error

    def _has_room(self, rows: int) -> bool:
        ahead = self._next - self._taken
        if ahead < self._options.workers:
            return True
        if not self._rows_seen or ahead >= MAX_AHEAD:
            return False
        return (self._rows_ahead + rows) * self._bytes_seen <= self._options.read_ahead_bytes * self._rows_seen
