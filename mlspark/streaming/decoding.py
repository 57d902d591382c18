"""From the columns of a row group to the fields of a batch. Runs in the reader's threads or processes; imports no torch.

| table type | field |
|---|---|
| byte, short, integer, long, float, double, boolean | (n,) of the same type |
| decimal | (n,) float64, the nearest |
| date | (n,) int32, days since 1970-01-01 |
| timestamp, timestamp_ntz | (n,) int64, microseconds since 1970-01-01 (UTC) |
| string, binary | ragged uint8, or (n, L) uint8 with a length, or (n,) int64 ids with a vocabulary |
| array of one of the numeric types above | ragged of its type, or (n, L) with a length |
| binary, as pictures | (n,) files as bytes objects, or (n, C * H * W) uint8 where the table holds pixels |

Several numeric columns may become one (n, F) matrix. A null is an error, unless the column has a fill value.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import compute as pc

from mlspark.errors import DatasetError
from mlspark.features.kinds.categories import FIRST_ID, MISSING_ID, UNSEEN_ID
from mlspark.pictures.augment import Augmentation
from mlspark.pictures.spec import PictureSpec
from mlspark.streaming.rows import Array, Ragged, Rows
from mlspark.streaming.schema import TableColumn

_FEWEST_STACKED = 8
"""Columns that stay one after another in memory: to make rows of 14 takes 7 ns a row so, 9 to 11 put in one by one."""

_EXACT_INTEGERS, _EXACT_POWERS_OF_TEN = 2**53, 22  # up to which a double holds whole numbers, powers of ten

Columns: TypeAlias = Sequence[str] | Mapping[str, str | Sequence[str]]
"""Names of columns, each a field of its own, or {field: column or columns that make a matrix}."""


@dataclass(frozen=True)
class FieldSpec:
    """What one field of a batch is made of."""

    name: str
    columns: tuple[TableColumn, ...]
    dtype: np.dtype[Any] | None = None
    """Type of the array; None: that of the column's type."""
    is_matrix: bool = False
    """Whether several columns become one array (n, F)."""
    length: int | None = None
    """Length of the strings, binaries or lists, all of which have it and become (n, length); None: it varies."""
    vocabulary: tuple[str, ...] | None = None
    """Words that strings are looked up in, after nulls are filled: 0 null, 1 not in the vocabulary, 2 its first word, and so
    on, as in features."""
    picture: PictureSpec | None = None
    """What the column's pictures become, once the rows of a batch are known: see `pictures`; None: it holds none."""
    augment: tuple[Augmentation, ...] = ()
    """What is done to each picture at random, in order."""

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of the field's tensors in a batch: its own, and for rows of different lengths their offsets'."""
        is_dense = self.is_matrix or any(
            given is not None for given in (self.length, self.vocabulary, self.dtype, self.picture)
        )
        kind = self.columns[0].type if self.columns else None
        if is_dense or kind is None or is_number(kind):
            return (self.name,)
        return (self.name, f"{self.name}_offsets")


@dataclass(frozen=True)
class Decoder:
    """Turns a table with the columns of `fields` into rows; may be sent to another process."""

    fields: tuple[FieldSpec, ...]
    fill: Mapping[str, Any] = field(default_factory=dict)
    """Column -> value that stands for null."""
    is_writable: bool = False
    """Whether each field is in memory of its own that may be written to, and none of it Arrow's."""

    @property
    def columns(self) -> tuple[TableColumn, ...]:
        """The columns to read, each once."""
        return tuple({column.name: column for spec in self.fields for column in spec.columns}.values())

    def __call__(self, table: pa.Table) -> Rows:
        """Return the rows of `table`.

        Raises:
            DatasetError: a null without a fill value, a length or type that is not as stated; names the column.
        """
        fields = tuple(self._field(spec, table) for spec in self.fields)
        return Rows(tuple(map(_writable, fields)) if self.is_writable else fields, table.num_rows)

    def _field(self, spec: FieldSpec, table: pa.Table) -> Array | Ragged:
        if spec.is_matrix:
            return self._matrix(spec, table)
        (column,) = spec.columns
        has_id = spec.vocabulary is not None and column.name not in self.fill
        values = self._filled(column, table.column(column.name), keeps_null=has_id)
        if spec.vocabulary is not None:
            return _ids(values, spec.vocabulary)
        if spec.picture is not None:
            return _pictures(values, column, spec.picture, self.fill.get(column.name))
        if is_number(values.type):
            numbers = _numbers(values, column)
            return numbers if spec.dtype is None else numbers.astype(spec.dtype, copy=False)
        ragged = _ragged(values, column, self.fill.get(column.name))
        if spec.length is None:
            return ragged
        why = f"its length was given as {spec.length}; leave the length out to get values and offsets"
        return _fixed(ragged, spec.length, column, why)

    def _matrix(self, spec: FieldSpec, table: pa.Table) -> Array:
        columns = [_numbers(self._filled(column, table.column(column.name)), column) for column in spec.columns]
        dtype = spec.dtype or np.result_type(*(column_values.dtype for column_values in columns))
        is_stacked = len(columns) >= _FEWEST_STACKED
        if is_stacked:
            matrix = np.empty((len(columns), table.num_rows), dtype).T
        else:
            matrix = np.empty((table.num_rows, len(columns)), dtype)
        for index, column_values in enumerate(columns):
            matrix[:, index] = column_values
        # Where rows are copied to a window next they are laid beside each other there, some at a time.
        return matrix.copy() if is_stacked and self.is_writable else matrix

    def _filled(self, column: TableColumn, values: pa.ChunkedArray, *, keeps_null: bool = False) -> pa.ChunkedArray:
        """Return the column without nulls, but for strings that become ids and lists, where a null is known later."""
        if pa.types.is_decimal(values.type):
            values = _nearest_doubles(values)
        if not values.null_count or keeps_null:
            return values
        if column.name not in self.fill:
            raise DatasetError(
                f"column {column.name} holds {values.null_count} nulls; give a fill value for it, "
                f"or prepare the table without them"
            )
        if is_list(values.type):
            if list(self.fill[column.name]):
                raise DatasetError(f"column {column.name}: a null list can only become an empty one: fill value []")
            return values
        filling = self.fill[column.name]
        try:
            scalar = float(filling) if isinstance(filling, Decimal) else filling
            return pc.fill_null(values, pa.scalar(scalar, values.type))
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise DatasetError(f"column {column.name}: fill value {filling!r} is no {values.type}: {error}") from error


