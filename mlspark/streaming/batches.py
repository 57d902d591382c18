"""Batches of one rank for one epoch, as torch tensors, in the order of the plan."""

import atexit
import threading
import time
import weakref
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, pairwise
from typing import Any, TypeAlias

import numpy as np
import torch

from mlspark.errors import DatasetError
from mlspark.streaming.background_iterator import BackgroundIterator
from mlspark.streaming.pictures import Gathering, Pictures
from mlspark.streaming.plan import RankPlan
from mlspark.streaming.reader import PlannedReader, Workers
from mlspark.streaming.reused_memory import keep_what_is_freed
from mlspark.streaming.rows import Allocate, Array, Ragged, Rows, RowsBuffer
from mlspark.streaming.snapshot import RowGroup
from mlspark.streaming.windows import Block, Blocks, cuts

_PIECE_BYTES = 4 * 2**20  # gathered at a time: some thousand rows, so that Python's part of a row is small
_PIECE_BYTES_OF_PICTURES = 8 * 2**20  # more work for each wait for Python's lock
_PIECES_AHEAD = 2
_BATCHES_CUT_AT_ONCE = 64
_ENDED = (
    "this iteration was ended by another thread, which closed the stream or iterates anew, while it waited for a batch"
)

TensorDict: TypeAlias = dict[str, torch.Tensor]
"""A batch: field -> tensor of B rows, at least one, "is_padding" (B,) bool among them.

A rank without a row in a step gets one that it has elsewhere in the epoch, marked in "is_padding": it must count nowhere.
"""


