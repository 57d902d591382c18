"""Several tables in one stream of batches, in fixed shares. Runs in a rank or anywhere else."""

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import torch

from mlspark.errors import DatasetError
from mlspark.streaming.batches import TensorDict
from mlspark.streaming.plan import DEFAULT_LANES
from mlspark.streaming.snapshot import Snapshot
from mlspark.streaming.stream import Stream


@dataclass(frozen=True)
class Part:
    """One table of a mixture."""

    table: str | Snapshot
    weight: float
    """Share of the table in each batch, relative to the other weights."""
    options: Mapping[str, Any]
    """Options of `Stream` beyond those that all tables share: version, where, fill, memory_bytes, ..."""


def shares(weights: Sequence[float], batch_size: int, unit: int) -> list[int]:
    """Return the rows of each table in a batch: multiples of `unit` that sum to batch_size, nearest to the weights.

    Raises:
        DatasetError: a weight is not above 0, batch_size is no multiple of `unit`, or too small for every table.
    """
    if not weights or min(weights) <= 0:
        raise DatasetError(f"weights of a mixture must be above 0, got {list(weights)}")
    if batch_size % unit:
        raise DatasetError(f"batch_size={batch_size} of a mixture is no multiple of lanes={unit}")
    units, total = batch_size // unit, sum(map(Fraction, weights))
    exact = [Fraction(weight) * units / total for weight in weights]
    whole = [int(share) for share in exact]
    by_rest = sorted(range(len(exact)), key=lambda index: (whole[index] - exact[index], index))
    for index in by_rest[: units - sum(whole)]:
        whole[index] += 1
    if 0 in whole:
        raise DatasetError(
            f"batch_size={batch_size} is too small for weights {list(weights)}: table {whole.index(0)} would have no row; "
            f"each has at least lanes={unit}"
        )
    return [unit * share for share in whole]


def open_mixture(
    parts: Sequence[Part],
    *,
    batch_size: int,
    lanes: int = DEFAULT_LANES,
    stop: Literal["first", "last"] = "first",
    **options: Any,
) -> "Mixture":
    """Return a stream whose every batch has a fixed number of rows of each table, by weight.

    The order depends on the same as that of a single table, and on the weights. Each table is streamed in epochs of its
    own, without its last rows that fill no batch (other ones in each epoch, since each has another order).

    Args:
        parts: tables with weights; all must have the same fields.
        batch_size: rows of a step over all ranks and tables; a multiple of `lanes`.
        lanes: as for `Stream`; each table's rows in a batch are a multiple of it: `Mixture.rows` has them.
        stop: an epoch of the mixture ends when the first table is through, or when the last is; then the others begin
            again in between.
        options: for `Stream`, the same for all tables.

    Raises:
        DatasetError: weights, sizes or fields do not fit together.
    """
    rows = shares([part.weight for part in parts], batch_size, lanes)
    opened = [
        Stream(part.table, batch_size=count, lanes=lanes, remainder="drop", **(options | dict(part.options)))
        for part, count in zip(parts, rows, strict=True)
    ]
    fields = {stream.fields for stream in opened}
    if len(fields) > 1:
        raise DatasetError(f"the tables of a mixture have different fields: {' and '.join(map(str, sorted(fields)))}")
    ragged = [name for name in opened[0].fields if name.endswith("_offsets")]
    if ragged:
        raise DatasetError(
            f"{ragged[0].removesuffix('_offsets')} is ragged, which a mixture cannot join; give its length"
        )
    return Mixture(opened, rows, stop)


class Mixture:
    """Batches {field: tensor} of several tables, with "table" (B,) int64: the number of the table that a row is of.

    As for a single table: each `iter` yields one epoch, `state_dict` is the position to go on from with `load_state_dict`.
    """

    def __init__(self, streams: Sequence[Stream], rows: Sequence[int], stop: Literal["first", "last"]) -> None:
        """See `open_mixture`."""
        self.streams, self.rows, self.stop = tuple(streams), tuple(rows), stop
        choose = min if stop == "first" else max
        self.num_steps = choose(stream.num_steps for stream in self.streams)
        """Batches of an epoch of the mixture, on every rank."""
        self.epoch = self.step = 0
        self._is_placed = False  # by load_state_dict: the next iteration begins at `step`

    def __len__(self) -> int:
        return self.num_steps

    def __enter__(self) -> "Mixture":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End the readers."""
        for stream in self.streams:
            stream.close()

    def __iter__(self) -> Iterator[TensorDict]:
        if self.step and not self._is_placed:  # broken off
            self.epoch, self.step = self.epoch + 1, 0
        self._is_placed = False
        self._go_to_position()
        endless = [self._endless(stream) for stream in self.streams]
        try:
            while self.step < self.num_steps:
                batches = [next(batches) for batches in endless]
                self.step += 1
                numbers = [torch.full((len(batch["is_padding"]),), table) for table, batch in enumerate(batches)]
                yield {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]} | {
                    "table": torch.cat(numbers)
                }
        finally:
            for batches_of_table in endless:
                batches_of_table.close()
        self.epoch, self.step = self.epoch + 1, 0

    def state_dict(self) -> dict[str, Any]:
        """Return the position, as JSON: after the last batch yielded."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "stop": self.stop,
            "rows": list(self.rows),
            "tables": [stream.state_dict() | {"epoch": 0, "step": 0} for stream in self.streams],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to the position of `state`.

        Raises:
            DatasetError: it is of other tables, weights or settings.
        """
        mine = self.state_dict()
        for name in ("stop", "rows"):
            if state.get(name) != mine[name]:
                raise DatasetError(
                    f"this position is of a mixture with other {name}: {state.get(name)}, now {mine[name]}"
                )
        for stream, of_table in zip(self.streams, state["tables"], strict=True):
            stream.load_state_dict(of_table)
        self.epoch, self.step, self._is_placed = state["epoch"], state["step"], True

    def _go_to_position(self) -> None:
        """Bring each table to where the position is in its own epochs: a division, whatever the position."""
        for stream in self.streams:
            epoch, step = divmod(self.epoch * self.num_steps + self.step, stream.num_steps)
            stream.go_to(epoch, step)

    @staticmethod
    def _endless(stream: Stream) -> Generator[TensorDict, None, None]:
        while True:
            yield from stream
