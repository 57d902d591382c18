"""Batches of one rank for one epoch, as torch tensors, in the order of the plan."""

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from mlspark.config import StreamingSettings
from mlspark.errors import DatasetError
from mlspark.features.layout import Layout
from mlspark.streaming.petastorm_engine import PlannedReader
from mlspark.streaming.plan import Plan, RankPlan
from mlspark.streaming.snapshot import Snapshot


@dataclass(frozen=True)
class Batch:
    """Rows of one step of one rank; B = global batch size / world size."""

    dense: torch.Tensor
    """(B, F) float32."""
    categorical: torch.Tensor
    """(B, K) int64."""
    label: torch.Tensor
    """(B,) float32, 0.0 or 1.0."""
    row_id: torch.Tensor
    """(B,) int64, hash of the row's content."""
    is_padding: torch.Tensor
    """(B,) bool; True rows repeat a real row to fill the last batch and count nowhere."""


@dataclass(frozen=True)
class _Rows:
    """Decoded rows: the arrays of a batch before they are tensors."""

    dense: NDArray[np.float32]  # (n, F)
    categorical: NDArray[np.int64]  # (n, K)
    label: NDArray[np.float32]  # (n,)
    row_id: NDArray[np.int64]  # (n,)

    def __len__(self) -> int:
        return len(self.label)

    def slice(self, start: int, stop: int) -> "_Rows":
        return _Rows(
            self.dense[start:stop], self.categorical[start:stop], self.label[start:stop], self.row_id[start:stop]
        )

    def take(self, rows: NDArray[np.int64]) -> "_Rows":
        return _Rows(
            np.take(self.dense, rows, axis=0),
            np.take(self.categorical, rows, axis=0),
            np.take(self.label, rows),
            np.take(self.row_id, rows),
        )

    @staticmethod
    def concatenate(parts: "list[_Rows]") -> "_Rows":
        return _Rows(
            np.concatenate([part.dense for part in parts]),
            np.concatenate([part.categorical for part in parts]),
            np.concatenate([part.label for part in parts]),
            np.concatenate([part.row_id for part in parts]),
        )


def open_batches(
    snapshot: Snapshot,
    layout: Layout,
    settings: StreamingSettings,
    *,
    rank: int,
    world_size: int,
    global_batch_size: int,
    seed: int,
    epoch: int,
    shuffle: bool = True,
    start_step: int = 0,
) -> "Batches":
    """Return this rank's batches of one epoch, to be used as a context manager. Runs in a rank or anywhere else.

    Args:
        snapshot: files to stream; `snapshot.where(split="train")` for one partition.
        layout: which columns go where in a batch.
        settings: streams, window, reader threads, remainder policy.
        rank: 0 to world_size - 1.
        world_size: divides settings.streams and global_batch_size.
        global_batch_size: rows of a step over all ranks.
        seed: with the epoch decides the order.
        epoch: counts from 0.
        shuffle: False: streams in table order, for evaluation.
        start_step: first step to give; costs one window, whatever its value.

    Raises:
        DatasetError: ranks, batch and rows do not fit together; on iteration: a file cannot be read.
    """
    plan = Plan(
        snapshot.rows_per_group(),
        global_batch_size=global_batch_size,
        seed=seed,
        epoch=epoch,
        streams=settings.streams,
        shuffle_window_rows=settings.shuffle_window_rows,
        shuffle=shuffle,
        remainder=settings.remainder,
    )
    return Batches(snapshot, layout, RankPlan(plan, rank, world_size), workers=settings.workers, start_step=start_step)


