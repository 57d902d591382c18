"""Streams of torch tensors from a table or files, for any training loop. Runs in a rank or anywhere else; needs no Spark."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pyarrow as pa
import torch.distributed as dist
from torch.utils.data import IterableDataset, get_worker_info

from mlspark.errors import DatasetError
from mlspark.pictures.mixing import Mix
from mlspark.streaming import snapshots
from mlspark.streaming.batches import Batches, TensorDict, read_share
from mlspark.streaming.decoding import Columns, Decoder, FieldSpec, specify
from mlspark.streaming.disk_cache import DiskCache
from mlspark.streaming.filters import Condition
from mlspark.streaming.mixing import FIELDS as MIXING_FIELDS
from mlspark.streaming.mixing import Mixing
from mlspark.streaming.pictures import Picture, Pictures, columns_beside, picture_fields, window_rows
from mlspark.streaming.plan import DEFAULT_LANES, DEFAULT_READ_AHEAD_BYTES, DEFAULT_WINDOW_BYTES, Plan, RankPlan
from mlspark.streaming.read_ahead import ReadOptions, default_workers
from mlspark.streaming.reader import Workers
from mlspark.streaming.reused_memory import ReusedMemory
from mlspark.streaming.rows import Rows
from mlspark.streaming.schema import TableColumn, table_columns
from mlspark.streaming.snapshot import Snapshot

_STATE_FORMAT = 1
_ORDER = (
    "batch_size", "seed", "lanes", "shuffle_window_rows", "shuffle", "remainder", "has_fixed_lanes",
)  # fmt: skip
"""Values of the plan that decide the order of every epoch."""


@dataclass(frozen=True)
class Transform:
    """A change of the rows made by the reader's workers, before they become tensors."""

    apply: Callable[[pa.Table], pa.Table]
    """Function of a row group that returns one of the same rows in the same order; must be picklable for a process pool."""
    reads: Sequence[str] = ()
    """Columns that it needs beyond those that are streamed."""
    gives: Mapping[str, str] = field(default_factory=dict)
    """Columns that it adds or changes -> their Delta type ("float", "array<float>" is not among them: use "binary")."""

    @property
    def columns(self) -> dict[str, TableColumn]:
        """The columns that it adds or changes, by name."""
        return table_columns({"fields": [{"name": name, "type": declared} for name, declared in self.gives.items()]})