class Batches:
    """Iterates once over the batches of a rank; equal in number on every rank.

    The reader's workers decode; as many threads copy the rows of their row groups to where the epoch's order wants them in
    a window; the consumer only cuts batches off, views of the window, while the next one is filled. Rows in table order
    are not copied at all: batches are views of the row groups, but for those that hold rows of two. Windows that are large,
    smaller than a few batches, or with ragged fields are laid out in the table's order, and threads gather some megabytes of
    batches at a time from them, as they do from memory. In memory at a time: the window that batches are given out of and
    the next, the rest of the row groups at the windows' ends, the read-ahead, a row group for each worker and for each
    thread that copies; and a few megabytes of gathered rows, or a few batches of pictures.
    """

    def __init__(
        self,
        share: RankPlan,
        groups: Sequence[RowGroup],
        workers: Workers[Rows] | None,
        fields: Sequence[str],
        *,
        num_threads: int = 2,
        start_step: int = 0,
        pin_memory: bool = False,
        resident: Rows | None = None,
        pictures: Pictures | None = None,
        memory: Allocate = np.empty,
    ) -> None:
        """Start reading.

        Args:
            share: which rows, in which order.
            groups: the row groups that the plan counts.
            workers: read and decode, to arrays that may be written to where the share `is_in_table_order`; None with
                `resident`, unless this rank has no row.
            fields: names of the tensors, in order: one for each field, two (values, offsets) for a ragged one.
            num_threads: threads that copy rows to their places, or gather them.
            start_step: first step to yield.
            pin_memory: page-locked tensors, for asynchronous copies to a GPU; ordinary ones without a GPU.
            resident: the whole share as `read_share` returns it: nothing is read.
            pictures: what is done to fields of pictures, where there are any.
            memory: makes the arrays of windows.
        """
        if not 0 <= start_step <= share.plan.num_steps:
            raise DatasetError(f"start_step {start_step} is outside the epoch's {share.plan.num_steps} steps")
        self.num_steps = share.plan.num_steps
        self.step = start_step
        """Steps yielded so far, those before start_step included: the position to resume from."""
        self.wait_seconds = 0.0
        """Seconds that the consumer spent waiting for a batch."""
        self.is_closed = False
        self._share, self._groups, self._workers, self._resident = share, groups, workers, resident
        self._fields, self._pictures, self._is_over = tuple(fields), pictures, threading.Event()
        is_page_locked = pin_memory and torch.cuda.is_available()
        # Pixels have a memory of their own.
        self._allocate: Allocate = _pinned if is_page_locked else np.empty if pictures is not None else memory
        keep_what_is_freed()
        self._threads = ThreadPoolExecutor(num_threads, thread_name_prefix="mlspark-rows")
        self._windows: Blocks | None = None
        if workers is not None and share.num_rows:
            self._windows = Blocks(
                share,
                groups,
                workers,
                self._threads,
                num_threads=num_threads,
                fields=self._fields,
                memory=_pinned if is_page_locked else memory,
                is_page_locked=is_page_locked,
                has_pictures=pictures is not None,
            )
        num_ahead = _PIECES_AHEAD if pictures is not None else max(_PIECES_AHEAD, num_threads)
        self._ahead = BackgroundIterator(self._pieces(start_step), num_ahead)
        _open_batches.add(self)

    def __enter__(self) -> "Batches":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End reading; what was given stays valid. More than once is all right."""
        if self.is_closed:  # at the end of a script, when nothing that this method uses may be left
            return
        self.is_closed = True
        self._is_over.set()
        self._ahead.ignore_what_comes()  # else the consumer may be told of the stopped reader
        if self._windows is not None:
            self._windows.stop()  # else the thread waits for a row group that may take long
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._ahead.close(DatasetError(_ENDED))
        self._threads.shutdown()

    def __iter__(self) -> Iterator[TensorDict]:
        while self.step < self.num_steps:
            started = time.perf_counter()
            try:
                piece = next(self._ahead)
                rows = piece.rows()
            except CancelledError:
                raise DatasetError(_ENDED) from None
            self.wait_seconds += time.perf_counter() - started
            is_entered = False
            for batch in _cut(self._fields, rows, piece.sizes):
                self.step += 1
                yield batch
                if not is_entered and self._windows is not None:  # by now the batches of other windows have gone
                    self._windows.in_use.enter(piece.window)
                    is_entered = True
            del rows, batch, piece  # else their window stays until the next piece comes

    def _pieces(self, start_step: int) -> Iterator["_Piece"]:
        """Yield some batches at a time. Runs in the thread of `_ahead`."""
        if start_step == self.num_steps:
            return
        if not self._share.num_rows:  # fewer rows than ranks, or than lanes
            row = self._any_row()
            for _ in range(start_step, self.num_steps):
                gathering = self._gathering(1)
                gathering.append(row, np.zeros(1, np.int64))
                yield _Piece(partial(_done, gathering.rows([1], 1), gathering.pending), [0])
            return
        first_row = _wanted(self._share.step_edges(start_step, start_step + 1))[0]
        blocks = self._blocks(first_row)
        block = next(blocks)
        at_once, first = self._steps_at_once(block.rows), start_step
        while first < self.num_steps:
            if first_row >= block.end:
                block = next(blocks)
                continue
            stop = self._end_of_piece(block, first, at_once)
            edges = self._share.step_edges(first, stop)
            wanted, sizes = _wanted(edges), [stop - start for start, stop in pairwise(edges)]
            if self._pictures is None and wanted[-1] < block.end:
                yield self._piece_of(block, wanted, sizes)
            else:
                gathering, filled = self._gathering(len(wanted)), 0
                while filled < len(wanted):
                    if wanted[filled] >= block.end:
                        block = next(blocks)
                    block.wait()
                    end = bisect_left(wanted, block.end, lo=filled)
                    gathering.append(block.rows, block.places(wanted[filled:end]))
                    filled = end
                rows = self._gathered(gathering, sizes)
                if block.order is None and self._windows is not None:
                    self._windows.in_use.give(block.number)
                yield _Piece(partial(_done, rows, gathering.pending), sizes, block.number)
            first = stop
            if first < self.num_steps:
                first_row = _wanted(self._share.step_edges(first, first + 1))[0]

    def _piece_of(self, block: Block, wanted: Sequence[int], sizes: Sequence[int]) -> "_Piece":
        """Return batches of one block: views of it, or gathered by a thread."""
        if block.order is None:
            assert isinstance(wanted, range)
            assert self._windows is not None
            self._windows.in_use.give(block.number)
            return _Piece(partial(block.part, wanted), sizes, block.number)

        def gather() -> Rows:
            gathering = self._gathering(len(wanted))
            gathering.append(block.rows, block.places(wanted))
            return self._gathered(gathering, sizes)

        work = self._threads.submit(gather)
        block.readers.append(work)
        return _Piece(work.result, sizes)

    def _gathering(self, num_rows: int) -> Gathering:
        return Gathering(num_rows, self._allocate, self._pictures, self._share.plan.epoch, self._is_over)

    def _gathered(self, gathering: Gathering, sizes: Sequence[int]) -> Rows:
        return gathering.rows([max(1, size) for size in sizes], len(self._share.lanes))

    def _steps_at_once(self, block: Rows) -> int:
        """Return how many steps to gather at a time: whole batches, of some megabytes."""
        if self._pictures is None:
            piece_bytes, row_bytes = _PIECE_BYTES, block.nbytes // max(1, len(block))
        else:
            piece_bytes, row_bytes = _PIECE_BYTES_OF_PICTURES, self._pictures.row_bytes
        return max(1, piece_bytes // max(1, row_bytes) // self._batch_rows)

    def _end_of_piece(self, block: Block, first: int, at_once: int) -> int:
        """Return the step before which a piece ends that begins with step `first`, in that block."""
        if block.order is None and self._pictures is None and block.num_rows >= 2 * self._batch_rows:
            # All batches that lie in the block, or the one at its end.
            within = bisect_right(
                range(self.num_steps + 1),
                block.end,
                lo=first + 1,
                key=lambda step: self._share.step_edges(step, step)[0],
            )
            return max(first + 1, within - 1)
        return min(first + at_once, self.num_steps)

    @property
    def _batch_rows(self) -> int:
        """Rows of this rank in a batch, about."""
        plan = self._share.plan
        return max(1, plan.batch_size * len(self._share.lanes) // plan.lanes)

    def _blocks(self, first_row: int) -> Iterator[Block]:
        """Yield the blocks from the one on that holds this of the rank's rows."""
        if self._resident is None:
            assert self._windows is not None
            return self._windows.from_row(first_row)
        order = self._threads.submit(self._share.block_order, 0)
        return iter([Block(0, self._resident, 0, len(self._resident), order)])

    def _any_row(self) -> Rows:
        """Return a row of the table, for a rank that has none."""
        assert self._workers is not None
        some_group = np.flatnonzero(self._share.plan.rows_per_group)[:1]
        with PlannedReader(self._workers, self._groups, some_group) as reader:
            rows: Rows = next(reader)
        row = rows.slice(0, 1)  # of the first row group with rows: number 0
        return row if self._pictures is None else row.numbered(0)