def specify(
    columns: Columns | None,
    table: Mapping[str, TableColumn],
    *,
    lengths: Mapping[str, int] | None = None,
    vocabularies: Mapping[str, Sequence[str]] | None = None,
    dtypes: Mapping[str, str] | None = None,
    source: str = "table",
) -> tuple[FieldSpec, ...]:
    """Return the fields that `columns` asks for.

    Args:
        columns: which columns go into which field; None: each column of the table is a field.
        table: the table's columns.
        lengths: column -> its one length, for strings, binaries and lists.
        vocabularies: string column -> the words that have ids.
        dtypes: field -> numpy type, for numbers.
        source: names the table in errors.

    Raises:
        DatasetError: a column that is not there or has a type that cannot be streamed; names column and type.
    """
    lengths, vocabularies, dtypes = lengths or {}, vocabularies or {}, dtypes or {}
    asked = columns if isinstance(columns, Mapping) else {name: name for name in (columns or table)}
    if columns is not None and not isinstance(columns, Mapping) and len(asked) != len(columns):
        raise DatasetError(f"{source}: a column is asked for twice: {', '.join(columns)}")
    specs = []
    for name, wanted in asked.items():
        names = (wanted,) if isinstance(wanted, str) else tuple(wanted)
        vocabulary = vocabularies.get(names[0]) if isinstance(wanted, str) else None
        spec = FieldSpec(
            name,
            tuple(_find(column, table, source) for column in names),
            dtype=np.dtype(dtypes[name]) if name in dtypes else None,
            is_matrix=not isinstance(wanted, str),
            length=lengths.get(names[0]) if isinstance(wanted, str) else None,
            vocabulary=None if vocabulary is None else tuple(vocabulary),
        )
        for column in spec.columns:
            _check(spec, column, lengths, vocabularies, source)
        specs.append(spec)
    streamed = {column.name for spec in specs for column in spec.columns}
    for argument, keys in (("lengths", lengths), ("vocabularies", vocabularies)):
        for key in keys:
            if key not in streamed:
                raise DatasetError(f"{source}: {argument} names {key}, which is not among the columns")
    for name in dtypes:
        if name not in asked:
            raise DatasetError(f"{source}: dtypes names {name}, which is no field; there are {', '.join(asked)}")
    return tuple(specs)


