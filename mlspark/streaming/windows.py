"""A rank's rows in memory, a block at a time, laid out by threads: in the order of the epoch, or to be gathered from."""

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mlspark.errors import DatasetError
from mlspark.streaming.plan import Integers, Plan, RankPlan, Segments
from mlspark.streaming.reader import PlannedReader, Workers
from mlspark.streaming.rows import Allocate, FieldError, Ragged, Rows, RowsBuffer
from mlspark.streaming.snapshot import RowGroup

_MOST_BYTES_IN_ORDER = 3 * 2**27  # a window of pictures, by default, and columns beside; there are two at a time
_MOST_BYTES_PAGE_LOCKED = 2**27
_FEWEST_BATCHES_IN_ORDER = 4  # of smaller windows most batches are gathered from several
_FEWEST_ROWS_AT_ONCE, _MOST_ROWS_AT_ONCE = 2**14, 2**16  # a thread's work takes about a millisecond


@dataclass(frozen=True)
class Block:
    """Rows of a rank that follow each other in the epoch."""

    number: int
    rows: Rows
    """Whole when `pending` is done."""
    begin: int
    """This rank's rows before it."""
    num_rows: int
    order: "Future[Integers] | None" = None
    """Places of the rows in the epoch's order; None: they stand in it, in memory that nobody else uses."""
    pending: "Sequence[Future[None]]" = ()
    readers: "list[Future[Any]]" = field(default_factory=list)
    """What gathers from the rows; they stay as they are until it is done."""

    @property
    def end(self) -> int:
        return self.begin + self.num_rows

    def wait(self) -> None:
        """Wait until the rows are whole; raise what went wrong."""
        for work in self.pending:
            work.result()

    def part(self, wanted: range) -> Rows:
        """Return these of the rank's rows, once they are whole, without copying them; for a block in order."""
        self.wait()
        return self.rows.slice(wanted.start - self.begin, wanted.stop - self.begin)

    def places(self, wanted: Sequence[int]) -> Integers | slice:
        """Return where these of the rank's rows are; a slice: they stand there one after another."""
        order = None if self.order is None else self.order.result()
        if isinstance(wanted, range):
            part = slice(wanted.start - self.begin, wanted.stop - self.begin)
            return part if order is None else order[part]
        rows = np.array(wanted, dtype=np.int64) - self.begin
        return rows if order is None else order[rows]


class WindowsInUse:
    """The windows that batches were given out of: beside the last of them, one more is filled, and no other."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._given: list[int] = []
        self._is_over = False

    def give(self, number: int) -> None:
        """Take note that batches are about to be given that are views of a window."""
        with self._changed:
            if number not in self._given:
                self._given.append(number)

    def enter(self, number: int) -> None:
        """Take note that the consumer has a batch of that window, and let go of those before."""
        with self._changed:
            if self._given and self._given[0] < number:
                self._given = [given for given in self._given if given >= number]
                self._changed.notify()

    def wait_for_room(self) -> None:
        """Wait until another window may be begun. The consumer gets there with what it was given already."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_over or len(self._given) < 2)

    def close(self) -> None:
        with self._changed:
            self._is_over = True
            self._changed.notify()


