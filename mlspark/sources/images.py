"""Folders of pictures: one file, one row, labelled by its folder, its name, a manifest or a file beside it. Driver, lazy."""

import logging
import re
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, Literal, Self

import pyarrow as pa
from pydantic import model_validator
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import BinaryType, StringType, StructField, StructType

from mlspark import storage
from mlspark.contracts.contract import Contract
from mlspark.contracts.own_columns import MALFORMED, PREFIX, SOURCE_FILE
from mlspark.sources import binary_rows, file_states, listing, manifest, opened_files, typed_rows
from mlspark.sources.members import NO_BYTE, unsafe
from mlspark.sources.picture_settings import IMAGE, LABEL, OFFERED, PicturesSettings, repeated, said_by
from mlspark.sources.source import Part, Source, absolute_uri

logger = logging.getLogger(__name__)

PATH = "path"
_SIZE, _BESIDE = f"{PREFIX}size", f"{PREFIX}beside"
_COST_OF_A_FILE = 2**16
"""Bytes that could be read in the time that a file takes besides its own."""
_REMOTE_FILES_AT_A_TIME = 8
_BYTES_AHEAD = 2**25


class ImagesSettings(PicturesSettings):
    """A folder of pictures; every file below it is a row, hidden ones too, unless a manifest names them."""

    kind: Literal["images"]
    sidecar: str = ""
    """End of the names of files with labels, such as ".txt": cat1.txt holds the label of cat1.jpg, text without the blanks
    around it. Empty: there are none."""

    @model_validator(mode="after")
    def _has_one_label(self) -> Self:
        if self.sidecar and not re.fullmatch(r"\.[^/]+", self.sidecar):
            raise ValueError("sidecar: is the end of a name with its dot, such as .txt")
        if self.sidecar and (self.manifest is not None or LABEL in self.groups):
            raise ValueError("sidecar: gives the label, and so does manifest or pattern; set one of them")
        if twice := repeated([PATH, IMAGE, *{LABEL}.difference(self.groups), *self.groups]):
            raise ValueError(
                f"pattern: a group cannot be called {twice[0]}, which is a column of every source of pictures, whatever its "
                f"case; only label itself takes that column's place"
            )
        return self


Settings = ImagesSettings
HAS_TYPES = True
PLACE = "path"
EXTENSIONS = (".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff")


def find(spark: SparkSession, settings: ImagesSettings, *, root: str) -> Source:
    """Return the source with its files as they are now; with a manifest those that it names, and itself.

    Raises:
        SourceError: nothing there, or the manifest cannot be read.
    """
    uri = absolute_uri(settings.path, root)
    parts = listing.parts(uri)
    if settings.manifest is None:
        return Source(uri, settings, parts, file_states.rests_on(parts))
    table = manifest.part(settings.manifest, root)
    rests_on = file_states.rests_on((table, *parts))
    base = listing.base(uri, parts)
    names = set(manifest.read(table, settings.manifest, name=PATH, taken=(IMAGE,)).column(PATH).to_pylist())
    named = tuple(part for part in parts if part.name[len(base) :].lstrip("/") in names)
    unnamed = len(parts) - len(named) - (table in parts)
    if unnamed:
        logger.warning("%s: %s of %s files are not in manifest %s and left out", uri, unnamed, len(parts), table.name)
    pinned = settings.manifest.model_copy(update={"path": table.name})
    return Source(uri, settings.model_copy(update={"manifest": pinned}), (table, *named), rests_on)


def columns(spark: SparkSession, source: Source) -> StructType:
    """Return path, image, label, the groups of `pattern` and the columns of the manifest."""
    return _schema(source)


def read(spark: SparkSession, source: Source, contract: Contract) -> DataFrame:
    """Return a row for each file, or for each row of the manifest; see `typed_rows.conformable`.

    A row is bad whose file is larger than `max_bytes`, has no byte or is not there, whose path in a manifest leads
    elsewhere, or which is a sidecar without a picture.

    Raises:
        SourceError: `filter` is not a boolean SQL condition over these columns, no column of the contract is there, or one
            cannot be read.
    """
    settings = _settings(source)
    files, schema = _files(source), _schema(source)
    typed_rows.refuse_unreadable(schema, source, contract)
    weights = [(size or 0) + _COST_OF_A_FILE for size in files.column(_SIZE).to_pylist()]
    shares = binary_rows.shares(weights, binary_rows.task_bytes(spark, sum(weights)))
    pieces = [_bytes(files.slice(begin, end - begin)) for begin, end in shares]
    work = partial(_rows, listing.base(source.uri, source.parts), settings.max_bytes, settings.pattern)
    rows = binary_rows.frame(spark, pieces, work, binary_rows.with_own(schema))
    return typed_rows.conformable(
        rows, source, contract, file=F.col(SOURCE_FILE), malformed=F.col(MALFORMED), place={"uri": F.col(SOURCE_FILE)}
    )


def _settings(source: Source) -> ImagesSettings:
    assert isinstance(source.settings, ImagesSettings)
    return source.settings


def _schema(source: Source) -> StructType:
    """Return the columns of a source's rows; a column of the manifest stands in place of one of the same name."""
    settings = _settings(source)
    fields = {PATH: StructField(PATH, StringType(), metadata=OFFERED), IMAGE: StructField(IMAGE, BinaryType())}
    fields |= {name: StructField(name, StringType()) for name in (LABEL, *settings.groups)}
    if (table := _manifest(source)) is not None:
        fields |= {field.name: field for field in manifest.fields(table)}
    return StructType(list(fields.values()))


