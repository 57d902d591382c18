"""Which rank reads which row, when: integer arithmetic on row-group sizes. No files, no rows, no state.

The order of an epoch is a permutation of the table's rows that depends on (seed, epoch, lanes, window) and never on the
number of ranks:

1. Row groups are permuted; in that order they form one axis of N rows.
2. The axis is cut into C lanes of equal length (the first N mod C have one row more).
3. Each lane is cut into windows and shuffled within each.
4. Row j of the epoch is row j // C of lane j mod C.

A global batch of G rows is j in [k G, (k + 1) G), the last one what is left. Rank r of W, at most C, reads the lanes s with
s mod W = r, and its part of a batch is the rows of those lanes: G / W where W divides C and G, else more on some ranks than
on others. So the batches are the same for every W, every rank takes the same number of steps, and a position in the epoch
is one integer. In few steps a rank may have no row: in a last batch of fewer rows than lanes, or in batches of hardly more
rows than ranks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mlspark.errors import DatasetError

Integers = NDArray[np.int64]

DEFAULT_LANES = 8
"""Lanes unless another number is asked for: enough for 8 ranks. Each lane's edge cuts a row group, which is read twice."""

DEFAULT_WINDOW_BYTES = 256 * 2**20
"""Bytes of a shuffle window's rows, where pictures are among them, unless another number is asked for."""

DEFAULT_READ_AHEAD_BYTES = 8 * 2**20
"""Bytes of decoded rows that are read ahead, unless another number is asked for. Few: while batches of a window are given
out, the next one is filled, which is all the time that a slow store needs."""

# The purposes of random numbers; part of each generator's key, so that no two draws are alike.
_GROUPS, _WINDOW = 0, 1


@dataclass(frozen=True)
class Segments:
    """What to read, in order: entry i is rows [start, stop) of a row group, as they stand in one lane. Arrays of (n,)."""

    lane: Integers
    window: Integers
    """Window of the lane that needs it first."""
    group: Integers
    """Index of the row group in the snapshot."""
    start: Integers
    stop: Integers

    def __len__(self) -> int:
        return len(self.group)

    def after(self, number: int) -> "Segments":
        """Return those after the first `number`."""
        columns = (self.lane, self.window, self.group, self.start, self.stop)
        return Segments(*(column[number:] for column in columns))


