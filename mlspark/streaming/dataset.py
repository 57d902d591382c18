"""Streams of torch tensors from a Delta table, for any training loop. Runs in a rank or anywhere else; needs no Spark."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa
import torch
import torch.distributed as dist
from torch.utils.data import IterableDataset, get_worker_info

from mlspark.errors import DatasetError
from mlspark.streaming import snapshot as snapshots
from mlspark.streaming.batches import Batches, Tensors, read_share
from mlspark.streaming.decoding import Columns, Decoder, is_number, specify
from mlspark.streaming.filters import Condition
from mlspark.streaming.petastorm_engine import ReadOptions, Workers
from mlspark.streaming.plan import Plan, RankPlan
from mlspark.streaming.rows import Rows
from mlspark.streaming.schema import TableColumn, table_columns
from mlspark.streaming.snapshot import Snapshot

TensorDict = dict[str, torch.Tensor]
_STATE_FORMAT = 1


@dataclass(frozen=True)
class Transform:
    """A change of the rows made by the reader's workers, before they become tensors."""

    apply: Callable[[pa.Table], pa.Table]
    """Takes and returns a row group; keeps number and order of the rows. With a process pool it must be picklable."""
    reads: Sequence[str] = ()
    """Columns that it needs beyond those that are streamed."""
    gives: Mapping[str, str] = field(default_factory=dict)
    """Columns that it adds or changes -> their Delta type ("float", "array<float>" is not among them: use "binary")."""


def open_table(
    table: str | Snapshot,
    *,
    version: int | None = None,
    columns: Columns | None = None,
    batch_size: int,
    rank: int | None = None,
    world_size: int | None = None,
    seed: int = 0,
    shuffle_window_rows: int = 400_000,
    shuffle: bool = True,
    streams: int | None = None,
    remainder: Literal["pad", "drop"] = "pad",
    where: Iterable[Condition] = (),
    fill: Mapping[str, Any] | None = None,
    lengths: Mapping[str, int] | None = None,
    vocabularies: Mapping[str, Sequence[str]] | None = None,
    dtypes: Mapping[str, str] | None = None,
    transform: Transform | None = None,
    workers: int = 2,
    pool: Literal["thread", "process"] = "thread",
    read_ahead_bytes: int = 256 * 2**20,
    cache_folder: str = "",
    cache_bytes: int = 10 * 2**30,
    memory_bytes: int = 0,
    pin_memory: bool = False,
) -> "Stream":
    """Return a stream of batches of a Delta table: {field: tensor} with "is_padding" (B,) bool.

    The order of an epoch depends on the table's version, seed, epoch, batch_size, streams and window, and on nothing else:
    the ranks together see the same rows in each step whatever their number, and each row once in an epoch. Every rank
    takes the same number of steps.

    Args:
        table: URI, or a snapshot that was taken before (all ranks of a run should share one).
        version: of the table; None: the latest now.
        columns: names, each a field; or {field: column, or list of numeric columns for one (B, F) matrix}; None: all.
            `decoding` says what each type becomes; a ragged field has two tensors, NAME and NAME_offsets (B + 1,).
        batch_size: rows of a step over all ranks; each rank gets batch_size / world_size of them.
        rank: None: that of torch.distributed, where it is initialised, else 0.
        world_size: None: that of torch.distributed, else 1. Must divide `streams` and batch_size.
        seed: with the epoch decides the order.
        shuffle_window_rows: rows shuffled among each other, over all ranks; row groups are shuffled over the whole table.
        shuffle: False: streams in table order.
        streams: into which the rows are parted for the ranks; None: 8, or the world size where that does not divide 8.
            Part of the order: give the same number to world sizes that shall see the same batches.
        remainder: what becomes of the last, short batch: filled with rows of zeros that "is_padding" marks, or left out.
        where: conditions that leave out partitions and row groups: see `snapshot.take`.
        fill: column -> value that stands for null, and for all rows of files older than the column. Without one a null
            is an error.
        lengths: string, binary or list column -> its one length: (B, length) and no offsets.
        vocabularies: string column -> words: ids (B,) int64, 0 null, 1 unknown, 2 the first word.
        dtypes: field of numbers -> numpy type, such as {"x": "float32"}.
        transform: work for the reader's workers.
        workers: reader threads or processes.
        pool: processes take seconds to start and copy each row once more; they help a transform written in Python.
        read_ahead_bytes: decoded rows that are read before they are asked for, besides one row group per worker.
        cache_folder: local folder that keeps what was read, for all ranks and runs of this machine; empty: none.
        cache_bytes: its size.
        memory_bytes: 0: every epoch streams from the files. Else the rank's share is read once, kept in memory, and fully
            shuffled within its streams in each epoch; a share that needs more bytes than this is an error. Another order
            than without, but as independent of the number of ranks; resuming costs reading the share.
        pin_memory: page-locked tensors for `to_device`; ordinary ones where there is no GPU.

    Raises:
        TableError: no such table or version.
        DatasetError: a column, type, rank, size or condition that does not fit; names it.
    """
    if isinstance(table, Snapshot):
        snapshot = table
        if version not in (None, snapshot.version) or tuple(where):
            raise DatasetError(
                f"{snapshot.table}: a snapshot of version {snapshot.version} was given; version and where belong to "
                f"snapshot.take"
            )
    else:
        snapshot = snapshots.take(table, version=version, where=where)
    if world_size is None:
        world_size = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
    if rank is None:
        rank = dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
    if not 0 <= rank < world_size:
        raise DatasetError(f"rank {rank} is not among the {world_size} ranks 0 to {world_size - 1}")
    known = snapshot.columns | _given(transform)
    specs = specify(columns, known, lengths=lengths, vocabularies=vocabularies, dtypes=dtypes, source=snapshot.table)
    fields = []
    for spec in specs:
        is_dense = spec.is_matrix or spec.length is not None or spec.vocabulary is not None
        is_ragged = not is_dense and not is_number(spec.columns[0].type)
        fields += [spec.name, f"{spec.name}_offsets"] if is_ragged else [spec.name]
    fields.append("is_padding")
    if len(set(fields)) < len(fields):
        twice = min(name for name in fields if fields.count(name) > 1)
        raise DatasetError(
            f"{snapshot.table}: two fields are called {twice}; rename one with columns={{field: column}}"
        )
    for name in fill or {}:
        if name not in known:
            raise DatasetError(f"{snapshot.table}: fill names {name}, which is no column; there are {', '.join(known)}")
    return Stream(
        snapshot,
        Decoder(specs, dict(fill or {})),
        fields,
        rank=rank,
        world_size=world_size,
        plan_settings={
            "global_batch_size": batch_size,
            "seed": seed,
            "streams": streams or (8 if 8 % world_size == 0 else world_size),
            "shuffle_window_rows": shuffle_window_rows,
            "shuffle": shuffle,
            "remainder": remainder,
            "has_fixed_streams": bool(memory_bytes),
        },
        transform=transform,
        options=ReadOptions(workers, pool, read_ahead_bytes, cache_folder, cache_bytes),
        memory_bytes=memory_bytes,
        pin_memory=pin_memory,
    )


