"""Decoded rows: numpy arrays, one for each field of a batch. Imports neither Petastorm nor torch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Allocate: TypeAlias = Callable[[tuple[int, ...], np.dtype[Any]], Array]
"""Function that makes an uninitialised array of a shape and type: np.empty, or page-locked memory for a GPU."""


@dataclass(frozen=True)
class Ragged:
    """Rows of different lengths: row i is values[offsets[i] : offsets[i + 1]]."""

    values: Array
    """(number of values,); may hold more than the rows' own."""
    offsets: NDArray[np.int64]
    """(n + 1,)."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def nbytes(self) -> int:
        return int(self.values.nbytes + self.offsets.nbytes)

    def slice(self, start: int, stop: int) -> "Ragged":
        return Ragged(self.values, self.offsets[start : max(start, stop) + 1])

    def compact(self) -> "Ragged":
        """Return the same rows with no other values, offsets from 0."""
        first, last = int(self.offsets[0]), int(self.offsets[-1])
        return Ragged(self.values[first:last], self.offsets - first)

    def take(self, rows: NDArray[np.int64]) -> "Ragged":
        starts = self.offsets[rows]
        lengths = self.offsets[rows + 1] - starts
        offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        places = np.repeat(starts - offsets[:-1], lengths)
        places += np.arange(offsets[-1])
        return Ragged(np.take(self.values, places, mode="clip") if len(places) else self.values[:0], offsets)

    @staticmethod
    def concatenate(parts: "Sequence[Ragged]") -> "Ragged":
        compact = [part.compact() for part in parts]
        ends = np.cumsum([part.offsets[-1] for part in compact])
        offsets = [compact[0].offsets[:1]]
        offsets += [part.offsets[1:] + (end - part.offsets[-1]) for part, end in zip(compact, ends, strict=True)]
        return Ragged(np.concatenate([part.values for part in compact]), np.concatenate(offsets))


_BYTES_JOINED = 2**18
"""Bytes of a matrix stored by columns that become rows at a time: few enough to stay in a processor's cache."""

Field: TypeAlias = Array | Ragged


@dataclass(frozen=True)
class Rows:
    """n rows; each field an array (n, ...) or ragged; files of pictures are an array (n,) of bytes objects."""

    fields: tuple[Field, ...]
    num_rows: int

    def __len__(self) -> int:
        return self.num_rows

    @property
    def nbytes(self) -> int:
        return sum(_num_bytes(field) for field in self.fields)

    def slice(self, start: int, stop: int) -> "Rows":
        """Return rows [start, stop) without copying their values; less when there are fewer."""
        stop = min(stop, self.num_rows)
        return Rows(tuple(_slice(field, start, stop) for field in self.fields), stop - start)

    def copied(self) -> "Rows":
        """Return the rows in memory of their own."""
        return Rows(tuple(_copied(field) for field in self.fields), self.num_rows)

    def numbered(self, first: int) -> "Rows":
        """Return the rows with one more field: (n,) int64, from `first` on."""
        return Rows((*self.fields, np.arange(first, first + self.num_rows)), self.num_rows)

    def zeros(self, num_rows: int) -> "Rows":
        """Return rows of the same kind that hold zeros and empty lists."""
        fields = (
            Ragged(field.values[:0], np.zeros(num_rows + 1, np.int64))
            if isinstance(field, Ragged)
            else np.zeros((num_rows, *field.shape[1:]), field.dtype)
            for field in self.fields
        )
        return Rows(tuple(fields), num_rows)

    @staticmethod
    def concatenate(parts: "Sequence[Rows]") -> "Rows":
        with RowsBuffer(sum(map(len, parts))) as buffer:
            for part in parts:
                buffer.append(part)
            return buffer.rows()


def _slice(field: Field, start: int, stop: int) -> Field:
    if isinstance(field, Ragged):
        return field.slice(start, stop)
    part = field[start:stop]
    return part.copy() if field.dtype == object else part  # a view would keep all the other objects


def _copied(field: Field) -> Field:
    if isinstance(field, Ragged):
        compact = field.compact()
        return Ragged(compact.values.copy(), compact.offsets)
    return field.copy()