def _check(
    spec: FieldSpec, column: TableColumn, lengths: Mapping[str, Any], vocabularies: Mapping[str, Any], source: str
) -> None:
    """Raise DatasetError where a column of a field has a type for which that was not meant."""
    assert column.type is not None
    name, declared = column.name, column.declared
    if spec.is_matrix and not is_number(column.type):
        raise DatasetError(
            f"{source}: column {name} of type {declared} cannot stand in matrix {spec.name}; only numbers can"
        )
    if spec.dtype is not None and not is_number(column.type):
        raise DatasetError(f"{source}: field {spec.name}: a dtype is for numbers, {name} is {declared}")
    if name in lengths and is_number(column.type):
        raise DatasetError(f"{source}: column {name} of type {declared} has no length")
    if name in vocabularies and not pa.types.is_string(column.type):
        raise DatasetError(f"{source}: column {name} of type {declared} has a vocabulary; only strings do")


def is_number(kind: pa.DataType) -> bool:
    """Return whether a value becomes one number."""
    types = pa.types
    return bool(
        types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_boolean(kind)
        or types.is_decimal(kind)
        or types.is_date(kind)
        or types.is_timestamp(kind)
    )


def is_list(kind: pa.DataType) -> bool:
    """Return whether a value is a list."""
    types = pa.types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _find(name: str, table: Mapping[str, TableColumn], source: str) -> TableColumn:
    if name not in table:
        raise DatasetError(f"{source}: no column {name}; there are {', '.join(table)}")
    column = table[name]
    kind = column.type
    if kind is None or (is_list(kind) and not is_number(kind.value_type)):
        raise DatasetError(
            f"{source}: column {name} of type {column.declared} cannot be streamed; "
            f"leave it out of columns, or write the parts you need as columns of their own"
        )
    return column


def _numbers(values: pa.ChunkedArray, column: TableColumn) -> Array:
    """Return (n,) numbers of a column without nulls; not a copy where Arrow's memory can be used."""
    kind = values.type
    if pa.types.is_decimal(kind):  # elements of lists; whole columns are doubles by now
        return _numbers(_nearest_doubles(values), column)
    if pa.types.is_date(kind):
        values = values.cast(pa.date32()).cast(pa.int32())
    elif pa.types.is_timestamp(kind):
        # Safe: a file with nanoseconds that microseconds cannot hold is an error and not a rounding.
        values = values.cast(pa.timestamp("us", kind.tz)).cast(pa.int64())
    elif not is_number(kind):
        raise DatasetError(f"column {column.name} holds {kind}, which is no number")
    return np.asarray(values.to_numpy())


