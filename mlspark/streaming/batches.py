"""Batches of one rank for one epoch, as torch tensors, in the order of the plan."""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch

from mlspark.config import StreamingSettings
from mlspark.errors import DatasetError
from mlspark.features.layout import Layout
from mlspark.streaming.decoding import Decoder, FieldSpec
from mlspark.streaming.petastorm_engine import PlannedReader, ReadOptions, Workers
from mlspark.streaming.plan import Integers, Plan, RankPlan
from mlspark.streaming.rows import Allocate, Array, Ragged, Rows, RowsBuffer
from mlspark.streaming.schema import TableColumn
from mlspark.streaming.snapshot import RowGroup, Snapshot

_PIECE_BYTES = 4 * 2**20  # gathered at a time: some thousand rows, so that Python's part of a row is small
_PIECES_AHEAD = 2

Tensors = tuple[torch.Tensor, ...]
Out = TypeVar("Out")


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
    """(B,) bool; True rows hold zeros, fill the last batch and count nowhere."""


@dataclass(frozen=True)
class Share:
    """All rows of a rank, decoded once and kept: see `keep_share`."""

    rows: Rows


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
    share: Share | None = None,
    pin_memory: bool = False,
) -> "Batches[Batch]":
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
        share: what `keep_share` returned for the same arguments: nothing is read, and each stream is fully shuffled.
        pin_memory: page-locked tensors, for asynchronous copies to a GPU.

    Raises:
        DatasetError: ranks, batch and rows do not fit together; on iteration: a file cannot be read.
    """
    plan = Plan(
        snapshot.rows_per_group(),
        global_batch_size=global_batch_size,
        seed=seed,
        epoch=epoch,
        streams=settings.streams,
        shuffle_window_rows=settings.shuffle_window_rows if share is None else _all_rows(snapshot, settings),
        shuffle=shuffle,
        remainder=settings.remainder,
        has_fixed_streams=share is not None,
    )
    decoder = layout_decoder(snapshot, layout)
    return Batches(
        RankPlan(plan, rank, world_size),
        snapshot.row_group_items(),
        None if share else Workers(decoder.columns, decoder, options=read_options(settings)),
        Batch,
        start_step=start_step,
        owns_workers=True,
        pin_memory=pin_memory,
        resident=None if share is None else share.rows,
    )


def keep_share(
    snapshot: Snapshot,
    layout: Layout,
    settings: StreamingSettings,
    *,
    rank: int,
    world_size: int,
    global_batch_size: int,
    seed: int,
    limit_bytes: int,
) -> Share:
    """Return the rows of this rank, the same ones in every epoch, for `open_batches`.

    Raises:
        DatasetError: they need more than `limit_bytes`, or a file cannot be read.
    """
    plan = Plan(
        snapshot.rows_per_group(),
        global_batch_size=global_batch_size,
        seed=seed,
        epoch=0,
        streams=settings.streams,
        shuffle_window_rows=_all_rows(snapshot, settings),
        remainder=settings.remainder,
        has_fixed_streams=True,
    )
    decoder = layout_decoder(snapshot, layout)
    workers = Workers(decoder.columns, decoder, options=read_options(settings))
    try:
        share = RankPlan(plan, rank, world_size)
        return Share(read_share(share, snapshot.row_group_items(), workers, limit_bytes=limit_bytes))
    finally:
        workers.close()


def _all_rows(snapshot: Snapshot, settings: StreamingSettings) -> int:
    """Return a window that holds every stream whole."""
    return snapshot.num_rows + settings.streams


def layout_decoder(snapshot: Snapshot, layout: Layout) -> Decoder:
    """Return what decodes a feature table into the fields of `Batch`. Features hold no nulls: one is an error."""

    def columns(*names: str) -> tuple[TableColumn, ...]:
        return tuple(snapshot.columns.get(name) or TableColumn.named(name) for name in names)

    return Decoder(
        (
            FieldSpec("dense", columns(*layout.dense), np.dtype(np.float32), is_matrix=True),
            FieldSpec("categorical", columns(*layout.categorical), np.dtype(np.int64), is_matrix=True),
            FieldSpec("label", columns(layout.label), np.dtype(np.float32)),
            FieldSpec("row_id", columns(layout.row_id), np.dtype(np.int64)),
        )
    )


def read_options(settings: StreamingSettings) -> ReadOptions:
    """Return how row groups are read, out of a pipeline's settings."""
    return ReadOptions(
        workers=settings.workers,
        pool=settings.pool,
        read_ahead_bytes=settings.read_ahead_bytes,
        cache_folder=settings.cache_folder,
        cache_bytes=settings.cache_bytes,
    )