class Blocks:
    """Makes the blocks of a rank, one after another, for one iteration."""

    def __init__(
        self,
        share: RankPlan,
        groups: Sequence[RowGroup],
        workers: Workers[Rows],
        threads: ThreadPoolExecutor,
        *,
        num_threads: int,
        fields: Sequence[str],
        memory: Allocate,
        is_page_locked: bool = False,
        has_pictures: bool = False,
    ) -> None:
        """Read nothing yet.

        Args:
            share: which rows, in which order.
            groups: the row groups that the plan counts.
            workers: read and decode.
            threads: copy rows to where the order wants them.
            num_threads: how many they are.
            fields: names of the tensors; for errors.
            memory: makes the arrays of windows in order.
            is_page_locked: whether that memory is.
            has_pictures: rows get one more field then, their numbers in the snapshot.
        """
        self._share, self._groups, self._workers, self._threads = share, groups, workers, threads
        self._fields, self._memory = fields, memory
        self._is_page_locked, self._has_pictures = is_page_locked, has_pictures
        self.in_use = WindowsInUse()
        self._copies: deque[Future[None]] = deque()
        self._num_threads = num_threads
        self._reader: PlannedReader[Rows] | None = None

    def stop(self) -> None:
        """Have the thread that waits for a block wait no longer."""
        self.in_use.close()
        if self._reader is not None:
            self._reader.stop()

    def from_row(self, first_row: int) -> Iterator[Block]:
        """Yield the blocks from the one on that holds this of the rank's rows.

        The rows of one that has an order are valid until the next, and until its `readers` are done.
        """
        share = self._share
        if (
            share.is_in_table_order
            and share.hands_out_rows_once
            and not self._is_page_locked
            and not self._has_pictures
        ):
            yield from self._row_groups(first_row)
        else:
            yield from self._windows(first_row // share.block_rows)

    def _row_groups(self, first_row: int) -> Iterator[Block]:
        """Yield row groups as they were decoded, which the worker has made the rank's own."""
        share = self._share
        window = first_row // share.block_rows
        segments, begin = share.plan.segments(share.lanes, window), window * share.block_rows
        ends = begin + np.cumsum(segments.stop - segments.start)
        passed = int(np.searchsorted(ends, first_row, side="right"))
        segments, begin = segments.after(passed), int(ends[passed - 1]) if passed else begin
        with self._read(segments) as reader:
            for number, (_, rows, _) in enumerate(self._cuts(segments, reader)):
                yield Block(number, rows, begin, len(rows))
                begin += len(rows)

    def _windows(self, first_block: int) -> Iterator[Block]:
        """Yield windows of the rank's lanes."""
        share = self._share
        segments = share.plan.segments(share.lanes, first_block)
        with self._read(segments) as reader:
            left = _Left(segments.lane.tolist(), self._cuts(segments, reader), share.plan.window_rows)
            buffer: RowsBuffer | None = None
            for number in range(first_block, share.num_blocks):
                shares = share.block_lanes(number)
                num_rows = sum(rows for _, rows in shares)
                if self._is_put_in_order(number, left.next_of(shares[0][0])[0], num_rows):
                    buffer = None
                    self.in_use.wait_for_room()
                    yield self._in_order(number, shares, num_rows, left)
                    continue
                if buffer is None or buffer.capacity < num_rows:
                    buffer = RowsBuffer(num_rows)
                buffer.clear()
                order = self._threads.submit(share.block_order, number)
                for lane, of_lane in shares:
                    for rows, _ in left.take(lane, of_lane):
                        buffer.append(rows)
                        del rows  # else the row group stays until the next one comes
                block = Block(number, buffer.rows(), number * share.block_rows, num_rows, order)
                yield block
                wait(block.readers)

    def _in_order(self, number: int, shares: Sequence[tuple[int, int]], num_rows: int, left: "_Left") -> Block:
        """Return a window whose rows threads are putting in the epoch's order."""
        share = self._share
        buffer = RowsBuffer(min(share.block_rows, share.num_rows), self._memory)
        pending: list[Future[None]] = []
        copies: list[_Copy] = []
        for (lane, of_lane), places in zip(shares, self._placed(number, shares), strict=True):
            start = 0
            for rows, group in left.take(lane, of_lane):
                buffer.allocate_for(rows)
                for first in range(0, len(rows), _MOST_ROWS_AT_ONCE):
                    part = rows.slice(first, first + _MOST_ROWS_AT_ONCE)
                    copies.append(_Copy(part, places, start + first, self._groups[group]))
                    if sum(len(copy.rows) for copy in copies) >= _FEWEST_ROWS_AT_ONCE:
                        pending.append(self._start(buffer, copies))
                        copies = []
                    del part
                start += len(rows)
                del rows
                while len(self._copies) >= self._num_threads:  # a row group stays in memory until it is copied
                    self._copies.popleft().result()
        if copies:
            pending.append(self._start(buffer, copies))
        return Block(number, buffer.whole(num_rows), number * share.block_rows, num_rows, pending=pending)

    def _start(self, buffer: RowsBuffer, copies: "Sequence[_Copy]") -> "Future[None]":
        """Have a thread copy rows."""
        self._copies.append(self._threads.submit(_put, buffer, copies, self._fields))
        return self._copies[-1]

    def _placed(self, number: int, shares: Sequence[tuple[int, int]]) -> "Iterator[_Places]":
        """Yield where the rows of each of a window's lanes go, which a thread finds out when it is asked for."""
        lanes_at_once = max(1, _FEWEST_ROWS_AT_ONCE * len(shares) // max(1, sum(rows for _, rows in shares)))
        for first in range(0, len(shares), lanes_at_once):
            columns = range(first, min(first + lanes_at_once, len(shares)))
            work = self._threads.submit(_lane_places, self._share, number, shares, columns)
            yield from (_Places(work, index) for index in range(len(columns)))

    def _is_put_in_order(self, block: int, some: Rows, num_rows: int) -> bool:
        """Return whether a block of so many rows like `some` is put in the epoch's order while it comes."""
        share = self._share
        if any(isinstance(rows, Ragged) for rows in some.fields) or (self._is_page_locked and self._has_pictures):
            return False
        # Where a row is handed out twice, as padding, it must be as it was read.
        if share.plan.batch_size < share.plan.lanes:
            return False
        if not share.hands_out_rows_once and block == share.num_blocks - 1:
            return False
        batch_rows = share.plan.batch_size * len(share.lanes) // share.plan.lanes
        if not self._has_pictures and share.block_rows < _FEWEST_BATCHES_IN_ORDER * batch_rows:
            return False
        row_bytes = some.nbytes / max(1, len(some))
        most_bytes = _MOST_BYTES_PAGE_LOCKED if self._is_page_locked else _MOST_BYTES_IN_ORDER
        return row_bytes * num_rows <= most_bytes

    def _read(self, segments: Segments) -> PlannedReader[Rows]:
        self._reader = PlannedReader(self._workers, self._groups, segments.group)
        return self._reader

    def _cuts(self, segments: Segments, reader: Iterator[Rows]) -> "Iterator[tuple[Rows, Rows, int]]":
        return cuts(segments, reader, self._share.plan, is_numbered=self._has_pictures)


def cuts(
    segments: Segments, reader: Iterator[Rows], plan: Plan, *, is_numbered: bool
) -> Iterator[tuple[Rows, Rows, int]]:
    """Yield each row group, its rows that a segment holds, and its number among the plan's; keep none of them.

    With `is_numbered` these rows have one more field, their numbers in the snapshot.
    """
    starts = (np.cumsum(plan.rows_per_group) - plan.rows_per_group)[segments.group] + segments.start
    places = zip(segments.start.tolist(), segments.stop.tolist(), starts.tolist(), segments.group.tolist(), strict=True)
    for start, stop, number, group in places:  # not a zip with the reader, which would keep one until the next has come
        decoded = next(reader)
        cut = decoded.slice(start, stop)
        yield decoded, cut.numbered(number) if is_numbered else cut, group
        del decoded, cut


@dataclass(frozen=True)
class _Places:
    """Where a lane's rows go, once a thread has found out."""

    work: "Future[list[Integers]]"
    index: int

    def result(self) -> Integers:
        return self.work.result()[self.index]


@dataclass(frozen=True)
class _Copy:
    """Rows of a row group that go to their places in a window."""

    rows: Rows
    places: _Places
    """Of all rows of their lane's window."""
    start: int
    """Their first among these."""
    group: RowGroup


def _lane_places(
    share: RankPlan, number: int, shares: Sequence[tuple[int, int]], columns: Iterable[int]
) -> list[Integers]:
    return [share.lane_places(number, shares, column) for column in columns]


def _put(buffer: RowsBuffer, copies: Sequence[_Copy], fields: Sequence[str]) -> None:
    """Copy rows to their places. Runs in a thread, most of the time without Python's lock."""
    for copy in copies:
        # What this waits for was begun before, so that it is done or another thread is at it.
        places = copy.places.result()[copy.start : copy.start + len(copy.rows)]
        try:
            buffer.put(places, copy.rows)
        except FieldError as error:
            cause = error.__cause__
            raise DatasetError(
                f"{copy.group.uri}: row group {copy.group.number}: field {fields[error.index]} cannot be copied into the "
                f"shuffle window: {type(cause).__name__}: {cause}"
            ) from cause


class _Left:
    """What is left of the row groups that were read, of each lane."""

    def __init__(self, lanes: Iterable[int], cuts: Iterator[tuple[Rows, Rows, int]], window_rows: int) -> None:
        """Take the lane of each segment and (row group, its rows of the segment, its number), as windows need them."""
        self._lanes, self._cuts, self._window_rows = iter(lanes), cuts, window_rows
        self._left: dict[int, deque[tuple[Rows, int]]] = {}

    def next_of(self, lane: int) -> tuple[Rows, int]:
        """Return the rows that come next of a lane, and the number of their row group."""
        left = self._left.setdefault(lane, deque())
        if not left:
            of_lane, (_, cut, group) = next(self._lanes), next(self._cuts)
            assert of_lane == lane, (of_lane, lane)
            left.append((cut, group))
        return left[0]

    def take(self, lane: int, num_rows: int) -> Iterator[tuple[Rows, int]]:
        """Yield so many rows of a lane, by row groups."""
        while num_rows:
            head, group = self.next_of(lane)
            self._left[lane].popleft()
            if len(head) > num_rows:
                rest, head = head.slice(num_rows, len(head)), head.slice(0, num_rows)
                if len(rest) <= self._window_rows:
                    # Each lane has one, and would keep a whole row group: half a window in all, where these are as large
                    # as a lane's part of it.
                    rest = rest.copied()
                self._left[lane].appendleft((rest, group))
            num_rows -= len(head)
            yield head, group
            del head
