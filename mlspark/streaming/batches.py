"""Batches of one rank for one epoch, as torch tensors, in the order of the plan."""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch

from mlspark.errors import DatasetError
from mlspark.streaming.background_iterator import BackgroundIterator
from mlspark.streaming.plan import Integers, RankPlan
from mlspark.streaming.reader import PlannedReader, Workers
from mlspark.streaming.rows import Allocate, Array, Ragged, Rows, RowsBuffer
from mlspark.streaming.snapshot import RowGroup

_PIECE_BYTES = 4 * 2**20  # gathered at a time: some thousand rows, so that Python's part of a row is small
_PIECES_AHEAD = 2

TensorDict: TypeAlias = dict[str, torch.Tensor]
"""A batch: field -> tensor of B rows, "is_padding" (B,) bool among them; padding rows hold zeros and count nowhere."""


class Batches:
    """Iterates once over the batches of a rank; equal in number on every rank.

    The reader's workers decode; a thread lays their row groups out as windows and gathers from those in the epoch's order;
    the consumer only cuts batches off. In memory at a time: a window of each of the rank's streams, the rest of the row
    groups at the windows' ends, the read-ahead, and a few megabytes of gathered rows.
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
    ) -> None:
        """Start reading.

        Args:
            share: which rows, in which order.
            groups: the row groups that the plan counts.
            workers: read and decode; None with `resident`.
            fields: names of the tensors, in order: one for each field, two (values, offsets) for a ragged one.
            start_step: first step to yield.
            pin_memory: page-locked tensors, for asynchronous copies to a GPU; ordinary ones without a GPU.
            resident: the whole share as `read_share` returns it: nothing is read.
        """
        if not 0 <= start_step <= share.plan.num_steps:
            raise DatasetError(f"start_step {start_step} is outside the epoch's {share.plan.num_steps} steps")
        self.num_steps = share.plan.num_steps
        self.step = start_step
        """Steps yielded so far, those before start_step included: the position to resume from."""
        self.wait_seconds = 0.0
        """Seconds that the consumer spent waiting for a batch."""
        self._share, self._groups, self._workers, self._resident = share, groups, workers, resident
        self._fields = tuple(fields)
        self._allocate: Allocate = _pinned if pin_memory and torch.cuda.is_available() else np.empty
        self._first_block = start_step * share.batch_size // share.block_rows
        self._reader: PlannedReader[Rows] | None = None
        self._gathered: deque[TensorDict] = deque()
        self._ahead = BackgroundIterator(self._pieces(start_step), _PIECES_AHEAD)

    def __enter__(self) -> "Batches":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End reading; what was given stays valid."""
        if self._reader is not None:
            self._reader.stop()  # else the thread waits for a row group that may take long
        self._ahead.close()

    def __iter__(self) -> Iterator[TensorDict]:
        while self.step < self.num_steps:
            if not self._gathered:
                started = time.perf_counter()
                self._gathered.extend(next(self._ahead))
                self.wait_seconds += time.perf_counter() - started
            batch = self._gathered.popleft()
            self.step += 1
            yield batch

    def _pieces(self, start_step: int) -> Iterator[list[TensorDict]]:
        """Yield some batches at a time. Runs in the thread of `_ahead`."""
        size = self._share.batch_size
        left = (self.num_steps - start_step) * size  # rows to yield, padding included
        skip = start_step * size - self._first_block * self._share.block_rows
        buffer: RowsBuffer | None = None
        kind: Rows | None = None
        if not left:
            return
        for block, order in self._blocks():
            kind = block.zeros(0)
            for start in range(0, len(order), piece_rows := _piece_rows(block, size)):
                places = order[start : start + piece_rows]
                places, skip = places[skip:], max(0, skip - len(places))
                while len(places) and left:
                    if buffer is None:
                        buffer = RowsBuffer(min(piece_rows, left), self._allocate)
                    now = places[: buffer.capacity - buffer.filled]
                    buffer.append_taken(block, now)
                    places = places[len(now) :]
                    if buffer.filled == buffer.capacity:
                        left -= buffer.filled
                        yield _cut(self._fields, buffer.rows(), size, 0)
                        buffer = None
        if left:  # fewer real rows than the last batch has room for
            rest = [] if buffer is None else [buffer.rows()]
            num_padding = left - sum(map(len, rest))
            padding = (self._decode_nothing() if kind is None else kind).zeros(num_padding)
            yield _cut(self._fields, Rows.concatenate([*rest, padding]), size, num_padding)

    def _blocks(self) -> Iterator[tuple[Rows, Integers]]:
        """Yield (rows of a block, their places in the epoch's order); the rows are valid until the next block."""
        if self._resident is not None:
            yield self._resident, self._share.block_order(0)
            return
        share = self._share
        segments = share.plan.segments(share.streams, self._first_block)
        left: dict[int, deque[Rows]] = {stream: deque() for stream in share.streams}
        buffer: RowsBuffer | None = None
        assert self._workers is not None
        with PlannedReader(self._workers, self._groups, segments.group) as reader:
            self._reader = reader
            cuts = zip(segments.stream.tolist(), segments.start.tolist(), segments.stop.tolist(), reader, strict=True)
            for block in range(self._first_block, share.num_blocks):
                shares = share.block_streams(block)
                num_rows = sum(rows for _, rows in shares)
                if buffer is None or buffer.capacity < num_rows:
                    buffer = RowsBuffer(num_rows)
                buffer.clear()
                for stream, rows in shares:
                    while rows:
                        if not left[stream]:
                            # Segments come in the order in which windows need them, so the next one is for this stream.
                            of_stream, start, stop, decoded = next(cuts)
                            assert of_stream == stream, (of_stream, stream)
                            left[stream].append(decoded.slice(start, stop))
                        head = left[stream].popleft()
                        buffer.append(head.slice(0, rows))
                        if len(head) > rows:
                            left[stream].appendleft(head.slice(rows, len(head)))
                        rows -= min(rows, len(head))
                        del head
                yield buffer.rows(), share.block_order(block)

    def _decode_nothing(self) -> Rows:
        """Return rows of the right kind where this rank has none to copy the kind from: resumed in the last batch."""
        assert self._workers is not None
        some_group = np.flatnonzero(self._share.plan.rows_per_group)[:1]
        with PlannedReader(self._workers, self._groups, some_group) as reader:
            rows: Rows = next(reader)
        return rows


