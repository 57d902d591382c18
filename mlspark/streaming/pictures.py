"""Columns of pictures in a stream: what people ask for, and the threads that have what a batch holds decoded and augmented.

Through windows and shuffle a picture is the bytes that the table holds, so a window needs the memory of files and not of
pixels. Once a batch's rows are gathered, threads decode them into its tensor, or wait for processes that do.
"""

import hashlib
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import pyarrow as pa

from mlspark.errors import DatasetError
from mlspark.pictures.augment import Augmentation, wrong
from mlspark.pictures.draws import draw
from mlspark.pictures.filling import Filling, UnreadablePicture
from mlspark.pictures.processes import AREA_BYTES, MOST_AT_ONCE, Fillers, FillersGoneError
from mlspark.pictures.spec import MAX_SIDE, Interpolation, Mode, PictureSpec, Resize, Store, is_size
from mlspark.streaming.decoding import Columns, FieldSpec
from mlspark.streaming.mixing import Mixing
from mlspark.streaming.plan import Integers
from mlspark.streaming.reused_memory import ReusedMemory, keep_what_is_freed
from mlspark.streaming.rows import Allocate, Array, Rows, RowsBuffer
from mlspark.streaming.schema import TableColumn
from mlspark.streaming.snapshot import Snapshot

_CHUNK_BYTES = 2**19  # of pixels that a thread or process makes at a time: some milliseconds of work
_FEWEST_AT_ONCE = 8  # where they fit: of 500x375 JPEGs 7 % more a second than with three
# Of stored pixels, where each of numpy's operations on a chunk ends with waiting for Python's lock: with chunks of a quarter
# of this, waiting takes 2.7 us of processor time for a picture of 32 pixels, beside the 3.7 of all else.
_CHUNK_BYTES_OF_STORED = 2**21
_ROW_ID = "row_id"


@dataclass(frozen=True, kw_only=True)
class Picture:
    """Pictures to stream from a binary column: each becomes uint8 (C, height, width)."""

    size: int | tuple[int, int]
    """Height and width in pixels; one number: both."""
    column: str = ""
    """Column that holds them; empty: the one called like the field."""
    mode: Mode = "RGB"
    """Colours: 1, 3 or 4 channels."""
    resize: Resize = "exact"
    """How a picture of another size is brought to it: see `PictureSpec`."""
    interpolation: Interpolation = "bilinear"
    orientation: bool = True
    """Whether the orientation in EXIF is applied."""
    store: Store = "encoded"
    """What the column holds: files (JPEG, PNG, ...), or the bytes of (C, height, width)."""
    augment: Sequence[Augmentation] = ()
    """What is done to each picture at random, in order; drawn from seed, epoch and the row's place in the table."""

    @property
    def spec(self) -> PictureSpec:
        """The same as the room of pictures has it."""
        return PictureSpec.of(self, store=self.store)


def picture_fields(
    images: Mapping[str, Picture], table: Mapping[str, TableColumn], source: str
) -> tuple[FieldSpec, ...]:
    """Return the fields that `images` asks for.

    Raises:
        DatasetError: a column is not there or holds no bytes, or a size is none; names it.
    """
    fields = []
    if not isinstance(images, Mapping):
        raise DatasetError(f"{source}: images is {images!r}; give {{field: Picture(size=...)}}")
    for name, picture in images.items():
        if not isinstance(picture, Picture):
            raise DatasetError(f"{source}: images has {picture!r} for {name}; give Picture(size=...)")
        column = table.get(picture.column or name)
        if column is None:
            raise DatasetError(f"{source}: no column {picture.column or name}; there are {', '.join(table)}")
        if column.type is None or not pa.types.is_binary(column.type):
            raise DatasetError(
                f"{source}: column {column.name} of type {column.declared} holds no pictures; they are bytes of type binary"
            )
        if not is_size(picture.size):
            raise DatasetError(
                f"{source}: pictures of {name} have size {picture.size!r}; give a whole number of pixels, 1 to "
                f"{MAX_SIDE:,}, or (height, width)"
            )
        if problem := wrong(picture.augment):
            raise DatasetError(f"{source}: augment of {name} {problem}")
        spec = picture.spec
        for what, value, known in (
            ("mode", spec.mode, get_args(Mode)),
            ("resize", spec.resize, get_args(Resize)),
            ("interpolation", spec.interpolation, get_args(Interpolation)),
            ("store", spec.store, get_args(Store)),
        ):
            if value not in known:
                raise DatasetError(
                    f"{source}: pictures of {name} have {what} {value!r}; choose one of {', '.join(known)}"
                )
        fields.append(FieldSpec(name, (column,), picture=spec, augment=tuple(picture.augment)))
    return tuple(fields)