class Batches:
    """Iterates once over the batches of a rank; equal in number on every rank."""

    def __init__(
        self, snapshot: Snapshot, layout: Layout, share: RankPlan, *, workers: int, start_step: int = 0
    ) -> None:
        if not 0 <= start_step <= share.plan.num_steps:
            raise DatasetError(f"start_step {start_step} is outside the epoch's {share.plan.num_steps} steps")
        self.num_steps = share.plan.num_steps
        self.step = start_step
        """Steps given so far, those before start_step included: the position to resume from."""
        self.rows_seen = 0
        """Real rows given so far by this object."""
        self.wait_seconds = 0.0
        """Time that the consumer spent waiting for a batch."""
        self._layout = layout
        self._share = share
        self._first_block = start_step * share.batch_size // share.block_rows
        self._segments = share.plan.segments(share.streams, self._first_block)
        places = snapshot.row_group_items()
        columns = [*layout.dense, *layout.categorical, layout.label, layout.row_id]
        self._reader: PlannedReader[_Rows] = PlannedReader(
            [places[segment.group] for segment in self._segments],
            columns=columns,
            decode=self._decode,
            workers=workers,
        )

    def __enter__(self) -> "Batches":
        return self

    def __exit__(self, *exception: object) -> None:
        self._reader.stop()
        self._reader.join()

    def __iter__(self) -> Iterator[Batch]:
        size = self._share.batch_size
        skip = self.step * size - self._first_block * self._share.block_rows
        pending: deque[_Rows] = deque()  # rows in epoch order, fewer than a batch when a new block is taken
        num_pending = 0
        blocks = self._blocks()
        last_row: _Rows | None = None
        while self.step < self.num_steps:
            started = time.perf_counter()
            while num_pending < size:
                block = next(blocks, None)
                if block is None:
                    break
                block, skip = block.slice(min(skip, len(block)), len(block)), max(0, skip - len(block))
                pending.append(block)
                num_pending += len(block)
            parts: list[_Rows] = []
            missing = size
            while missing and pending:
                head = pending.popleft()
                parts.append(head.slice(0, missing))
                if len(head) > missing:
                    pending.appendleft(head.slice(missing, len(head)))
                missing -= len(parts[-1])
            parts = [part for part in parts if len(part)]
            num_pending -= size - missing
            if parts:
                last_row = parts[-1].slice(len(parts[-1]) - 1, len(parts[-1]))
            if missing:
                if last_row is None:  # resumed in the very last batch, of which this rank has no real row
                    last_row = self._any_row()
                parts += [last_row] * missing
            batch = self._to_batch(parts, missing)
            self.wait_seconds += time.perf_counter() - started
            self.step += 1
            self.rows_seen += size - missing
            yield batch

    def _blocks(self) -> Iterator[_Rows]:
        """Give the blocks of this rank, each already in the epoch's order."""
        left: dict[int, deque[_Rows]] = {stream: deque() for stream in self._share.streams}
        segments = iter(zip(self._segments, self._reader, strict=True))
        for block in range(self._first_block, self._share.num_blocks):
            parts: list[_Rows] = []
            for stream, rows in self._share.block_streams(block):
                while rows:
                    if not left[stream]:
                        # Segments come in the order in which windows need them, so the next one is for this stream.
                        segment, decoded = next(segments)
                        assert segment.stream == stream, (segment, stream)
                        left[stream].append(decoded.slice(segment.start, segment.stop))
                    head = left[stream].popleft()
                    parts.append(head.slice(0, rows))
                    if len(head) > rows:
                        left[stream].appendleft(head.slice(rows, len(head)))
                    rows -= len(parts[-1])
            yield _Rows.concatenate(parts).take(self._share.block_order(block))

    def _any_row(self) -> _Rows:
        layout = self._layout
        return _Rows(
            np.zeros((1, len(layout.dense)), np.float32),
            np.zeros((1, len(layout.categorical)), np.int64),
            np.zeros(1, np.float32),
            np.zeros(1, np.int64),
        )

    def _decode(self, table: pa.Table) -> _Rows:
        """Return the rows of a row group; runs in the reader's threads."""
        layout = self._layout
        for name in (*layout.dense, *layout.categorical, layout.label, layout.row_id):
            if table.column(name).null_count:
                raise DatasetError(
                    f"column {name} holds nulls; features are written without any: prepare the table anew"
                )
        dense = np.empty((table.num_rows, len(layout.dense)), np.float32)
        for index, name in enumerate(layout.dense):
            dense[:, index] = table.column(name).to_numpy()
        categorical = np.empty((table.num_rows, len(layout.categorical)), np.int64)
        for index, name in enumerate(layout.categorical):
            categorical[:, index] = table.column(name).to_numpy()
        return _Rows(
            dense,
            categorical,
            table.column(layout.label).to_numpy().astype(np.float32, copy=False),
            table.column(layout.row_id).to_numpy(),
        )

    def _to_batch(self, parts: list[_Rows], num_padding: int) -> Batch:
        rows = parts[0] if len(parts) == 1 else _Rows.concatenate(parts)
        is_padding = torch.zeros(len(rows), dtype=torch.bool)
        if num_padding:
            is_padding[-num_padding:] = True
        return Batch(
            torch.from_numpy(rows.dense),
            torch.from_numpy(rows.categorical),
            torch.from_numpy(rows.label),
            torch.from_numpy(rows.row_id),
            is_padding,
        )