class Stream(IterableDataset[TensorDict]):
    """Batches of a rank from a table, epoch after epoch: {field: tensor} with "is_padding" (B,) bool.

    Each `iter` yields one epoch; after one that was broken off the next one begins. `state_dict` between two batches and
    `load_state_dict`, in another process of another world size too, go on with the next batch instead. Use it as it is, or
    in a DataLoader with batch_size=None and num_workers=0: it reads ahead by itself. `mlspark.streaming.open` is this class.

    The order of an epoch depends on the table's version, seed, epoch, batch_size, lanes and window, and on nothing else:
    the ranks together see the same rows in each step whatever their number, and each row once in an epoch. Every rank
    takes the same number of steps. The last batch is short. A rank that has no row in a step (in a last batch of fewer rows
    than lanes, or with hardly more rows in a batch than ranks) gets one of its others, which "is_padding" marks.

    Args:
        table: URI of a Delta table; of a Parquet file, a folder or a glob of such (`parquet_files.take`); or a snapshot that
            was taken before (all ranks of a run should share one).
        version: of a Delta table; None: the latest now.
        columns: names, each a field; or {field: column, or list of numeric columns for one (B, F) matrix}; None: all.
            `decoding` says what each type becomes; a ragged field has two tensors, NAME and NAME_offsets (B + 1,).
        specs: the fields in full, in place of columns, lengths, vocabularies and dtypes: see `feature_table`.
        batch_size: rows of a step over all ranks; each rank gets those of its lanes, batch_size / world_size where that
            divides batch_size and lanes.
        rank: None: that of torch.distributed, where it is initialised, else 0.
        world_size: None: that of torch.distributed, else 1. At most `lanes`.
        seed: with the epoch decides the order.
        images: field -> the `Picture` that stand in a binary column: (B, C, height, width) uint8, decoded and augmented by
            threads, and processes when these have worked for a while, as many as `workers`, whatever `pool` is. With
            columns=None, beside all other columns.
        mix: MixUp and CutMix of the one field of pictures, by fields that `mixing.mixed` applies where the batch is used.
        shuffle_window_rows: rows shuffled among each other, over all ranks; row groups are shuffled over the whole table.
        shuffle_window_bytes: with pictures, bytes that the rows of a window may need, as the table holds them: the window
            has fewer rows where they need more. Part of the order.
        shuffle: False: lanes in table order.
        lanes: into which the rows are parted for the ranks, part of the order. Ranks have equally many lanes, and with them
            equal shares of each batch, where world_size divides lanes. Each lane's edge cuts a row group, read twice.
        remainder: what becomes of the last, short batch: kept as it is, or dropped.
        where: conditions that every row satisfies, such as [("age", ">=", 18)]: see `delta_files.take`.
        fill: column -> value that stands for null, and for all rows of files older than the column. Without one a null
            is an error, but for a column with a vocabulary.
        lengths: string, binary or list column -> its one length: (B, length) and no offsets.
        vocabularies: string column -> words: ids (B,) int64, 0 null that is not filled, 1 unknown, 2 the first word.
        dtypes: field of numbers -> numpy type, such as {"x": "float32"}.
        transform: work for the reader's workers.
        workers: reader threads or processes; None: 4 where the table is in a remote store, else 2.
        pool: processes take seconds to start and copy each row once more; they help a transform written in Python.
        read_ahead_bytes: decoded rows that are read before they are asked for, besides one row group per worker.
        cache_folder: local folder that keeps what was read, for all ranks and runs of this machine; empty: none.
        cache_bytes: its size.
        memory_bytes: 0: every epoch streams from the files. Else the rank's share is read once, kept in memory, and fully
            shuffled within its lanes in each epoch; a share that needs more bytes than this is an error. Another order
            than without, but as independent of the number of ranks; resuming costs reading the share.
        pin_memory: page-locked tensors for `to_device`; ordinary ones where there is no GPU.

    Raises:
        TableError: no such table or version.
        DatasetError: a column, type, rank, size or condition that does not fit; names it. On iteration: a file cannot be
            read.
    """

    snapshot: Snapshot
    fields: tuple[str, ...]
    """Names of the tensors of a batch, "is_padding" last."""
    num_steps: int
    """Batches of an epoch, on every rank."""
    epoch: int
    """Epoch of the next batch."""
    step: int
    """Batches yielded of this epoch."""
    wait_seconds: float
    """Seconds that the consumer waited for the batches of this epoch, since its `iter`."""
    _workers: Workers[Rows] | None = None
    _resident: Rows | None = None
    _batches: Batches | None = None
    _is_placed: bool = False
    """Whether by go_to: then the next iteration begins at `step`."""

    def __init__(
        self,
        table: str | Snapshot,
        *,
        version: int | None = None,
        columns: Columns | None = None,
        specs: Sequence[FieldSpec] = (),
        images: Mapping[str, Picture] | None = None,
        mix: Mix | None = None,
        batch_size: int,
        rank: int | None = None,
        world_size: int | None = None,
        seed: int = 0,
        shuffle_window_rows: int = 400_000,
        shuffle_window_bytes: int = DEFAULT_WINDOW_BYTES,
        shuffle: bool = True,
        lanes: int = DEFAULT_LANES,
        remainder: Literal["keep", "drop"] = "keep",
        where: Iterable[Condition] = (),
        fill: Mapping[str, Any] | None = None,
        lengths: Mapping[str, int] | None = None,
        vocabularies: Mapping[str, Sequence[str]] | None = None,
        dtypes: Mapping[str, str] | None = None,
        transform: Transform | None = None,
        workers: int | None = None,
        pool: Literal["thread", "process"] = "thread",
        read_ahead_bytes: int = DEFAULT_READ_AHEAD_BYTES,
        cache_folder: str = "",
        cache_bytes: int = 10 * 2**30,
        memory_bytes: int = 0,
        pin_memory: bool = False,
    ) -> None:
        """Open the table; no row is read before `iter`. See the class for the arguments."""
        self.snapshot = _snapshot(table, version, where)
        self.snapshot.refuse_no_rows()
        self.rank, self.world_size = _place(rank, world_size)
        source, known = self.snapshot.table, self.snapshot.columns | (transform.columns if transform else {})
        about = {"lengths": lengths, "vocabularies": vocabularies, "dtypes": dtypes}
        specs = _all_fields(specs, images or {}, columns, known, source, about)
        mixing = Mixing.of(mix, specs, seed=seed, batch_size=batch_size, lanes=lanes)
        self.fields = _tensor_names(specs, () if mixing is None else MIXING_FIELDS, source)
        if unknown := [name for name in fill or {} if name not in known]:
            raise DatasetError(f"{source}: fill names {unknown[0]}, which is no column; there are {', '.join(known)}")
        self._decoder, self._transform = Decoder(specs, dict(fill or {})), transform
        workers = default_workers(source) if workers is None else workers
        self._options = _checked(ReadOptions(workers, pool, read_ahead_bytes, cache_folder, cache_bytes))
        self._memory_bytes, self._pin_memory, self._memory = memory_bytes, pin_memory, ReusedMemory()
        self._plan = Plan(
            self.snapshot.rows_per_group(),
            batch_size=batch_size,
            seed=seed,
            epoch=0,
            lanes=lanes,
            shuffle_window_rows=window_rows(self.snapshot, specs, shuffle_window_rows, shuffle_window_bytes),
            shuffle=shuffle,
            remainder=remainder,
            has_fixed_lanes=bool(memory_bytes),
        )
        self._pictures = Pictures.of(specs, self.snapshot, seed=seed, num_workers=workers, mixing=mixing)
        self.num_steps, self._groups = self._steps_of_an_epoch(), self.snapshot.row_group_items()
        self.epoch, self.step, self.wait_seconds = 0, 0, 0.0

    def __len__(self) -> int:
        return self.num_steps

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[TensorDict]:
        if get_worker_info() is not None:
            raise DatasetError(
                "a Stream in the workers of a DataLoader would yield each row several times and lose its position; "
                "set num_workers=0 (it reads ahead in threads or processes of its own)"
            )
        self._end_epoch()
        if self.step and not self._is_placed:  # broken off
            self.epoch, self.step = self.epoch + 1, 0
        self._is_placed, self.wait_seconds = False, 0.0
        with self._open() as batches:
            for batch in batches:
                self.step, self.wait_seconds = batches.step, batches.wait_seconds
                yield batch
                if batches.is_closed:
                    raise DatasetError(
                        f"{self.snapshot.table}: this iteration was ended by another one of the same stream, or by its "
                        f"load_state_dict or close; open a stream for each iteration that goes on at the same time"
                    )
        self.epoch, self.step = self.epoch + 1, 0

    def state_dict(self) -> dict[str, Any]:
        """Return the position, as JSON: after the last batch yielded, for any rank of any world size."""
        return {
            "format": _STATE_FORMAT,
            "epoch": self.epoch,
            "step": self.step,
            "fingerprint": self.snapshot.fingerprint,
            "source": self.snapshot.about(),
            **{name: getattr(self._plan, name) for name in _ORDER},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to the position of `state`.

        Raises:
            DatasetError: it is of another table, version, seed, batch size, ...; names what differs.
        """
        mine = self.state_dict()
        if state.get("fingerprint") != mine["fingerprint"]:
            raise DatasetError(f"this position is of {self.snapshot.other_than_this(state.get('source') or {})}")
        words = ("epoch", "step", "source")
        different = [name for name in mine if name not in words and state.get(name) != mine[name]]
        if different:
            parts = (_difference(name, state.get(name), mine[name]) for name in different)
            raise DatasetError(f"this position is of a stream with other {', '.join(parts)}; open the stream as it was")
        self.go_to(state["epoch"], state["step"])

    def go_to(self, epoch: int, step: int = 0) -> None:
        """Have the next `iter` begin at that step of that epoch; costs one window, whatever the step.

        Raises:
            DatasetError: the epoch has fewer steps.
        """
        if not 0 <= step <= self.num_steps:
            raise DatasetError(f"step {step} is outside the epoch's {self.num_steps} steps")
        self._end_epoch()
        self.epoch, self.step, self._is_placed = epoch, step, True

    def close(self) -> None:
        """End the reader's workers; what was yielded stays valid, and iterating starts them again."""
        self._end_epoch()
        self._close_workers()
        self._memory.clear()
        if self._pictures is not None:
            self._pictures.close()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_workers": None, "_batches": None, "_resident": None, "_memory": ReusedMemory()}

    def _close_workers(self) -> None:
        if self._workers is not None:
            self._workers.close()
            self._workers = None

    def _end_epoch(self) -> None:
        if self._batches is not None:
            self._batches.close()
            self._batches = None

    def _steps_of_an_epoch(self) -> int:
        try:
            return self._share(0).plan.num_steps
        except DatasetError as error:
            raise DatasetError(f"{self.snapshot.table}: {error}") from None

    def _share(self, epoch: int) -> RankPlan:
        plan = replace(self._plan, epoch=epoch)
        if plan.has_fixed_lanes:  # one window: all rows
            plan = replace(plan, shuffle_window_rows=plan.num_rows + plan.lanes)
        return RankPlan(plan, self.rank, self.world_size)

    def _open(self) -> Batches:
        share = self._share(self.epoch)
        is_resident = bool(self._memory_bytes and share.num_rows)
        if is_resident and self._resident is None:
            self._resident = read_share(
                share, self._groups, self._started(), limit_bytes=self._memory_bytes, has_pictures=bool(self._pictures)
            )
            self._close_workers()  # nothing more is read
        self._batches = Batches(
            share,
            self._groups,
            None if is_resident else self._started(),
            self.fields[:-1],
            num_threads=self._options.workers,
            start_step=self.step,
            pin_memory=self._pin_memory,
            resident=self._resident,
            pictures=self._pictures,
            memory=self._memory,
        )
        return self._batches

    def _started(self) -> Workers[Rows]:
        """Return the workers, which stay for later epochs."""
        if self._workers is None:
            columns = self._decoder.columns
            if self._transform is not None:
                kept = {column.name: column for column in columns if column.name not in self._transform.gives}
                columns = tuple((kept | {name: self.snapshot.columns[name] for name in self._transform.reads}).values())
            self._workers = Workers(
                columns,
                replace(self._decoder, is_writable=self._share(self.epoch).is_in_table_order),
                transform=None if self._transform is None else self._transform.apply,
                options=self._options,
            )
        return self._workers


def _all_fields(
    specs: Sequence[FieldSpec],
    images: Mapping[str, Picture],
    columns: Columns | None,
    known: Mapping[str, TableColumn],
    source: str,
    about: Mapping[str, Any],
) -> tuple[FieldSpec, ...]:
    """Return the fields in full, or those that `columns` asks for, and those of pictures."""
    pictures = picture_fields(images, known, source)
    columns = columns_beside(pictures, columns, known)
    if not specs and (columns is None or columns):
        specs = specify(columns, known, source=source, **about)
    return (*specs, *pictures)


def _snapshot(table: str | Snapshot, version: int | None, where: Iterable[Condition]) -> Snapshot:
    if not isinstance(table, Snapshot):
        return snapshots.take(table, version=version, where=where)
    if version not in (None, table.version) or tuple(where):
        raise DatasetError(
            f"{table.table}: a snapshot of version {table.version} was given; version and where belong to delta_files.take"
        )
    return table


def _difference(name: str, then: Any, now: Any) -> str:
    """Return what differs between two positions, by the argument of `open` that decides it."""
    if name == "has_fixed_lanes":
        return f"memory_bytes {'above 0' if then else 0} (now {'above 0' if now else 0})"
    if name == "shuffle_window_rows":
        return f"shuffle_window_rows {then} (now {now}; with pictures, shuffle_window_bytes lowers it)"
    return f"{name} {then} (now {now})"


def _checked(options: ReadOptions) -> ReadOptions:
    """Return the options, unless their cache cannot be made: refused when the stream is opened, not by a worker."""
    if options.cache_folder:
        DiskCache(options.cache_folder, options.cache_bytes)
    return options


def _place(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """Return (rank, world size), those of torch.distributed where they are None."""
    is_distributed = dist.is_available() and dist.is_initialized()
    if world_size is None:
        world_size = dist.get_world_size() if is_distributed else 1
    if rank is None:
        rank = dist.get_rank() if is_distributed else 0
    if not 0 <= rank < world_size:
        raise DatasetError(f"rank {rank} is not among the {world_size} ranks 0 to {world_size - 1}")
    return rank, world_size


def _tensor_names(specs: Sequence[FieldSpec], others: Sequence[str], source: str) -> tuple[str, ...]:
    names = [*(name for spec in specs for name in spec.tensors), *others, "is_padding"]
    if len(set(names)) < len(names):
        twice = min(name for name in names if names.count(name) > 1)
        raise DatasetError(f"{source}: two fields are called {twice}; rename one with columns={{field: column}}")
    return tuple(names)