@dataclass(frozen=True)
class Plan:
    """The order of one epoch over all ranks."""

    rows_per_group: Integers
    """Rows of each row group in the snapshot's order: shape (row groups,)."""
    batch_size: int
    """Rows of a step over all ranks."""
    seed: int
    epoch: int
    lanes: int = DEFAULT_LANES
    shuffle_window_rows: int = 400_000
    shuffle: bool = True
    remainder: Literal["keep", "drop"] = "keep"
    has_fixed_lanes: bool = False
    """True: a lane has the same rows in every epoch, so that a rank can keep them; epochs differ within lanes only."""

    @cached_property
    def num_rows(self) -> int:
        return int(self.rows_per_group.sum())

    @property
    def num_steps(self) -> int:
        """Steps of every rank: global batches in the epoch, the last short one kept or dropped."""
        if self.remainder == "keep":
            return -(-self.num_rows // self.batch_size)
        return self.num_rows // self.batch_size

    @property
    def window_rows(self) -> int:
        """Rows of a window of one lane: the window's rows are shared out over the lanes."""
        return max(1, self.shuffle_window_rows // self.lanes)

    @cached_property
    def group_order(self) -> Integers:
        """Row groups in the order of the row axis: shape (row groups,)."""
        count = len(self.rows_per_group)
        if not self.shuffle:
            return np.arange(count, dtype=np.int64)
        epoch = 0 if self.has_fixed_lanes else self.epoch
        return self._generator(epoch, _GROUPS, 0, 0).permutation(count)

    @cached_property
    def group_ends(self) -> Integers:
        """Where each row group of `group_order` ends on the row axis: shape (row groups,)."""
        return np.cumsum(self.rows_per_group[self.group_order])

    def lane_bounds(self, lane: int) -> tuple[int, int]:
        """Return [start, stop) of a lane on the row axis."""
        length, longer = divmod(self.num_rows, self.lanes)
        start = lane * length + min(lane, longer)
        return start, start + length + (lane < longer)

    def window_order(self, lane: int, window: int) -> Integers:
        """Return the order in which the rows of a window are read: a permutation of range(rows of the window)."""
        start, stop = self.lane_bounds(lane)
        rows = min(self.window_rows, stop - start - window * self.window_rows)
        if not self.shuffle:
            return np.arange(rows, dtype=np.int64)
        return self._generator(self.epoch, _WINDOW, lane, window).permutation(rows)

    def segments(self, lanes: range, first_window: int = 0) -> Segments:
        """Return what to read for `lanes` from `first_window` on, in the order in which the windows need it.

        O(row groups) time and memory. A row group cut by a lane's edge is read once for each side.
        """
        parts = [self._lane_segments(lane, first_window) for lane in lanes]
        columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
        order = np.lexsort((columns[0], columns[1]))  # by window, then lane; stable: row order within a window
        return Segments(*(column[order] for column in columns))

    def _lane_segments(self, lane: int, first_window: int) -> tuple[Integers, ...]:
        """Return the columns of a lane's segments, in row order."""
        start, stop = self.lane_bounds(lane)
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
        return np.full_like(groups, lane), windows, groups, from_rows - starts, to_rows - starts

    def _generator(self, epoch: int, purpose: int, lane: int, window: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, epoch, purpose, lane, window])


@dataclass(frozen=True)
class RankPlan:
    """One rank's share of a plan.

    Raises:
        DatasetError: at construction, when ranks, lanes, batch and table do not fit together; names the arguments of
            `mlspark.streaming.open`.
    """

    plan: Plan
    rank: int
    world_size: int

    def __post_init__(self) -> None:
        plan = self.plan
        if self.world_size > plan.lanes:
            raise DatasetError(
                f"world_size={self.world_size} is more than lanes={plan.lanes}; set lanes to at least {self.world_size}, "
                f"for all world sizes that must see the same batches"
            )
        if plan.batch_size < self.world_size:
            raise DatasetError(
                f"batch_size={plan.batch_size} is fewer rows than world_size={self.world_size} ranks; it counts the "
                f"rows of a step over all ranks: raise it to at least {self.world_size}"
            )
        if plan.num_rows == 0:
            raise DatasetError("there are no rows to stream; check where, or write rows first")
        if plan.num_steps == 0:
            raise DatasetError(
                f"{plan.num_rows} rows make no batch of batch_size={plan.batch_size}, and remainder='drop' leaves "
                f"them all out; lower batch_size or set remainder='keep'"
            )

    @property
    def lanes(self) -> range:
        """The lanes that this rank reads."""
        return range(self.rank, self.plan.lanes, self.world_size)

    @property
    def is_in_table_order(self) -> bool:
        """Whether this rank's rows come as they stand in the table."""
        return not self.plan.shuffle and len(self.lanes) == 1

    @property
    def hands_out_rows_once(self) -> bool:
        """Whether no row comes twice, as padding in place of one that this rank lacks in a step."""
        start, stop = self.step_edges(self.plan.num_steps - 1, self.plan.num_steps)
        return self.plan.batch_size >= self.plan.lanes and start < stop

    @property
    def num_rows(self) -> int:
        """Rows of this rank in the epoch, before anything is dropped."""
        return self.rows_before(self.plan.num_rows)

    def rows_before(self, row: int) -> int:
        """Return how many of the epoch's first `row` rows are this rank's."""
        turns, rest = divmod(row, self.plan.lanes)
        return turns * len(self.lanes) + max(0, -(-(rest - self.rank) // self.world_size))

    def step_edges(self, first: int, stop: int) -> list[int]:
        """Return where the batches of steps [first, stop) begin among this rank's rows, and where the last one ends."""
        size, num_rows = self.plan.batch_size, self.plan.num_rows
        return [self.rows_before(min(step * size, num_rows)) for step in range(first, stop + 1)]

    @property
    def block_rows(self) -> int:
        """Rows of a block: one window of each of this rank's lanes; the last block of an epoch has fewer."""
        return self.plan.window_rows * len(self.lanes)

    @property
    def num_blocks(self) -> int:
        return -(-self.num_rows // self.block_rows)

    def block_lanes(self, block: int) -> list[tuple[int, int]]:
        """Return (lane, rows) for each lane with rows in this block, in order."""
        bounds = ((lane, *self.plan.lane_bounds(lane)) for lane in self.lanes)
        offset = block * self.plan.window_rows
        sizes = ((lane, min(self.plan.window_rows, stop - start - offset)) for lane, start, stop in bounds)
        return [(lane, rows) for lane, rows in sizes if rows > 0]

    def block_order(self, block: int) -> Integers:
        """Return where each row of the block, in the epoch's order, stands among its windows laid end to end."""
        shares = self.block_lanes(block)
        longest, shortest = max(rows for _, rows in shares), min(rows for _, rows in shares)
        order = np.empty((longest, len(shares)), dtype=np.int64)  # row-major: (row of the window, lane)
        base = 0
        for column, (lane, rows) in enumerate(shares):
            np.add(self.plan.window_order(lane, block), base, out=order[:rows, column])
            order[rows:, column] = -1
            base += rows
        flat = order.reshape(-1)
        return flat if shortest == longest else flat[flat >= 0]

    def lane_places(self, block: int, shares: Sequence[tuple[int, int]], column: int) -> Integers:
        """Return where the rows of one of a block's lanes, in the table's order, stand in the epoch's.

        Those of all its lanes, one after another, are the inverse of `block_order`. Threads may make them at the same time.

        Args:
            block: number of the block.
            shares: `block_lanes` of it.
            column: which of them.
        """
        lane, num_rows = shares[column]
        in_turn = np.arange(column, column + num_rows * len(shares), len(shares))
        shortest = min(rows for _, rows in shares)
        if num_rows > shortest:  # then only the longer lanes take turns
            turns = np.arange(shortest, num_rows)
            in_turn[shortest:] = sum(np.minimum(rows, turns) for _, rows in shares)
            in_turn[shortest:] += sum((rows > turns).astype(np.int64) for _, rows in shares[:column])
        places = np.empty_like(in_turn)
        places[self.plan.window_order(lane, block)] = in_turn
        return places