def columns_beside(
    fields: Sequence[FieldSpec], columns: Columns | None, table: Mapping[str, TableColumn]
) -> Columns | None:
    """Return the columns that stand beside fields of pictures where none are asked for: all others."""
    if columns is not None or not fields:
        return columns
    of_pictures = {column.name for field in fields for column in field.columns}
    return [name for name in table if name not in of_pictures]


def window_rows(snapshot: Snapshot, specs: Sequence[FieldSpec], most_rows: int, most_bytes: int) -> int:
    """Return the rows of a shuffle window: fewer than `most_rows` where pictures would need more than `most_bytes`.

    Depends on the snapshot and the fields only, because it decides the order. Bytes of a row are those of its pixels where
    the table holds pixels, and for files those that the table's files have for each row.
    """
    pictures = [spec.picture for spec in specs if spec.picture is not None]
    if not pictures or not snapshot.num_rows:
        return most_rows
    total = snapshot.num_rows * sum(picture.num_bytes for picture in pictures if picture.store == "pixels")
    if any(picture.store == "encoded" for picture in pictures):
        total += sum(file.size_bytes for file in snapshot.files)
    if total <= most_bytes:
        return most_rows
    return max(1, min(most_rows, most_bytes * snapshot.num_rows // total))


@dataclass(frozen=True)
class _Field:
    """One field of pictures."""

    index: int
    """Place among the fields."""
    spec: FieldSpec
    filling: Filling
    place: int
    """Tells its random numbers from those of other pictures of a row."""


class Pictures:
    """The pictures of a stream, and the threads that see to them: they start with the first batch and stay."""

    def __init__(
        self,
        specs: Sequence[FieldSpec],
        snapshot: Snapshot,
        *,
        seed: int,
        num_workers: int,
        mixing: Mixing | None = None,
    ) -> None:
        """Start nothing yet.

        Args:
            specs: all fields of the stream, at least one of pictures.
            snapshot: what is streamed; for errors.
            seed: of the run.
            num_workers: threads, later processes, that decode at the same time.
            mixing: how they are mixed with each other, if they are.

        Raises:
            ConfigError: what is done to pictures at random does not fit them.
        """
        self.fields = []
        for index, spec in enumerate(specs):
            if spec.picture is not None:
                filling = Filling(spec.picture, spec.augment)
                filling.check(f"augment of {spec.name}")
                digest = hashlib.sha256(spec.name.encode()).digest()
                self.fields.append(_Field(index, spec, filling, int.from_bytes(digest[:8], "little")))
        self.num_fields = len(specs)
        self._row_id = next((index for index, spec in enumerate(specs) if spec.name == _ROW_ID), None)
        self._snapshot, self._seed, self._num_workers = snapshot, seed, num_workers
        self.mixing = mixing
        self._ends = np.cumsum(snapshot.rows_per_group())
        self._threads: ThreadPoolExecutor | None = None
        self.fillers = Fillers.of(num_workers)
        """What fills pixels in."""
        self.memory = ReusedMemory()
        """Makes the arrays of batches that need not be page-locked."""

    @classmethod
    def of(cls, specs: Sequence[FieldSpec], snapshot: Snapshot, **options: Any) -> "Pictures | None":
        """Return the pictures of a stream of these fields; None where there are none."""
        return None if all(spec.picture is None for spec in specs) else cls(specs, snapshot, **options)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row's pixels."""
        return sum(field.filling.spec.num_bytes for field in self.fields)

    def __getstate__(self) -> dict[str, Any]:
        state = {name: value for name, value in self.__dict__.items() if name not in ("_ending", "fillers")}
        return state | {"_threads": None, "memory": ReusedMemory()}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)
        self.fillers = Fillers.of(self._num_workers)

    def close(self) -> None:
        """End the threads; they start again when they are needed."""
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)
            self._ending.detach()
            self._threads = None

    def submit(self, work: Callable[[], None]) -> Future[None]:
        """Have one of the threads do it; the result raises what it raised."""
        if self._threads is None:
            keep_what_is_freed()
            self._threads = ThreadPoolExecutor(self.fillers.num_threads, thread_name_prefix="mlspark-pictures")
            # The threads do not hold this object: when it is not closed, they end when it goes.
            self._ending = weakref.finalize(self, self._threads.shutdown, wait=False, cancel_futures=True)
        return self._threads.submit(work)

    def draw(self, field: _Field, epoch: int, ids: Integers) -> list[Array]:
        """Return the random numbers of a field's pictures in the rows of these ids, an array for each augmentation."""
        if not field.filling.augment:
            return []
        return list(draw(self._seed, epoch, ids, field.filling.counts, place=field.place))

    def others(self, rows: Rows) -> Rows:
        """Return the fields of rows that are no pictures, without their numbers."""
        of_pictures = {field.index for field in self.fields}
        return Rows(
            tuple(rows.fields[index] for index in range(self.num_fields) if index not in of_pictures), len(rows)
        )

    def row_ids(self, rows: Rows, places: Integers | slice) -> Integers:
        """Return what tells the rows at `places` from others: their ids where the table has them, else their numbers."""
        ids = rows.fields[self.num_fields if self._row_id is None else self._row_id]
        assert isinstance(ids, np.ndarray)
        return ids[places]

    def where(self, number: int, row_id: int) -> str:
        """Return in words where row `number` of the snapshot is."""
        group = int(np.searchsorted(self._ends, number, side="right"))
        item = self._snapshot.row_group_items()[group]
        row = number - int(self._ends[group]) + item.rows
        left_out = " of those that are not left out" if item.left_out else ""
        named = "" if self._row_id is None else f", row_id {row_id}"
        return f"{item.uri}: row group {item.number}: row {row}{left_out}{named}"