def _nearest_doubles(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return decimals as the nearest doubles, as Spark casts them. Arrow's own cast is off by one unit for many."""
    scale, doubles = values.type.scale, np.empty(len(values), np.float64)
    start = 0
    for chunk in values.chunks:
        part = doubles[start : start + len(chunk)]
        start += len(chunk)
        is_simple = np.zeros(len(chunk), np.bool_)
        if pa.types.is_decimal128(values.type) and scale <= _EXACT_POWERS_OF_TEN:
            halves = np.frombuffer(chunk.buffers()[1] or b"", np.int64).reshape(-1, 2)
            low, high = halves[chunk.offset : chunk.offset + len(chunk)].T
            # Both exact as doubles, so that their quotient is rounded once.
            is_simple = (high == low >> 63) & (low <= _EXACT_INTEGERS) & (low >= -_EXACT_INTEGERS)
            np.divide(low, 10.0**scale, out=part)
        if not is_simple.all():
            others = chunk.filter(pa.array(~is_simple))
            part[~is_simple] = others.cast(pa.string()).cast(pa.float64()).to_numpy()
    mask = np.asarray(values.is_null().to_numpy()) if values.null_count else None
    return pa.chunked_array([pa.array(doubles, mask=mask)])


def _ids(values: pa.ChunkedArray, vocabulary: tuple[str, ...]) -> NDArray[np.int64]:
    places = pc.index_in(values, value_set=pa.array(vocabulary, values.type), skip_nulls=True)
    ids = pc.fill_null(pc.add(places.cast(pa.int64()), FIRST_ID), UNSEEN_ID)
    return np.asarray(pc.if_else(pc.is_null(values), MISSING_ID, ids).to_numpy(), dtype=np.int64)


def _ragged(values: pa.ChunkedArray, column: TableColumn, filling: Any) -> Ragged:
    """Return the rows of a string, binary or list column; a null list is empty."""
    # One chunk, as of most row groups, would be copied.
    array = values.chunk(0) if values.num_chunks == 1 else values.combine_chunks()
    array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    kind = array.type
    if pa.types.is_dictionary(kind):
        array = array.dictionary_decode()
        kind = array.type
    if is_list(kind):
        lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy()
        elements = array.flatten()  # leaves out what stands under null lists
        if elements.null_count:
            raise DatasetError(
                f"column {column.name} holds lists with {elements.null_count} null elements; "
                f"prepare the table without them"
            )
        numbers = _numbers(pa.chunked_array([elements]), column)
    elif pa.types.is_fixed_size_binary(kind):
        width = kind.byte_width
        buffer = np.frombuffer(array.buffers()[1] or b"", np.uint8)
        return Ragged(
            buffer[array.offset * width : (array.offset + len(array)) * width],
            np.arange(len(array) + 1, dtype=np.int64) * width,
        )
    elif _is_text(kind):
        array = array.cast(pa.large_string()) if pa.types.is_string(kind) else array
        array = array.cast(pa.large_binary())
        _, offsets, data = array.buffers()
        places = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
        return Ragged(np.frombuffer(data or b"", np.uint8), places)
    else:
        raise DatasetError(f"column {column.name} holds {kind}, which cannot be streamed")
    offsets = np.zeros(len(array) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return Ragged(numbers, offsets)


def _pictures(values: pa.ChunkedArray, column: TableColumn, picture: PictureSpec, filling: Any) -> Array:
    """Return files as objects, each with memory of its own that goes with it; or pixels."""
    if picture.store == "encoded":
        return np.asarray(values.to_numpy(), dtype=object)
    why = f"pixels of {picture.shape} (channels, height, width) have {picture.num_bytes:,}"
    return _fixed(_ragged(values, column, filling), picture.num_bytes, column, why)


def _writable(field: Array | Ragged) -> Array | Ragged:
    if isinstance(field, Ragged):
        return Ragged(np.require(field.values, requirements="W"), field.offsets)
    return np.require(field, requirements="W")


def _is_text(kind: pa.DataType) -> bool:
    types = pa.types
    checks = (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary)
    return any(check(kind) for check in checks) or str(kind) in ("string_view", "binary_view")


def _fixed(ragged: Ragged, length: int, column: TableColumn, why: str) -> Array:
    """Return rows that all have `length` values as a matrix; `why` says in the error why they should."""
    lengths = np.diff(ragged.offsets)
    wrong = np.flatnonzero(lengths != length)
    if len(wrong):
        what = "bytes" if ragged.values.dtype == np.uint8 else "values"
        raise DatasetError(
            f"column {column.name}: row {wrong[0]} of the row group has {lengths[wrong[0]]:,} {what}, but {why}"
        )
    return ragged.compact().values.reshape(len(lengths), length)