def _manifest(source: Source) -> pa.Table | None:
    settings = _settings(source)
    if settings.manifest is None:
        return None
    [file] = listing.parts(settings.manifest.path)
    return manifest.read(file, settings.manifest, name=PATH, taken=(IMAGE, *settings.groups))


def _files(source: Source) -> pa.Table:
    """Return `PATH`, `_SIZE`, `MALFORMED`, `_BESIDE` (name and size of the sidecar) and a manifest's columns, a row each."""
    settings = _settings(source)
    base = listing.base(source.uri, source.parts)
    by_name = {part.name[len(base) :].lstrip("/"): part for part in source.parts}
    table = _manifest(source)
    if table is not None:
        return _named_by(table, by_name, source)
    ends = settings.sidecar
    sidecars = {name for name in by_name if name.endswith(ends)} if ends else set()
    pictures = [name for name in by_name if name not in sidecars]
    beside = [_without_end(name) + ends for name in pictures] if sidecars else []
    alone = sorted(sidecars.difference(beside))
    parts = [by_name[name] for name in pictures]
    problems = [listing.NO_TEXT if part.state.startswith(listing.NO_TEXT) else None for part in parts]
    known = [{"name": name, "size": by_name[name].size_bytes} if name in sidecars else None for name in beside]
    rows: dict[str, tuple[list[Any], pa.DataType]] = {
        PATH: (pictures + alone, pa.string()),
        _SIZE: ([part.size_bytes for part in parts] + [by_name[name].size_bytes for name in alone], pa.int64()),
        MALFORMED: ([*problems, *["a sidecar without a picture"] * len(alone)], pa.string()),
        _BESIDE: (
            [*(known or [None] * len(pictures)), *[None] * len(alone)],
            pa.struct([("name", pa.string()), ("size", pa.int64())]),
        ),
    }
    return pa.table({name: pa.array(values, kind) for name, (values, kind) in rows.items()})


def _without_end(name: str) -> str:
    return re.sub(r"(?<=[^/])\.[^./]*$", "", name)


def _named_by(table: pa.Table, by_name: Mapping[str, Part], source: Source) -> pa.Table:
    """Return a manifest's rows with size or fault; of a source that lacks the manifest those whose file it has."""
    settings = _settings(source)
    assert settings.manifest is not None
    sizes: list[int | None] = []
    faults: list[str | None] = []
    for name in table.column(PATH).to_pylist():
        part = by_name.get(name)
        sizes.append(None if part is None else part.size_bytes)
        fault = "no path" if not name else unsafe(name) or ("no such file" if part is None else None)
        faults.append(fault)
    added = table.append_column(_SIZE, pa.array(sizes, pa.int64())).append_column(
        MALFORMED, pa.array(faults, pa.string())
    )
    if not any(part.name == settings.manifest.path for part in source.parts):
        added = added.filter(added.column(_SIZE).is_valid())
    return added


def _bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def _rows(base: str, max_bytes: int, pattern: str, piece: bytes) -> Iterator[binary_rows.Row]:
    """Yield the rows of some files. Executors; on remote stores several files are fetched at a time."""
    files = pa.ipc.open_stream(piece).read_all().to_pylist()
    load = partial(_row, base, max_bytes, pattern)
    if storage.is_local(base):
        yield from map(load, files)
        return
    with ThreadPoolExecutor(_REMOTE_FILES_AT_A_TIME) as pool:
        ahead: deque[tuple[int, Future[binary_rows.Row]]] = deque()
        num_bytes = 0
        for file in files:
            size = min(file[_SIZE] or 0, max_bytes)
            while ahead and (len(ahead) >= 2 * _REMOTE_FILES_AT_A_TIME or num_bytes + size > _BYTES_AHEAD):
                done, future = ahead.popleft()
                num_bytes -= done
                yield future.result()
            ahead.append((size, pool.submit(load, file)))
            num_bytes += size
        for _, future in ahead:
            yield future.result()


def _row(base: str, max_bytes: int, pattern: str, file: Mapping[str, Any]) -> binary_rows.Row:
    """Return the row of one file."""
    name, size, problem = file[PATH], file[_SIZE], file[MALFORMED]
    uri = storage.join(base, name) if name else base
    row = (said_by(name, pattern) if name else {}) | dict(file) | {SOURCE_FILE: uri}
    if problem is None and size > max_bytes:
        problem = f"{size:,} bytes, more than max_bytes={max_bytes:,}"
    if problem is None and size == 0:
        problem = NO_BYTE
    if problem is None:
        row[IMAGE] = opened_files.content(uri, size)
        if beside := file.get(_BESIDE):
            row[LABEL], problem = _label(storage.join(base, beside["name"]), beside["size"], max_bytes)
    return row | {MALFORMED: problem}


def _label(uri: str, size: int, max_bytes: int) -> tuple[str | None, str | None]:
    """Return (label, what is wrong) of a sidecar."""
    if size > max_bytes:
        return None, f"sidecar of {size:,} bytes, more than max_bytes={max_bytes:,}"
    try:
        return opened_files.content(uri, size).decode("utf-8-sig").strip() or None, None
    except UnicodeDecodeError:
        return None, "sidecar is not UTF-8"