class Batches(Generic[Out]):
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
        make: Callable[..., Out],
        *,
        start_step: int = 0,
        owns_workers: bool = False,
        pin_memory: bool = False,
        resident: Rows | None = None,
    ) -> None:
        """Start reading.

        Args:
            share: which rows, in which order.
            groups: the row groups that the plan counts.
            workers: read and decode; None with `resident`.
            make: makes a batch of its tensors: one for each field, two (values, offsets) for a ragged one, and last
                is_padding.
            start_step: first step to give.
            owns_workers: whether they end with this.
            pin_memory: page-locked tensors, for asynchronous copies to a GPU; ordinary ones where there is none.
            resident: the whole share as `read_share` returns it: nothing is read.
        """
        if not 0 <= start_step <= share.plan.num_steps:
            raise DatasetError(f"start_step {start_step} is outside the epoch's {share.plan.num_steps} steps")
        self.num_steps = share.plan.num_steps
        self.step = start_step
        """Steps given so far, those before start_step included: the position to resume from."""
        self.rows_seen = 0
        """Real rows given so far by this object."""
        self.wait_seconds = 0.0
        """Time that the consumer spent waiting for a batch."""
        self._share, self._groups, self._make, self._resident = share, groups, make, resident
        self._workers, self._owns_workers = workers, owns_workers
        self._allocate: Allocate = _pinned if pin_memory and torch.cuda.is_available() else np.empty
        self._first_block = start_step * share.batch_size // share.block_rows
        self._reader: PlannedReader[Rows] | None = None
        self._gathered: deque[tuple[Tensors, int]] = deque()
        self._ahead = _Ahead(self._pieces(start_step), _PIECES_AHEAD)

    def __enter__(self) -> "Batches[Out]":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End reading; what was given stays valid."""
        if self._reader is not None:
            self._reader.stop()  # else the thread waits for a row group that may take long
        self._ahead.close()
        if self._owns_workers and self._workers is not None:
            self._workers.close()

    def __iter__(self) -> Iterator[Out]:
        while self.step < self.num_steps:
            if not self._gathered:
                started = time.perf_counter()
                self._gathered.extend(next(self._ahead))
                self.wait_seconds += time.perf_counter() - started
            tensors, num_real = self._gathered.popleft()
            self.step += 1
            self.rows_seen += num_real
            yield self._make(*tensors)

    def _pieces(self, start_step: int) -> Iterator[list[tuple[Tensors, int]]]:
        """Give (tensors, number of real rows) of some batches at a time. Runs in the thread of `_ahead`."""
        size = self._share.batch_size
        left = (self.num_steps - start_step) * size  # rows to give, padding included
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
                        yield _cut(buffer.rows(), size, 0)
                        buffer = None
        if left:  # fewer real rows than the last batch has room for
            given = [] if buffer is None else [buffer.rows()]
            num_padding = left - sum(map(len, given))
            padding = (self._decode_nothing() if kind is None else kind).zeros(num_padding)
            yield _cut(Rows.concatenate([*given, padding]), size, num_padding)

    def _blocks(self) -> Iterator[tuple[Rows, Integers]]:
        """Give (rows of a block, their places in the epoch's order); the rows are valid until the next block."""
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


def _cut(rows: Rows, size: int, num_padding: int) -> list[tuple[Tensors, int]]:
    """Return batches of `size` rows as views of `rows`, each with its number of real rows."""
    count = len(rows) // size
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
    num_real = [size] * count
    if num_padding:
        num_real[-1] -= num_padding
    return list(zip(zip(*columns, strict=True), num_real, strict=True))


def _writable(array: Array) -> Array:
    return array if array.flags.writeable else array.copy()


def _pinned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Return an array in page-locked memory."""
    of_numpy = torch.from_numpy(np.empty(0, dtype)).dtype
    return torch.empty(shape, dtype=of_numpy, pin_memory=True).numpy()


class _Ahead(Iterator[Any]):
    """Runs an iterator in a thread, some items ahead; raises here what it raised there."""

    def __init__(self, items: Iterable[Any], num_ahead: int) -> None:
        self._items: queue.Queue[tuple[bool, Any]] = queue.Queue(num_ahead)
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, args=(items,), name="mlspark-gather", daemon=True)
        self._thread.start()

    def __next__(self) -> Any:
        is_item, item = self._items.get()
        if is_item:
            return item
        self._put(False, item)  # for whoever asks again
        if item is None:
            raise StopIteration
        raise item

    def close(self) -> None:
        """End the thread; what waits in the queue is dropped."""
        self._is_closed = True
        while self._thread.is_alive():
            try:
                self._items.get_nowait()
            except queue.Empty:
                self._thread.join(0.01)

    def _run(self, items: Iterable[Any]) -> None:
        iterator = iter(items)
        try:
            for item in iterator:
                if not self._put(True, item):
                    break
            self._put(False, None)
        except BaseException as error:  # raised again where the consumer is
            self._put(False, error)
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()

    def _put(self, is_item: bool, item: Any) -> bool:
        while not self._is_closed:
            try:
                self._items.put((is_item, item), timeout=0.1)
                return True
            except queue.Full:
                continue
        return False
