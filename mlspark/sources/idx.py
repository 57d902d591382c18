"""idx files, as MNIST has them: arrays whose first axis counts the rows, a file for each column. Driver, lazy."""

import gzip
import io
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import IO, Any, Literal, Self, cast

import numpy as np
from pydantic import model_validator
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import (
    ArrayType,
    BinaryType,
    ByteType,
    DataType,
    DoubleType,
    FloatType,
    IntegerType,
    LongType,
    ShortType,
    StructField,
    StructType,
)

from mlspark import storage
from mlspark.contracts.contract import Contract
from mlspark.contracts.own_columns import MALFORMED, SOURCE_FILE, is_own
from mlspark.errors import SourceError
from mlspark.sources import binary_rows, file_states, listing, opened_files, typed_rows
from mlspark.sources.picture_settings import repeated
from mlspark.sources.settings import FilesSettings
from mlspark.sources.source import Part, Source, absolute_uri

PLACE_IN_FILE = "place"
_GZIP = b"\x1f\x8b"
_DAMAGES = (EOFError, gzip.BadGzipFile, ValueError)
_CHANNELS = (3, 4)
_MOST_ROW_BYTES = 2**26


@dataclass(frozen=True)
class _Kind:
    """A type of an idx file's elements."""

    stored: str
    """numpy's name of it; numbers stand there big-endian."""
    column: DataType
    """Type of a column of single numbers."""
    element: DataType
    """Type of the elements of a column of arrays, which holds every value."""


_KINDS = {
    0x08: _Kind(">u1", ShortType(), FloatType()),
    0x09: _Kind(">i1", ByteType(), FloatType()),
    0x0B: _Kind(">i2", ShortType(), FloatType()),
    0x0C: _Kind(">i4", IntegerType(), DoubleType()),
    0x0D: _Kind(">f4", FloatType(), FloatType()),
    0x0E: _Kind(">f8", DoubleType(), DoubleType()),
}


class IdxSettings(FilesSettings):
    """Files of the idx format, plain or compressed with gzip, which are the columns of one table."""

    kind: Literal["idx"]
    columns: dict[str, str]
    """Column -> name of its file below `path`, a folder: {image: train-images-idx3-ubyte.gz, label: ...}. The files have
    equally many rows. Rows of bytes with two axes, or three with 3 or 4 colours last, become PNG files; others numbers or
    arrays of numbers."""

    @model_validator(mode="after")
    def _columns_are_different(self) -> Self:
        if not self.columns:
            raise ValueError("columns: is empty; name a file for each column: {image: FILE}")
        taken = [*repeated([PLACE_IN_FILE, *self.columns]), *filter(is_own, self.columns)]
        if taken:
            raise ValueError(
                f"columns: {taken[0]} is there twice but for its case, or a name of the source's own ({PLACE_IN_FILE}, the "
                f"number of a row; _mlspark_...); rename it"
            )
        return self


Settings = IdxSettings
HAS_TYPES = True
PLACE = "path"
EXTENSIONS: tuple[str, ...] = ()


@dataclass(frozen=True)
class _File:
    """An idx file as its header says."""

    uri: str
    size: int
    code: int
    """Of the element type."""
    shape: tuple[int, ...]
    is_compressed: bool

    @property
    def start(self) -> int:
        """Bytes of the header."""
        return 4 + 4 * len(self.shape)

    @property
    def row_bytes(self) -> int:
        return math.prod(self.shape[1:]) * np.dtype(_KINDS[self.code].stored).itemsize

    @property
    def num_rows_there(self) -> int:
        """Whole rows by the file's size; of a compressed one those that it says."""
        return self.shape[0] if self.is_compressed else max(0, self.size - self.start) // max(1, self.row_bytes)

    @property
    def is_picture(self) -> bool:
        axes = self.shape[1:]
        return self.code == 0x08 and (len(axes) == 2 or (len(axes) == 3 and axes[2] in _CHANNELS))

    @property
    def column(self) -> DataType:
        if self.is_picture:
            return BinaryType()
        kind = _KINDS[self.code]
        return kind.column if len(self.shape) == 1 else ArrayType(kind.element)


