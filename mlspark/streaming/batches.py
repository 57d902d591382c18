"""Batches of one rank for one epoch, as torch tensors, in the order of the plan."""

import atexit
import threading
import time
import weakref
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, TypeAlias

import numpy as np
import torch

from mlspark.errors import DatasetError
from mlspark.streaming.background_iterator import BackgroundIterator
from mlspark.streaming.pictures import Gathering, Pictures
from mlspark.streaming.plan import Integers, Plan, RankPlan, Segments
from mlspark.streaming.reader import PlannedReader, Workers
from mlspark.streaming.rows import Allocate, Array, Ragged, Rows, RowsBuffer
from mlspark.streaming.snapshot import RowGroup

_PIECE_BYTES = 4 * 2**20  # gathered at a time: some thousand rows, so that Python's part of a row is small
_PIECE_BYTES_OF_PICTURES = 8 * 2**20  # more work for each wait for Python's lock
_PIECES_AHEAD = 2
_LEAST_ROW_BYTES_IN_ORDER = 512  # of narrower rows, new windows cost more in page faults than a copy
_MOST_BYTES_IN_ORDER = 3 * 2**27  # a window of pictures, by default, and columns beside; there are two at a time

TensorDict: TypeAlias = dict[str, torch.Tensor]
"""A batch: field -> tensor of B rows, at least one, "is_padding" (B,) bool among them.

A rank without a row in a step gets one that it has elsewhere in the epoch, marked in "is_padding": it must count nowhere.
"""