def _given(transform: Transform | None) -> dict[str, TableColumn]:
    fields = [{"name": name, "type": declared} for name, declared in (transform.gives if transform else {}).items()]
    return table_columns({"fields": fields})


class Stream(IterableDataset[TensorDict]):
    """Batches of a rank, epoch after epoch: each `iter` gives one epoch, or the rest of the one that was begun.

    `state_dict` between two batches and `load_state_dict` in another process, of another world size too, go on with the
    next batch. Use it as it is, or in a DataLoader with batch_size=None and num_workers=0: it reads ahead by itself.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        decoder: Decoder,
        fields: Sequence[str],
        *,
        rank: int,
        world_size: int,
        plan_settings: Mapping[str, Any],
        transform: Transform | None,
        options: ReadOptions,
        memory_bytes: int,
        pin_memory: bool,
    ) -> None:
        """See `open_table`."""
        self.snapshot, self.fields = snapshot, tuple(fields)
        self.rank, self.world_size = rank, world_size
        self.epoch = 0
        """The epoch that the next batch is of."""
        self.step = 0
        """Batches given of this epoch."""
        self.wait_seconds = 0.0
        """Time that the consumer waited for batches."""
        self._decoder, self._transform, self._options = decoder, transform, options
        self._memory_bytes, self._pin_memory = memory_bytes, pin_memory
        self._plan_settings = dict(plan_settings)
        self._rows_per_group = snapshot.rows_per_group()
        self._groups = snapshot.row_group_items()
        self._workers: Workers[Rows] | None = None
        self._resident: Rows | None = None
        self._batches: Batches[Tensors] | None = None
        self.num_steps = self._share(0).plan.num_steps
        """Batches of an epoch, on every rank."""

    def __len__(self) -> int:
        return self.num_steps

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[TensorDict]:
        if get_worker_info() is not None:
            raise DatasetError(
                "a Stream in the workers of a DataLoader would give each row several times and lose its position; "
                "set num_workers=0 (it reads ahead in threads or processes of its own)"
            )
        self._end_epoch()
        with self._open() as batches:
            for tensors in batches:
                self.step, self.wait_seconds = batches.step, batches.wait_seconds
                yield dict(zip(self.fields, tensors, strict=True))
        self.epoch, self.step = self.epoch + 1, 0

    def state_dict(self) -> dict[str, Any]:
        """Return the position, as JSON: after the last batch given, for any rank of any world size."""
        return {
            "format": _STATE_FORMAT,
            "epoch": self.epoch,
            "step": self.step,
            "fingerprint": self.snapshot.fingerprint,
            **self._plan_settings,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to the position of `state`.

        Raises:
            DatasetError: it is of another table, version, seed, batch size, ...; names what differs.
        """
        mine = self.state_dict()
        different = [name for name in mine if name not in ("epoch", "step") and state.get(name) != mine[name]]
        if different:
            parts = (
                "table, version or filters" if name == "fingerprint" else f"{name} {state.get(name)} (now {mine[name]})"
                for name in different
            )
            raise DatasetError(f"this position is of a stream with other {', '.join(parts)}; open the stream as it was")
        if not 0 <= state["step"] <= self.num_steps:
            raise DatasetError(f"step {state['step']} is outside the epoch's {self.num_steps} steps")
        self._end_epoch()
        self.epoch, self.step = state["epoch"], state["step"]

    def close(self) -> None:
        """End the reader's workers; what was given stays valid, and iterating starts them again."""
        self._end_epoch()
        if self._workers is not None:
            self._workers.close()
            self._workers = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_workers": None, "_batches": None, "_resident": None}

    def _end_epoch(self) -> None:
        if self._batches is not None:
            self._batches.close()
            self._batches = None

    def _share(self, epoch: int) -> RankPlan:
        settings = self._plan_settings
        if settings["has_fixed_streams"]:  # one window: all rows
            settings = settings | {"shuffle_window_rows": int(self._rows_per_group.sum()) + settings["streams"]}
        return RankPlan(Plan(self._rows_per_group, epoch=epoch, **settings), self.rank, self.world_size)

    def _open(self) -> Batches[Tensors]:
        share = self._share(self.epoch)
        if self._workers is None:
            columns = self._decoder.columns
            if self._transform is not None:
                kept = {column.name: column for column in columns if column.name not in self._transform.gives}
                columns = tuple((kept | {name: self.snapshot.columns[name] for name in self._transform.reads}).values())
            self._workers = Workers(
                columns,
                self._decoder,
                transform=None if self._transform is None else self._transform.apply,
                options=self._options,
            )
        if self._memory_bytes and self._resident is None:
            self._resident = read_share(share, self._groups, self._workers, limit_bytes=self._memory_bytes)
        self._batches = Batches(
            share,
            self._groups,
            self._workers,
            lambda *tensors: tensors,
            start_step=self.step,
            pin_memory=self._pin_memory,
            resident=self._resident,
        )
        return self._batches


def to_device(batches: Iterable[TensorDict], device: torch.device | str) -> Iterator[TensorDict]:
    """Give the batches on `device`, each copied while the one before it is used: open the stream with pin_memory=True.

    On a CPU they are given as they are.
    """
    device = torch.device(device)
    if device.type != "cuda":
        yield from batches
        return
    copying = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    before: tuple[TensorDict, TensorDict, torch.cuda.Event] | None = None
    for batch in batches:
        with torch.cuda.stream(copying):
            copied = {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
            is_copied = copying.record_event()
        if before is not None:
            yield _ready(before, device)
        before = copied, batch, is_copied
    if before is not None:
        yield _ready(before, device)


def _ready(copy: tuple[TensorDict, TensorDict, torch.cuda.Event], device: torch.device) -> TensorDict:
    """Return the tensors of a copy that was begun, for use on the current stream."""
    copied, _, is_copied = copy
    # Begun a batch ago. The page-locked tensors are views, of which torch does not know that a copy reads them: they
    # must live until it is over.
    is_copied.synchronize()
    for tensor in copied.values():  # made on one stream and used on another: keep the memory until both are done
        tensor.record_stream(torch.cuda.current_stream(device))
    return copied