def find(spark: SparkSession, settings: IdxSettings, *, root: str) -> Source:
    """Return the source with its files as they are now.

    Raises:
        SourceError: a file is not there.
    """
    uri = absolute_uri(settings.path, root)
    parts: list[Part] = []
    for column, name in settings.columns.items():
        file = storage.join(uri, name)
        found = listing.parts(file, setting=f"columns.{column}")
        if [part.name for part in found] != [file]:
            raise SourceError(f"{file}: is a folder or a pattern; columns.{column} is one file")
        parts += found
    return Source(uri, settings, tuple(dict.fromkeys(parts)), file_states.rests_on(parts))


def columns(spark: SparkSession, source: Source) -> StructType:
    """Return the columns by the headers of their files, and place.

    Raises:
        SourceError: a file is no idx file, or files have different numbers of rows; names them.
    """
    return _schema(_files(source))


def read(spark: SparkSession, source: Source, contract: Contract) -> DataFrame:
    """Return a row for each index of the files' first axis; see `typed_rows.conformable`.

    Where a file is cut short, the rows that it lacks are one bad row that says so; so are bytes after its end.

    Raises:
        SourceError: files have different numbers of rows, `filter` is not a boolean SQL condition over these columns, or no
            column of the contract is there.
    """
    files = _files(source)
    [num_rows] = {file.shape[0] for file in files.values()}
    row_bytes = sum(file.row_bytes for file in files.values())
    whole = any(file.is_compressed for file in files.values())
    task_bytes = binary_rows.task_bytes(spark, num_rows * row_bytes)
    per_task = max(1, num_rows) if whole else max(1, task_bytes // max(1, row_bytes))
    # A header may say any number: what a file does not hold is one bad row of the last task.
    num_there = min(num_rows, 1 + min(file.num_rows_there for file in files.values()))
    begins = range(0, max(1, num_there), per_task)
    described = {name: asdict(file) for name, file in files.items()}
    pieces = [
        json.dumps({"files": described, "begin": begin, "end": end}).encode()
        for begin, end in zip(begins, [*begins[1:], num_rows], strict=True)
    ]
    rows = binary_rows.frame(spark, pieces, partial(_rows, num_rows), binary_rows.with_own(_schema(files)))
    place = {"uri": F.col(SOURCE_FILE), PLACE_IN_FILE: F.col(PLACE_IN_FILE)}
    return typed_rows.conformable(
        rows, source, contract, file=F.col(SOURCE_FILE), malformed=F.col(MALFORMED), place=place
    )


def _schema(files: Mapping[str, _File]) -> StructType:
    fields = [StructField(name, file.column) for name, file in files.items()]
    return StructType([*fields, StructField(PLACE_IN_FILE, LongType())])


def _files(source: Source) -> dict[str, _File]:
    """Return the header of each column's file; raises SourceError where they do not fit together."""
    settings = source.settings
    assert isinstance(settings, IdxSettings)
    sizes = {part.name: part.size_bytes for part in source.parts}
    files = {}
    for column, name in settings.columns.items():
        uri = storage.join(source.uri, name)
        if uri not in sizes:
            raise SourceError(
                f"{uri}: was read before, and its rows with it; idx files are not appended one by one: use --mode rebuild"
            )
        files[column] = _header(uri, sizes[uri])
    lengths = {file.uri: file.shape[0] for file in files.values()}
    if len(set(lengths.values())) > 1:
        told = " and ".join(f"{uri} has {length:,}" for uri, length in lengths.items())
        raise SourceError(f"{source.uri}: files have different numbers of rows: {told}; check columns")
    return files


def _header(uri: str, size: int) -> _File:
    """Return what a file's header says; raises SourceError when it is none."""
    with opened_files.opened(uri) as opened:
        is_compressed = opened.read(len(_GZIP)) == _GZIP
        with _content(opened, is_compressed) as file:
            try:
                start = file.read(4)
                axes = file.read(4 * start[3]) if len(start) == 4 else b""
            except _DAMAGES as error:
                raise SourceError(f"{uri}: is no idx file ({error}); check columns") from None
    if start[:2] != b"\0\0" or start[2] not in _KINDS or not axes or len(axes) < 4 * start[3]:
        raise SourceError(
            f"{uri}: is no idx file: it begins with {(start + axes)[:8].hex(' ')}, and not with two bytes of 0, a type "
            f"({', '.join(f'{kind:02x}' for kind in _KINDS)}) and the number of axes; check columns"
        )
    shape = tuple(int(axis) for axis in np.frombuffer(axes, ">u4"))
    file_header = _File(uri, size, start[2], shape, is_compressed)
    if file_header.row_bytes == 0 and shape[0]:
        raise SourceError(
            f"{uri}: has rows of no element: its axes are {', '.join(map(str, shape))}; correct or remove it"
        )
    if file_header.row_bytes > _MOST_ROW_BYTES:
        raise SourceError(
            f"{uri}: has rows of {file_header.row_bytes:,} bytes, its axes are {', '.join(map(str, shape))}, expected at "
            f"most {_MOST_ROW_BYTES:,}; correct or remove it"
        )
    return file_header


@contextmanager
def _content(opened: IO[bytes], is_compressed: bool) -> Iterator[IO[bytes]]:
    """Yield a file from its begin, no longer compressed."""
    opened.seek(0)
    if is_compressed:
        with gzip.GzipFile(fileobj=opened) as file:
            yield cast(IO[bytes], file)
    else:
        yield opened


def _rows(num_rows: int, piece: bytes) -> Iterator[dict[str, Any]]:
    """Yield the rows of a piece. Executors; compressed files are one piece, read from the begin."""
    work = json.loads(piece)
    files = {name: _File(**file | {"shape": tuple(file["shape"])}) for name, file in work["files"].items()}
    begin, end = work["begin"], min(work["end"], num_rows)
    readers = {name: _elements(file, begin, end) for name, file in files.items()}
    first = next(iter(files.values())).uri
    for place in range(begin, end):
        row: dict[str, Any] = {PLACE_IN_FILE: place, SOURCE_FILE: first}
        problems = []
        for name, elements in readers.items():
            value = next(elements)
            if isinstance(value, str):
                problems.append((files[name].uri, value))
            else:
                row[name] = value
        if problems:
            left = f"rows {place:,} to {end - 1:,} cannot be read: " if place < end - 1 else ""
            told = "; ".join(f"{uri}: {problem}" for uri, problem in problems)
            yield {PLACE_IN_FILE: place, SOURCE_FILE: first, MALFORMED: left + told}
            return
        yield row
    if end == num_rows:
        for name, elements in readers.items():
            if problem := next(elements, None):
                yield {SOURCE_FILE: files[name].uri, MALFORMED: str(problem)}


def _elements(file: _File, begin: int, end: int) -> Iterator[Any]:
    """Yield rows of a file, a text for what cannot be read; after the last one a text when more follows."""
    with opened_files.opened(file.uri) as opened, _content(opened, file.is_compressed) as content:
        try:
            content.seek(file.start + begin * file.row_bytes)
            for place in range(begin, end):
                found = content.read(file.row_bytes)
                if len(found) < file.row_bytes:
                    yield f"is cut short: it says {file.shape[0]:,} rows and has {place:,}"
                    return
                yield _value(found, file)
            if end == file.shape[0] and content.read(1):
                yield f"more data after its {file.shape[0]:,} rows"
        except _DAMAGES as error:
            yield f"damaged: {error}"


def _value(row: bytes, file: _File) -> Any:
    array = np.frombuffer(row, _KINDS[file.code].stored).reshape(file.shape[1:])
    if file.is_picture:
        return _png(array)
    return array.item() if array.ndim == 0 else array.ravel().astype(array.dtype.newbyteorder("=")).tolist()


def _png(pixels: np.ndarray[Any, np.dtype[Any]]) -> bytes:
    """Return pixels as a PNG file, which loses nothing."""
    try:
        from PIL import Image
    except ImportError:
        raise SourceError("pictures of idx files become PNG files by Pillow: pip install mlspark[pictures]") from None
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png", compress_level=1)
    return file.getvalue()