def _num_bytes(field: Field) -> int:
    """Return the bytes of memory that a field holds."""
    if isinstance(field, np.ndarray) and field.dtype == object:
        return field.nbytes + sum(map(len, field.tolist()))
    return field.nbytes


def _joined(matrix: Array) -> Array:
    """Return a contiguous matrix (n, L) as a view of (n,) values that are rows."""
    return matrix.reshape(len(matrix), -1).view(f"V{matrix[:1].nbytes}")[:, 0]


def _put(array: Array, places: NDArray[np.int64], field: Array) -> None:
    """Copy rows of a field to their places."""
    if field.ndim == 1 or not array[:1].nbytes:
        array[places] = field
        return
    assert field.shape[1:] == array.shape[1:], (field.shape, array.shape)
    is_whole = field.flags.c_contiguous and field.dtype == array.dtype
    at_once = max(1, len(field) if is_whole else _BYTES_JOINED // array[:1].nbytes)
    joined = _joined(array)  # one value for each row: two to three times as fast
    for start in range(0, len(field), at_once):
        part = slice(start, start + at_once)
        joined[places[part]] = _joined(np.ascontiguousarray(field[part], array.dtype))


class FieldError(Exception):
    """A field of rows could not be copied; the cause says why."""

    def __init__(self, index: int) -> None:
        super().__init__(f"field {index}")
        self.index = index
        """Number of the field."""


class RowsBuffer:
    """Room for a known number of rows, filled from the front; the arrays are allocated by what comes first."""

    def __init__(self, capacity: int, allocate: Allocate = np.empty) -> None:
        self.capacity, self.filled = capacity, 0
        self._allocate = allocate
        self._arrays: list[Array | list[Ragged]] = []

    def __enter__(self) -> "RowsBuffer":
        return self

    def __exit__(self, *exception: object) -> None:
        self._arrays = []

    def append(self, rows: Rows) -> None:
        """Copy rows in."""
        for field, array in self._paired(rows):
            if isinstance(array, list):
                array.append(field)  # type: ignore[arg-type]
            else:
                array[self.filled : self.filled + len(rows)] = field
        self.filled += len(rows)

    def allocate_for(self, rows: Rows) -> None:
        """Make the arrays for rows like these, if none were yet."""
        self._paired(rows)

    def put(self, places: NDArray[np.int64], rows: Rows) -> None:
        """Copy rows without ragged fields in, each to its place, after `allocate_for`; threads may do so at the same time.

        Raises:
            FieldError: a field's could not be.
        """
        for index, (field, array) in enumerate(self._paired(rows)):
            assert isinstance(field, np.ndarray)
            assert not isinstance(array, list)
            try:
                _put(array, places, field)
            except Exception as error:
                raise FieldError(index) from error

    def whole(self, num_rows: int) -> Rows:
        """Return the first rows of those that were put in; whole when all of them are."""
        self.filled = num_rows
        return self.rows()

    def append_taken(self, rows: Rows, places: NDArray[np.int64]) -> None:
        """Copy the rows at `places` of `rows` in."""
        for field, array in self._paired(rows):
            if isinstance(field, Ragged):
                assert isinstance(array, list)
                array.append(field.take(places))
            else:
                assert not isinstance(array, list)
                # mode="clip": with the default, numpy gathers into a second array first.
                np.take(field, places, axis=0, out=array[self.filled : self.filled + len(places)], mode="clip")
        self.filled += len(places)

    def rows(self) -> Rows:
        """Return what was filled in; the arrays stay this buffer's."""
        fields = (
            Ragged.concatenate(array) if isinstance(array, list) else array[: self.filled] for array in self._arrays
        )
        return Rows(tuple(fields), self.filled)

    def clear(self) -> None:
        """Forget the rows and keep the arrays, to be filled anew."""
        self.filled = 0
        for array in self._arrays:
            if isinstance(array, list):
                array.clear()

    def _paired(self, rows: Rows) -> "zip[tuple[Field, Array | list[Ragged]]]":
        if not self._arrays:
            self._arrays = [
                [] if isinstance(field, Ragged) else self._allocate((self.capacity, *field.shape[1:]), field.dtype)
                for field in rows.fields
            ]
        return zip(rows.fields, self._arrays, strict=True)