_open_batches: "weakref.WeakSet[Batches]" = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """End reading while all that it needs is there: an iterator left open goes only when modules are being emptied."""
    for batches in list(_open_batches):
        batches.close()


@dataclass(frozen=True)
class _Piece:
    """Some batches."""

    rows: Callable[[], Rows]
    """Returns their rows, one batch after another, once they are whole."""
    sizes: Sequence[int]
    """Rows of each batch; 0: it has one, which is padding."""
    window: int = -1
    """Number of the block that they may be views of."""


def _done(rows: Rows, pending: Iterable[Future[None]]) -> Rows:
    for work in pending:
        work.result()
    return rows


def read_share(
    share: RankPlan,
    groups: Sequence[RowGroup],
    workers: Workers[Rows],
    *,
    limit_bytes: int,
    has_pictures: bool = False,
) -> Rows:
    """Return all rows of a rank's lanes, lane after lane, as `Batches` takes them for `resident`.

    Raises:
        DatasetError: they need more than `limit_bytes`.
    """
    segments = share.plan.segments(share.lanes)
    num_rows = sum(stop - start for start, stop in map(share.plan.lane_bounds, share.lanes))
    buffer = RowsBuffer(num_rows)
    with PlannedReader(workers, groups, segments.group) as reader:
        for decoded, cut, _ in cuts(segments, reader, share.plan, is_numbered=has_pictures):
            needed = decoded.nbytes * num_rows // max(1, len(decoded)) + 8 * num_rows  # with the order of an epoch
            if needed > limit_bytes:
                raise DatasetError(
                    f"the {num_rows:,} rows of rank {share.rank} of {share.world_size} need about {needed / 2**20:,.0f} MB, "
                    f"memory_bytes allows {limit_bytes / 2**20:,.0f} MB; raise it, use more ranks or fewer columns, "
                    f"or leave it out to stream from the files in every epoch"
                )
            buffer.append(cut)
    return buffer.rows()


def _wanted(edges: Sequence[int]) -> Sequence[int]:
    """Return which of the rank's rows the batches between `edges` hold, in order: never a lower one after a higher."""
    if all(start < stop for start, stop in pairwise(edges)):
        return range(edges[0], edges[-1])
    # A batch without a row gets the one before it, which is in memory, or the rank's first.
    parts = (range(start, stop) if start < stop else (max(0, start - 1),) for start, stop in pairwise(edges))
    return [row for part in parts for row in part]


def _cut(fields: Sequence[str], rows: Rows, sizes: Sequence[int]) -> Iterator[TensorDict]:
    """Yield batches of so many rows as views of `rows`; one of none has one row, which is marked."""
    start = 0
    for first in range(0, len(sizes), _BATCHES_CUT_AT_ONCE):
        some = sizes[first : first + _BATCHES_CUT_AT_ONCE]
        stop = start + sum(max(1, size) for size in some)
        yield from _cut_at_once(fields, rows.slice(start, stop), some)
        start = stop


def _cut_at_once(fields: Sequence[str], rows: Rows, sizes: Sequence[int]) -> list[TensorDict]:
    """Return batches of so many rows as views of `rows`; one of none has one row, which is marked."""
    lengths = [max(1, size) for size in sizes]
    # Made by numpy: torch would wake its pool of threads for it, which then spin for as long as the rest takes.
    is_padding = np.zeros(len(rows), np.bool_)
    ends = list(accumulate(lengths))
    is_padding[[end - 1 for size, end in zip(sizes, ends, strict=True) if not size]] = True
    columns: list[Sequence[torch.Tensor]] = []
    for field in rows.fields:
        if isinstance(field, Ragged):
            parts = [field.slice(end - length, end).compact() for length, end in zip(lengths, ends, strict=True)]
            columns.append([torch.from_numpy(_writable(part.values)) for part in parts])
            columns.append([torch.from_numpy(part.offsets) for part in parts])
        else:
            columns.append(torch.split(torch.from_numpy(field), lengths))
    columns.append(torch.split(torch.from_numpy(is_padding), lengths))
    return [dict(zip((*fields, "is_padding"), tensors, strict=True)) for tensors in zip(*columns, strict=True)]


def _writable(array: Array) -> Array:
    return array if array.flags.writeable else array.copy()


def _pinned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Return an array in page-locked memory."""
    of_numpy = torch.from_numpy(np.empty(0, dtype)).dtype
    return torch.empty(shape, dtype=of_numpy, pin_memory=True).numpy()
