"""What a training takes on so many ranks: their rows from the real `Plan`, the time of a step from a model. Runs anywhere.

step = max(computing, reading) + all-reduce

computing   (rows of the rank that has most / rows per second + fixed seconds of a step) x ranks per core, at least 1
reading     bytes of a step over what the store and the machine's network give; the next rows are read meanwhile
all-reduce  a ring over the machines: 2 (M - 1) / M x 4 bytes a parameter over the network, 2 log2(W) latencies
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlspark.cost import Price
from mlspark.streaming.plan import Plan, RankPlan

BYTES_PER_PARAMETER = 4
"""Gradients are float32."""
LOCAL_BYTES_PER_SECOND = 10e9
"""What ranks of one machine exchange; stated, not measured."""
_STEPS_LOOKED_AT = 64
LEAST_EFFICIENCY = 0.8
"""Efficiency down to which ranks are recommended where nothing limits time or money."""


@dataclass(frozen=True)
class Speed:
    """How fast one rank is that has its cores for itself."""

    rows_per_second: float
    step_seconds: float = 0.0
    """Seconds of a step that do not depend on its rows."""
    parameters: int = 0
    """Numbers that an all-reduce adds up."""

    @classmethod
    def fitted(cls, runs: Sequence[tuple[int, int, float]], parameters: int) -> "Speed":
        """Return the speed of runs of one rank: (rows, steps, seconds) each; of one size all time grows with the rows."""
        rows, steps, seconds = (np.array(column, float) for column in zip(*runs, strict=True))
        if len({step / row for row, step, _ in runs}) == 1:
            return cls(float(rows.sum() / seconds.sum()), 0.0, parameters)
        # Each run counts by its share of error; np.linalg.lstsq may give a part below 0, which is then left out.
        (per_row, per_step), *_ = np.linalg.lstsq(
            np.column_stack([rows / seconds, steps / seconds]), np.ones(len(runs)), rcond=None
        )
        if per_row <= 0 or per_step < 0:
            return cls(float(rows.sum() / seconds.sum()), 0.0, parameters)
        return cls(float(1 / per_row), float(per_step), parameters)


@dataclass(frozen=True)
class Machine:
    """What ranks run on, all machines alike."""

    cores: int
    ranks: int
    """Ranks on one machine."""
    threads_per_rank: int = 1
    network_bytes_per_second: float = 1.25e9
    """Of one machine, in either direction."""
    latency_seconds: float = 50e-6
    """Of one message between ranks."""
    store_bytes_per_second: float | None = None
    """What the store gives all machines together; None: as much as their networks take."""
    start_seconds: float = 60.0
    """Seconds until ranks train: machines, Spark, imports."""


@dataclass(frozen=True)
class Table:
    """What is trained on."""

    rows_per_group: NDArray[np.int64]
    stored_bytes_per_row: float
    memory_bytes_per_row: float

    @property
    def num_rows(self) -> int:
        return int(self.rows_per_group.sum())


@dataclass(frozen=True)
class Ranks:
    """A training on so many ranks."""

    ranks: int
    machines: int
    steps_per_epoch: int
    most_rows: int
    """Rows of an epoch that the rank with most has."""
    least_rows: int
    compute_seconds: float
    """Of a step."""
    read_seconds: float
    reduce_seconds: float
    hours: float
    """Of the whole training, its start included."""
    money: float | None
    efficiency: float
    """Speed over that of one rank, divided by the ranks."""
    window_bytes: float
    """Memory of a rank for its shuffle windows, two at a time."""
    read_bytes: float
    """Bytes that a rank reads from the store in an epoch, at most."""
    wanted_bytes_per_second: float
    """Bytes that all ranks together want from the store each second."""
    limit: str
    """What takes longest: compute, cores, reading, all-reduce."""

    @property
    def step_seconds(self) -> float:
        return max(self.compute_seconds, self.read_seconds) + self.reduce_seconds

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"step_seconds": self.step_seconds}


@dataclass(frozen=True)
class Model:
    """A training whose ranks can be many or few."""

    table: Table
    plan: Plan
    """Its lanes are at least as many as the ranks asked about."""
    epochs: int
    speed: Speed
    machine: Machine
    price: Price | None = None
    """Of one machine; its count is ignored."""

    @cached_property
    def _rows_read_by_lane(self) -> NDArray[np.int64]:
        """Return the rows of the row groups that each lane reads: shape (lanes,). A cut row group counts on both sides."""
        groups = (self.plan.segments(range(lane, lane + 1)).group for lane in range(self.plan.lanes))
        return np.array([int(self.table.rows_per_group[of_lane].sum()) for of_lane in groups], dtype=np.int64)

    def on(self, ranks: int) -> Ranks:
        """Return the training on so many ranks.

        Raises:
            DatasetError: lanes, batch and table do not fit so many ranks.
        """
        found = self._on(ranks)
        return replace(found, efficiency=self._alone.step_seconds / (ranks * found.step_seconds))

    @cached_property
    def _alone(self) -> Ranks:
        return self._on(1)

    def _on(self, ranks: int) -> Ranks:
        plan, machine, steps = self.plan, self.machine, self.plan.num_steps
        shares = [RankPlan(plan, rank, ranks) for rank in range(ranks)]
        rows = [share.num_rows for share in shares]
        here = min(ranks, machine.ranks)
        machines = -(-ranks // machine.ranks)
        crowded = max(1.0, here * machine.threads_per_rank / machine.cores)
        compute = (_most_rows_of_step(shares) / self.speed.rows_per_second + self.speed.step_seconds) * crowded
        read_rows = max(int(self._rows_read_by_lane[rank::ranks].sum()) for rank in range(ranks))
        read_bytes = read_rows * self.table.stored_bytes_per_row
        read = here * read_bytes / steps / machine.network_bytes_per_second
        if machine.store_bytes_per_second is not None:
            total = float(self._rows_read_by_lane.sum()) * self.table.stored_bytes_per_row
            read = max(read, total / steps / machine.store_bytes_per_second)
        reduce = _reduce_seconds(self.speed.parameters, ranks, machines, machine)
        step = max(compute, read) + reduce
        seconds = machine.start_seconds + self.epochs * steps * step
        largest = max((compute, "compute" if crowded == 1 else "cores"), (read, "reading"), (reduce, "all-reduce"))
        return Ranks(
            ranks=ranks,
            machines=machines,
            steps_per_epoch=steps,
            most_rows=max(rows),
            least_rows=min(rows),
            compute_seconds=compute,
            read_seconds=read,
            reduce_seconds=reduce,
            hours=seconds / 3600,
            money=None if self.price is None else replace(self.price, count=machines).of(seconds),
            efficiency=1.0,
            window_bytes=2 * min(shares[0].block_rows, max(rows)) * self.table.memory_bytes_per_row,
            read_bytes=read_bytes,
            wanted_bytes_per_second=ranks * read_bytes / (steps * step),
            limit=largest[1],
        )


def recommended(rows: Sequence[Ranks], *, hours: float | None = None, budget: float | None = None) -> Ranks | None:
    """Return what to take: the cheapest that is done in `hours`, the fastest for `budget`; None where none is.

    With neither, the most ranks that have `LEAST_EFFICIENCY`; where no price is known, few ranks count as cheap.
    """
    fit = [row for row in rows if hours is None or row.hours <= hours]
    fit = [row for row in fit if budget is None or (row.money is not None and row.money <= budget)]
    if not fit:
        return None
    if hours is not None:
        return min(fit, key=lambda row: (row.ranks if row.money is None else row.money, row.hours))
    if budget is not None:
        return min(fit, key=lambda row: row.hours)
    return max((row for row in fit if row.efficiency >= LEAST_EFFICIENCY), key=lambda row: row.ranks, default=fit[0])


def even_table(num_rows: int, rows_per_group: int, stored_bytes_per_row: float, memory_bytes_per_row: float) -> Table:
    """Return a table of row groups of one size, the last one aside."""
    whole, rest = divmod(num_rows, rows_per_group)
    groups = np.full(whole + (rest > 0), rows_per_group, dtype=np.int64)
    if rest:
        groups[-1] = rest
    return Table(groups, stored_bytes_per_row, memory_bytes_per_row)


def _most_rows_of_step(shares: Sequence[RankPlan]) -> float:
    """Return the rows of the rank that has most of them in a step, in the mean over the first steps."""
    plan, ranks = shares[0].plan, len(shares)
    if plan.lanes % ranks == 0 and plan.batch_size % plan.lanes == 0 and plan.num_steps > 1:
        return plan.batch_size / ranks  # in every step but the last
    stop = min(plan.num_steps, _STEPS_LOOKED_AT)
    edges = np.array([share.step_edges(0, stop) for share in shares])
    return float(np.diff(edges, axis=1).max(axis=0).mean())


def _reduce_seconds(parameters: int, ranks: int, machines: int, machine: Machine) -> float:
    """Return the seconds in which gradients are added up over all ranks."""
    if ranks == 1:
        return 0.0
    size = BYTES_PER_PARAMETER * parameters
    within = min(ranks, machine.ranks)
    seconds = 2 * (within - 1) / within * size / LOCAL_BYTES_PER_SECOND
    seconds += 2 * (machines - 1) / machines * size / machine.network_bytes_per_second
    return seconds + 2 * math.ceil(math.log2(ranks)) * machine.latency_seconds