def read_share(share: RankPlan, groups: Sequence[RowGroup], workers: Workers[Rows], *, limit_bytes: int) -> Rows:
    """Return all rows of a rank's streams, stream after stream, as `Batches` takes them for `resident`.

    Raises:
        DatasetError: they need more than `limit_bytes`.
    """
    segments = share.plan.segments(share.streams)
    num_rows = sum(stop - start for start, stop in map(share.plan.stream_bounds, share.streams))
    buffer = RowsBuffer(num_rows)
    with PlannedReader(workers, groups, segments.group) as reader:
        for start, stop, decoded in zip(segments.start.tolist(), segments.stop.tolist(), reader, strict=True):
            needed = decoded.nbytes * num_rows // max(1, len(decoded)) + 8 * num_rows  # with the order of an epoch
            if needed > limit_bytes:
                raise DatasetError(
                    f"the {num_rows:,} rows of rank {share.rank} of {share.world_size} need about {needed / 2**20:,.0f} MB, "
                    f"memory_bytes allows {limit_bytes / 2**20:,.0f} MB; raise it, use more ranks or fewer columns, "
                    f"or leave it out to stream from the files in every epoch"
                )
            buffer.append(decoded.slice(start, stop))
    return buffer.rows()


def _piece_rows(block: Rows, batch_size: int) -> int:
    """Return how many rows to gather at a time: whole batches, of some megabytes."""
    row_bytes = max(1, block.nbytes // max(1, len(block)))
    return max(1, _PIECE_BYTES // row_bytes // batch_size) * batch_size


def _cut(fields: Sequence[str], rows: Rows, size: int, num_padding: int) -> list[TensorDict]:
    """Return batches of `size` rows as views of `rows`, whose last `num_padding` are marked."""
    # Made by numpy: torch would wake its pool of threads for it, which then spin for as long as the rest takes.
    is_padding = np.zeros(len(rows), np.bool_)
    is_padding[len(rows) - num_padding :] = True
    columns: list[Sequence[torch.Tensor]] = []
    for field in rows.fields:
        if isinstance(field, Ragged):
            parts = [field.slice(start, start + size).compact() for start in range(0, len(rows), size)]
            columns.append([torch.from_numpy(_writable(part.values)) for part in parts])
            columns.append([torch.from_numpy(part.offsets) for part in parts])
        else:
            columns.append(torch.split(torch.from_numpy(field), size))
    columns.append(torch.split(torch.from_numpy(is_padding), size))
    return [dict(zip((*fields, "is_padding"), tensors, strict=True)) for tensors in zip(*columns, strict=True)]


def _writable(array: Array) -> Array:
    return array if array.flags.writeable else array.copy()


def _pinned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Return an array in page-locked memory."""
    of_numpy = torch.from_numpy(np.empty(0, dtype)).dtype
    return torch.empty(shape, dtype=of_numpy, pin_memory=True).numpy()