class Batches:
    """Iterates once over the batches of a rank; equal in number on every rank.

    The reader's workers decode; a thread puts the rows of their row groups where the epoch's order wants them in windows;
    the consumer only cuts batches off. Windows that are large, of narrow rows, with ragged fields, or that become
    page-locked tensors are laid out in the table's order, and batches gathered from them. In memory at a time: a window of
    each of the rank's lanes, or two where they are put in order, the rest of the row groups at the windows' ends, the
    read-ahead, and a few megabytes of gathered rows, or a few batches of pictures.
    """

    def __init__(
        self,
        share: RankPlan,
        groups: Sequence[RowGroup],
        workers: Workers[Rows] | None,
        fields: Sequence[str],
        *,
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
            workers: read and decode; None with `resident`, unless this rank has no row.
            fields: names of the tensors, in order: one for each field, two (values, offsets) for a ragged one.
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
        self._memory = memory
        self._allocate: Allocate = _pinned if pin_memory and torch.cuda.is_available() else np.empty
        self._reader: PlannedReader[Rows] | None = None
        self._gathered: deque[TensorDict] = deque()
        self._ahead = BackgroundIterator(self._pieces(start_step), _PIECES_AHEAD)
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
        if self._reader is not None:
            self._reader.stop()  # else the thread waits for a row group that may take long
        self._ahead.close()

    def __iter__(self) -> Iterator[TensorDict]:
        while self.step < self.num_steps:
            if not self._gathered:
                started = time.perf_counter()
                batches, pending = next(self._ahead)
                for work in pending:
                    work.result()
                self._gathered.extend(batches)
                self.wait_seconds += time.perf_counter() - started
            batch = self._gathered.popleft()
            self.step += 1
            yield batch

    def _pieces(self, start_step: int) -> Iterator[tuple[list[TensorDict], list[Future[None]]]]:
        """Yield some batches at a time, and the work after which they are whole. Runs in the thread of `_ahead`."""
        if start_step == self.num_steps:
            return
        if not self._share.num_rows:  # fewer rows than ranks, or than lanes
            row = self._any_row()
            for _ in range(start_step, self.num_steps):
                gathering = self._gathering(1)
                gathering.append(row, np.zeros(1, np.int64))
                yield _cut(self._fields, gathering.rows([1], 1), [0]), gathering.pending
            return
        first_row = _wanted(self._share.step_edges(start_step, start_step + 1))[0]
        blocks = self._blocks(first_row // self._share.block_rows)
        block = next(blocks)
        for first, stop in self._steps_of_pieces(block.rows, start_step):
            edges = self._share.step_edges(first, stop)
            wanted = _wanted(edges)
            gathering, filled = self._gathering(len(wanted)), 0
            while filled < len(wanted):
                if wanted[filled] >= block.end:
                    block = next(blocks)
                end = bisect_left(wanted, block.end, lo=filled)
                gathering.append(block.rows, block.places(wanted[filled:end]))
                filled = end
            sizes = [stop - start for start, stop in pairwise(edges)]
            rows = gathering.rows([max(1, size) for size in sizes], len(self._share.lanes))
            yield _cut(self._fields, rows, sizes), gathering.pending

    def _gathering(self, num_rows: int) -> Gathering:
        return Gathering(num_rows, self._allocate, self._pictures, self._share.plan.epoch, self._is_over)

    def _steps_of_pieces(self, block: Rows, start_step: int) -> Iterator[tuple[int, int]]:
        """Yield (first, stop) of the steps to gather at a time: whole batches, of some megabytes."""
        if self._pictures is None:
            piece_bytes, row_bytes = _PIECE_BYTES, block.nbytes // max(1, len(block))
        else:
            piece_bytes, row_bytes = _PIECE_BYTES_OF_PICTURES, self._pictures.row_bytes
        plan = self._share.plan
        batch_rows = max(1, plan.batch_size * len(self._share.lanes) // plan.lanes)
        num_steps = max(1, piece_bytes // max(1, row_bytes) // batch_rows)
        for first in range(start_step, plan.num_steps, num_steps):
            yield first, min(first + num_steps, plan.num_steps)

    def _blocks(self, first_block: int) -> Iterator["_Block"]:
        """Yield the blocks from that one on; the rows of one that has an order are valid until the next."""
        share = self._share
        if self._resident is not None:
            yield _Block(self._resident, share.block_order(0), 0, len(self._resident))
            return
        segments = share.plan.segments(share.lanes, first_block)
        assert self._workers is not None
        is_numbered = self._pictures is not None
        with PlannedReader(self._workers, self._groups, segments.group) as reader:
            self._reader = reader
            cuts = _cuts(segments, reader, share.plan, is_numbered=is_numbered)
            left = _Left(zip(segments.lane.tolist(), cuts, strict=True))
            buffer: RowsBuffer | None = None
            for block in range(first_block, share.num_blocks):
                shares, begin = share.block_lanes(block), block * share.block_rows
                num_rows, order = sum(rows for _, rows in shares), share.block_order(block)
                if self._is_put_in_order(block, left.next_of(shares[0][0]), num_rows):
                    buffer, places = RowsBuffer(min(share.block_rows, share.num_rows), self._memory), _inverse(order)
                    for rows in left.take(shares):
                        buffer.append_at(places[buffer.filled : buffer.filled + len(rows)], rows)
                        del rows  # else the row group stays until the next one comes
                    yield _Block(buffer.rows(), None, begin, num_rows)
                    buffer = None
                else:
                    if buffer is None or buffer.capacity < num_rows:
                        buffer = RowsBuffer(num_rows)
                    buffer.clear()
                    for rows in left.take(shares):
                        buffer.append(rows)
                        del rows
                    yield _Block(buffer.rows(), order, begin, num_rows)

    def _is_put_in_order(self, block: int, some: Rows, num_rows: int) -> bool:
        """Return whether a block of so many rows like `some` is put in the epoch's order while it comes."""
        share, plan = self._share, self._share.plan
        if self._allocate is not np.empty or any(isinstance(field, Ragged) for field in some.fields):
            return False
        # Where a row is handed out twice, as padding, it must be as it was read.
        start, stop = share.step_edges(plan.num_steps - 1, plan.num_steps)
        if plan.batch_size < plan.lanes or (start == stop and block == share.num_blocks - 1):
            return False
        row_bytes = some.nbytes / max(1, len(some))
        return row_bytes >= _LEAST_ROW_BYTES_IN_ORDER and row_bytes * num_rows <= _MOST_BYTES_IN_ORDER

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


def _cuts(segments: Segments, reader: Iterable[Rows], plan: Plan, *, is_numbered: bool) -> Iterator[tuple[Rows, Rows]]:
    """Yield each row group and its rows that a segment holds; with one more field for their numbers in the snapshot."""
    starts = (np.cumsum(plan.rows_per_group) - plan.rows_per_group)[segments.group] + segments.start
    places = zip(segments.start.tolist(), segments.stop.tolist(), starts.tolist(), reader, strict=True)
    for start, stop, number, decoded in places:
        cut = decoded.slice(start, stop)
        yield decoded, cut.numbered(number) if is_numbered else cut


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
        for decoded, cut in _cuts(segments, reader, share.plan, is_numbered=has_pictures):
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


def _inverse(order: Integers) -> Integers:
    """Return where in the epoch's order each row of a block stands."""
    places = np.empty_like(order)
    places[order] = np.arange(len(order))
    return places


@dataclass(frozen=True)
class _Block:
    """Windows of a rank's lanes, in memory."""

    rows: Rows
    order: Integers | None
    """Places of the rows in the epoch's order; None: they stand in it, in memory that nobody else uses."""
    begin: int
    """This rank's rows before it."""
    num_rows: int

    @property
    def end(self) -> int:
        return self.begin + self.num_rows

    def places(self, wanted: Sequence[int]) -> Integers | slice:
        """Return where the wanted ones of the rank's rows are; a slice: they stand there one after another."""
        if isinstance(wanted, range):
            part = slice(wanted.start - self.begin, wanted.stop - self.begin)
            return part if self.order is None else self.order[part]
        rows = np.array(wanted, dtype=np.int64) - self.begin
        return rows if self.order is None else self.order[rows]


class _Left:
    """What is left of the row groups that were read, of each lane."""

    def __init__(self, cuts: Iterator[tuple[int, tuple[Rows, Rows]]]) -> None:
        """Take (lane, (row group, its rows of a segment)), in the order in which windows need them."""
        self._cuts = cuts
        self._left: dict[int, deque[Rows]] = {}

    def next_of(self, lane: int) -> Rows:
        """Return the rows that come next of a lane."""
        left = self._left.setdefault(lane, deque())
        if not left:
            of_lane, (_, cut) = next(self._cuts)
            assert of_lane == lane, (of_lane, lane)
            left.append(cut)
        return left[0]

    def take(self, shares: Iterable[tuple[int, int]]) -> Iterator[Rows]:
        """Yield so many rows of each lane."""
        for lane, num_rows in shares:
            while num_rows:
                head = self.next_of(lane)
                self._left[lane].popleft()
                if len(head) > num_rows:
                    self._left[lane].appendleft(head.slice(num_rows, len(head)))
                    head = head.slice(0, num_rows)
                num_rows -= len(head)
                yield head


def _cut(fields: Sequence[str], rows: Rows, sizes: Sequence[int]) -> list[TensorDict]:
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
