"""Which rank reads which row, when: integer arithmetic on row-group sizes. No files, no rows, no state.

The order of an epoch is a permutation of the table's rows that depends on (seed, epoch, streams, window) and never on the
number of ranks:

1. Row groups are permuted; in that order they form one axis of N rows.
2. The axis is cut into C canonical streams of equal length (the first N mod C have one row more).
3. Each stream is cut into windows and shuffled within each.
4. Row j of the epoch is row j // C of stream j mod C.

A global batch of G rows is j in [k G, (k + 1) G). Rank r of W, where W divides C, reads the streams s with s mod W = r,
which are exactly the rows with j mod W = r: G / W of each batch. So the batches are the same for every W, every rank takes
the same number of steps, and a position in the epoch is one integer.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mlspark.errors import DatasetError

Integers = NDArray[np.int64]

# The purposes of random numbers; part of each generator's key, so that no two draws are alike.
_GROUPS, _WINDOW = 0, 1


@dataclass(frozen=True)
class Segments:
    """What to read, in order: entry i is rows [start, stop) of a row group, as they stand in one stream. Arrays of (n,)."""

    stream: Integers
    window: Integers
    """Window of the stream that needs it first."""
    group: Integers
    """Index of the row group in the snapshot."""
    start: Integers
    stop: Integers

    def __len__(self) -> int:
        return len(self.group)


@dataclass(frozen=True)
class Plan:
    """The order of one epoch over all ranks."""

    rows_per_group: Integers
    """Rows of each row group in the snapshot's order: shape (row groups,)."""
    global_batch_size: int
    seed: int
    epoch: int
    streams: int = 8
    shuffle_window_rows: int = 400_000
    shuffle: bool = True
    remainder: Literal["pad", "drop"] = "pad"
    has_fixed_streams: bool = False
    """True: a stream has the same rows in every epoch, so that a rank can keep them; epochs differ within streams only."""

    @cached_property
    def num_rows(self) -> int:
        return int(self.rows_per_group.sum())

    @property
    def num_steps(self) -> int:
        """Steps of every rank: global batches in the epoch, the last short one padded or dropped."""
        if self.remainder == "pad":
            return -(-self.num_rows // self.global_batch_size)
        return self.num_rows // self.global_batch_size

    @property
    def window_rows(self) -> int:
        """Rows of a window of one stream: the window's rows are shared out over the streams."""
        return max(1, self.shuffle_window_rows // self.streams)

    @cached_property
    def group_order(self) -> Integers:
        """Row groups in the order of the row axis: shape (row groups,)."""
        count = len(self.rows_per_group)
        if not self.shuffle:
            return np.arange(count, dtype=np.int64)
        epoch = 0 if self.has_fixed_streams else self.epoch
        return self._generator(epoch, _GROUPS, 0, 0).permutation(count)

    @cached_property
    def group_ends(self) -> Integers:
        """Where each row group of `group_order` ends on the row axis: shape (row groups,)."""
        return np.cumsum(self.rows_per_group[self.group_order])

    def stream_bounds(self, stream: int) -> tuple[int, int]:
        """Return [start, stop) of a stream on the row axis."""
        length, longer = divmod(self.num_rows, self.streams)
        start = stream * length + min(stream, longer)
        return start, start + length + (stream < longer)

    def window_order(self, stream: int, window: int) -> Integers:
        """Return the order in which the rows of a window are read: a permutation of range(rows of the window)."""
        start, stop = self.stream_bounds(stream)
        rows = min(self.window_rows, stop - start - window * self.window_rows)
        if not self.shuffle:
            return np.arange(rows, dtype=np.int64)
        return self._generator(self.epoch, _WINDOW, stream, window).permutation(rows)

    def segments(self, streams: range, first_window: int = 0) -> Segments:
        """Return what to read for `streams` from `first_window` on, in the order in which the windows need it.

        O(row groups) time and memory. A row group cut by a stream's edge is read once for each side.
        """
        parts = [self._stream_segments(stream, first_window) for stream in streams]
        columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
        order = np.lexsort((columns[0], columns[1]))  # by window, then stream; stable: row order within a window
        return Segments(*(column[order] for column in columns))

    def _stream_segments(self, stream: int, first_window: int) -> tuple[Integers, ...]:
        """Return the columns of a stream's segments, in row order."""
        start, stop = self.stream_bounds(stream)
        first_row = start + first_window * self.window_rows
        if first_row >= stop:
            return (np.empty(0, np.int64),) * 5
        first, last = np.searchsorted(self.group_ends, (first_row, stop - 1), side="right")
        groups = self.group_order[first : last + 1]
        ends = self.group_ends[first : last + 1]
        starts = ends - self.rows_per_group[groups]
        from_rows, to_rows = np.maximum(starts, first_row), np.minimum(ends, stop)
        is_read = from_rows < to_rows  # not so for row groups without rows
        groups, starts, from_rows, to_rows = (column[is_read] for column in (groups, starts, from_rows, to_rows))
        windows = (from_rows - start) // self.window_rows
        return np.full_like(groups, stream), windows, groups, from_rows - starts, to_rows - starts

    def _generator(self, epoch: int, purpose: int, stream: int, window: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, epoch, purpose, stream, window])


@dataclass(frozen=True)
class RankPlan:
    """One rank's share of a plan.

    Raises:
        DatasetError: at construction, when the ranks do not fit the streams, the batch or the table; names the setting.
    """

    plan: Plan
    rank: int
    world_size: int

    def __post_init__(self) -> None:
        plan = self.plan
        if plan.streams % self.world_size:
            raise DatasetError(
                f"world size {self.world_size} does not divide streaming.streams={plan.streams}; "
                f"set streaming.streams to a multiple, for all world sizes that must see the same batches"
            )
        if plan.global_batch_size % self.world_size:
            raise DatasetError(
                f"training.global_batch_size={plan.global_batch_size} is no multiple of the world size {self.world_size}"
            )
        if plan.num_rows < self.world_size:
            raise DatasetError(f"{plan.num_rows} rows are too few for {self.world_size} ranks; lower num_processes")
        if plan.num_steps == 0:
            raise DatasetError(
                f"{plan.num_rows} rows make no batch of training.global_batch_size={plan.global_batch_size}; "
                f"lower it or set streaming.remainder to pad"
            )

    @property
    def streams(self) -> range:
        """The streams that this rank reads."""
        return range(self.rank, self.plan.streams, self.world_size)

    @property
    def batch_size(self) -> int:
        return self.plan.global_batch_size // self.world_size

    @property
    def num_rows(self) -> int:
        """Real rows of this rank in the epoch, before anything is dropped."""
        return -(-(self.plan.num_rows - self.rank) // self.world_size)

    @property
    def block_rows(self) -> int:
        """Rows of a block: one window of each of this rank's streams; the last block of an epoch has fewer."""
        return self.plan.window_rows * len(self.streams)

    @property
    def num_blocks(self) -> int:
        return -(-self.num_rows // self.block_rows)

    def block_streams(self, block: int) -> list[tuple[int, int]]:
        """Return (stream, rows) for each stream with rows in this block, in order."""
        bounds = ((stream, *self.plan.stream_bounds(stream)) for stream in self.streams)
        offset = block * self.plan.window_rows
        sizes = ((stream, min(self.plan.window_rows, stop - start - offset)) for stream, start, stop in bounds)
        return [(stream, rows) for stream, rows in sizes if rows > 0]

    def block_order(self, block: int) -> Integers:
        """Return where each row of the block, in the epoch's order, stands among its windows laid end to end."""
        shares = self.block_streams(block)
        longest, shortest = max(rows for _, rows in shares), min(rows for _, rows in shares)
        order = np.empty((longest, len(shares)), dtype=np.int64)  # row-major: (row of the window, stream)
        base = 0
        for column, (stream, rows) in enumerate(shares):
            np.add(self.plan.window_order(stream, block), base, out=order[:rows, column])
            order[rows:, column] = -1
            base += rows
        flat = order.reshape(-1)
        return flat if shortest == longest else flat[flat >= 0]