class Gathering:
    """Rows for some batches, gathered from windows; threads turn the pictures among them into pixels meanwhile."""

    def __init__(
        self, num_rows: int, allocate: Allocate, pictures: Pictures | None, epoch: int, is_over: threading.Event
    ) -> None:
        """Gather nothing yet.

        Args:
            num_rows: how many rows will be appended.
            allocate: makes the arrays.
            pictures: the fields of pictures, where there are any; rows have one more field then, their numbers in the
                snapshot.
            epoch: epoch, which decides what is done to pictures at random.
            is_over: set when nobody wants the pixels any more.
        """
        self.pending: list[Future[None]] = []
        """Work on the pictures; the arrays are whole when all of it is done."""
        self._num_rows, self._num_taken = num_rows, 0
        self._buffer = RowsBuffer(num_rows, allocate)
        self._whole: Rows | None = None
        self._pictures, self._epoch, self._is_over = pictures, epoch, is_over
        self._ids: list[Integers] = []
        self._of_pixels = pictures.memory if pictures and allocate is np.empty else allocate
        self._pixels: dict[int, Array] = {}
        """Field -> its pictures."""

    def append(self, rows: Rows, places: Integers | slice) -> None:
        """Take the rows at `places` of `rows`.

        Rows that stand in a slice are taken as they are and changed there, if they are all that is gathered; others are
        copied, and `rows` may change afterwards.
        """
        is_whole = isinstance(places, slice) and places.stop - places.start == self._num_rows
        others = rows if self._pictures is None else self._pictures.others(rows)
        if not isinstance(places, slice):
            self._buffer.append_taken(others, places)
        elif is_whole:
            self._whole = others.slice(places.start, places.stop)
        else:
            self._buffer.append(others.slice(places.start, places.stop))
            places = np.arange(places.start, places.stop)
        if self._pictures is not None:
            ids = self._pictures.row_ids(rows, places)
            self._ids.append(ids)
            for field in self._pictures.fields:
                self._start(self._pictures, field, rows, places, ids)
            self._num_taken += len(ids)

    def rows(self, sizes: Sequence[int], num_lanes: int) -> Rows:
        """Return the rows, with the pictures in their places; these are whole when `pending` is done.

        Args:
            sizes: rows of each batch, for fields that say how pictures are mixed.
            num_lanes: lanes that the rows are of, in turn.
        """
        others = self._buffer.rows() if self._whole is None else self._whole
        if self._pictures is None:
            return others
        rest = iter(others.fields)
        fields = [
            self._pixels[index] if index in self._pixels else next(rest) for index in range(self._pictures.num_fields)
        ]
        if self._pictures.mixing is not None:
            fields += self._pictures.mixing.fields(self._epoch, np.concatenate(self._ids), sizes, num_lanes)
        return Rows(tuple(fields), len(others))

    def _start(self, pictures: Pictures, field: _Field, rows: Rows, places: Integers | slice, ids: Integers) -> None:
        """Have the threads make one field's pixels for the rows at `places`."""
        stored, numbers = rows.fields[field.index], rows.fields[-1]
        assert isinstance(stored, np.ndarray)
        assert isinstance(numbers, np.ndarray)
        spec, values = field.filling.spec, None
        draws = pictures.draw(field, self._epoch, ids)
        if spec.store == "pixels" and isinstance(places, slice):
            pixels = self._pixels[field.index] = stored[places].reshape(len(ids), *spec.shape)
        else:
            if field.index not in self._pixels:
                self._pixels[field.index] = self._of_pixels((self._num_rows, *spec.shape), np.dtype(np.uint8))
            pixels = self._pixels[field.index][self._num_taken : self._num_taken + len(ids)]
            if isinstance(places, slice) or spec.store == "encoded":
                values = stored[places]
            else:
                np.take(stored, places, axis=0, out=pixels.reshape(len(ids), -1), mode="clip")
        if values is None and not draws:
            return
        numbers, row_bytes = numbers[places], spec.num_bytes
        if values is None and not field.filling.changes_colours:
            rows_at_once = max(1, _CHUNK_BYTES_OF_STORED // row_bytes)
        else:
            fewest = max(1, min(_FEWEST_AT_ONCE, AREA_BYTES // row_bytes))
            rows_at_once = min(MOST_AT_ONCE, max(fewest, _CHUNK_BYTES // row_bytes))
        for start in range(0, len(ids), rows_at_once):
            part = slice(start, start + rows_at_once)
            chunk = _Chunk(
                pictures,
                field,
                pixels[part],
                None if values is None else values[part],
                [draw[part] for draw in draws],
                numbers[part],
                ids[part],
                self._is_over,
            )
            self.pending.append(pictures.submit(chunk))


@dataclass(frozen=True)
class _Chunk:
    """Some pictures for one thread."""

    pictures: Pictures
    field: _Field
    pixels: Array
    """Where they go: (n, C, H, W)."""
    values: Array | None
    """Files, as objects (n,); None: `pixels` holds them already."""
    draws: Sequence[Array]
    numbers: Array
    """Their rows' numbers in the snapshot."""
    ids: Array
    is_over: threading.Event

    def __call__(self) -> None:
        if self.is_over.is_set():
            return
        values = None if self.values is None else self.values.tolist()
        column, to_do = (
            self.field.spec.columns[0].name,
            "prepare the table without it, or leave the row out by a condition",
        )
        try:
            self.pictures.fillers.fill(self.field.filling, self.pixels, values, self.draws)
        except UnreadablePicture as error:
            raise DatasetError(f"{self._where(error.number)}: column {column}: {error.why}; {to_do}") from error
        except FillersGoneError as error:
            raise DatasetError(
                f"{self._where(0)}: column {column}: the process that decoded this picture and {len(self.ids) - 1} others "
                f"of its batch {error}; if memory ran out, lower streaming.workers, else {to_do}"
            ) from error

    def _where(self, number: int) -> str:
        return self.pictures.where(int(self.numbers[number]), int(self.ids[number]))
