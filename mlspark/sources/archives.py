"""Archives of pictures: zip, tar, compressed tar; one member or one key, one row. Driver, lazy; read on executors."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from itertools import islice
from typing import Any, Literal, Self

import pyarrow as pa
from pydantic import model_validator
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import BinaryType, LongType, StringType, StructField, StructType

from mlspark import storage
from mlspark.contracts.contract import Contract
from mlspark.contracts.own_columns import MALFORMED, PREFIX, SOURCE_FILE
from mlspark.errors import SourceError
from mlspark.sources import (
    binary_rows,
    file_states,
    files,
    listing,
    manifest,
    opened_files,
    tar_members,
    typed_rows,
    webdataset,
    zip_members,
)
from mlspark.sources.members import NO_BYTE, Archive, Member, Span
from mlspark.sources.picture_settings import IMAGE, LABEL, OFFERED, PicturesSettings, repeated, said_by
from mlspark.sources.source import Part, Source, absolute_uri, named

MEMBER, ARRIVAL = "member", "place"
_TIMES = f"{PREFIX}times"
_LOOKED_AT = 1000
"""Members of the first archive by which WebDataset's columns are known."""
_MOST_REPEATED = 1000
_MOST_IN_MEMORY = 2 * binary_rows.TASK_BYTES


class ArchivesSettings(PicturesSettings):
    """Zip and tar files, the latter plain or compressed; they are never unpacked to a disk."""

    kind: Literal["archives"]
    webdataset: bool = False
    """Whether the files of one key are a row, as WebDataset writes them: 0001.jpg and 0001.cls are columns jpg and cls of
    key 0001. Else every member is a row."""

    @model_validator(mode="after")
    def _columns_are_different(self) -> Self:
        own = [MEMBER, ARRIVAL, IMAGE, webdataset.KEY, *({LABEL} - {*self.groups} if not self.webdataset else ())]
        if twice := repeated([*own, *self.groups]):
            raise ValueError(
                f"pattern: a group cannot be called {twice[0]}, which is a column of archives, whatever its case; only "
                f"label itself takes that column's place"
            )
        if self.webdataset and self.manifest is not None:
            raise ValueError("manifest: its rows are of members, and those of webdataset of keys; set one of them")
        return self


Settings = ArchivesSettings
HAS_TYPES = True
PLACE = "path"
EXTENSIONS = (".zip", ".tar", ".tgz")


def find(spark: SparkSession, settings: ArchivesSettings, *, root: str) -> Source:
    """Return the source with its archives as they are now, and the manifest.

    Raises:
        SourceError: nothing there.
    """
    uri = absolute_uri(settings.path, root)
    parts = files.each_once(listing.parts(uri))
    if settings.manifest is None:
        return Source(uri, settings, parts, file_states.rests_on(parts))
    table = manifest.part(settings.manifest, root)
    rests_on = file_states.rests_on((table, *parts))
    pinned = settings.manifest.model_copy(update={"path": table.name})
    archives = tuple(part for part in parts if part.name != table.name)
    return Source(uri, settings.model_copy(update={"manifest": pinned}), (table, *archives), rests_on)


def columns(spark: SparkSession, source: Source) -> StructType:
    """Return member, place, image, label, the groups of `pattern` and the columns of the manifest.

    With `webdataset` key, place and a column for each extension of the first archive's first members; those of text are
    strings.
    """
    settings = _settings(source)
    if settings.webdataset:
        first = _archives(source)[0]
        looked_at = islice(_members(_Item(first.name, first.size_bytes), settings.max_bytes, reads=False), _LOOKED_AT)
        extensions = webdataset.extensions(member.name for member in looked_at)
        if twice := repeated([*extensions, *settings.groups]):
            raise SourceError(
                f"{first.name}: {twice[0]} is a group of pattern and the end of files' names, and a key has one column of "
                f"that name; rename the group"
            )
        return webdataset.schema(extensions, settings.groups)
    table = _manifest(source)
    return _schema(settings.groups, [] if table is None else manifest.fields(table))


def read(spark: SparkSession, source: Source, contract: Contract) -> DataFrame:
    """Return a row for each file of the archives, or for each key of WebDataset's; see `typed_rows.conformable`.

    A row is bad whose member cannot be read (encrypted, damaged, another way of compression, a link), is larger than
    `max_bytes`, or has a name that leads out of the archive. Where an archive is damaged or cut off, a bad row without a
    member says so. Archives of some size are looked through for where to divide them: one Spark job.

    Raises:
        SourceError: `filter` is not a boolean SQL condition over these columns, no column of the contract is there, or one
            cannot be read.
    """
    settings = _settings(source)
    if settings.manifest is not None:
        typed_rows.refuse_unreadable(columns(spark, source), source, contract)
    pieces = _pieces(spark, source)
    if settings.webdataset:
        asked = [column.source_name for column in contract.columns]
        wanted = tuple(name for name in asked if name not in (webdataset.KEY, ARRIVAL, *settings.groups))
        schema = webdataset.schema(wanted, settings.groups)
        work = partial(_keys, settings.max_bytes, settings.pattern, wanted)
    else:
        schema = _schema(settings.groups)
        work = partial(_rows, settings.max_bytes, settings.pattern, True)
    rows = binary_rows.frame(spark, pieces, work, binary_rows.with_own(schema))
    if settings.manifest is not None:
        rows = _with_manifest(spark, rows, source, pieces)
    name = webdataset.KEY if settings.webdataset else MEMBER
    place = {"uri": F.col(SOURCE_FILE), name: F.col(name), ARRIVAL: F.col(ARRIVAL)}
    return typed_rows.conformable(
        rows, source, contract, file=F.col(SOURCE_FILE), malformed=F.col(MALFORMED), place=place
    )


def _settings(source: Source) -> ArchivesSettings:
    assert isinstance(source.settings, ArchivesSettings)
    return source.settings


def _schema(groups: Sequence[str], of_manifest: Sequence[StructField] = ()) -> StructType:
    fields = {
        MEMBER: StructField(MEMBER, StringType(), metadata=OFFERED),
        ARRIVAL: StructField(ARRIVAL, LongType(), metadata=OFFERED),
        IMAGE: StructField(IMAGE, BinaryType()),
    }
    fields |= {name: StructField(name, StringType()) for name in (LABEL, *groups)}
    return StructType(list((fields | {field.name: field for field in of_manifest}).values()))


def _manifest(source: Source) -> pa.Table | None:
    settings = _settings(source)
    if settings.manifest is None:
        return None
    [file] = listing.parts(settings.manifest.path)
    return manifest.read(file, settings.manifest, name=MEMBER, taken=(ARRIVAL, IMAGE, *settings.groups))


def _archives(source: Source) -> list[Part]:
    settings = _settings(source)
    return [p for p in source.parts if settings.manifest is None or p.name != settings.manifest.path]


@dataclass(frozen=True)
class _Item:
    """An archive, or a span of it, that a task reads."""

    uri: str
    size: int
    span: Span | None = None
    repeated: tuple[str, ...] | None = None
    """Keys of WebDataset whose files stand in several places of the archive; None where they are not known yet."""


@lru_cache(maxsize=8)
def _pieces(spark: SparkSession, source: Source) -> tuple[bytes, ...]:
    """Return what each task reads: several small archives, or a span of a large one. A Spark job where any is large.

    Large is an archive of more than two tasks; of remote tars, which must be fetched to be looked through, one that would
    keep a slot busy when the others have nothing to do.
    """
    settings, archives = _settings(source), _archives(source)
    num_bytes = sum(part.size_bytes for part in archives)
    task_bytes = binary_rows.task_bytes(spark, num_bytes)
    fair = binary_rows.fair_share(spark, num_bytes)
    large = [
        part
        for part in archives
        if part.size_bytes >= 2 * task_bytes and (part.size_bytes >= fair or _is_cheap_to_plan(part.name))
    ]
    plans: dict[str, list[_Item]] = {}
    if large:
        items = [_to_bytes([_Item(part.name, part.size_bytes)]) for part in large]
        work = partial(_plan, settings.max_bytes, task_bytes, settings.webdataset)
        schema = StructType([StructField("uri", StringType()), StructField("items", BinaryType())])
        for row in binary_rows.frame(spark, items, work, schema).collect():
            plans[row["uri"]] = _from_bytes(bytes(row["items"]))
    pieces: list[bytes] = []
    small: list[Part] = []

    def flush() -> None:
        for begin, end in binary_rows.shares([part.size_bytes for part in small], task_bytes):
            pieces.append(_to_bytes([_Item(part.name, part.size_bytes) for part in small[begin:end]]))
        small.clear()

    for part in archives:
        if part.name in plans:
            flush()
            pieces += [_to_bytes([item]) for item in plans[part.name]]
        else:
            small.append(part)
    flush()
    return tuple(pieces)


def _is_cheap_to_plan(uri: str) -> bool:
    """Return whether where an archive can be divided is known without reading most of it."""
    return storage.is_local(uri) or uri.lower().endswith(".zip")


def _to_bytes(items: Sequence[_Item]) -> bytes:
    return json.dumps([asdict(item) for item in items]).encode()


def _from_bytes(piece: bytes) -> list[_Item]:
    return [
        _Item(
            item["uri"],
            item["size"],
            None if item["span"] is None else Span(**item["span"]),
            None if item["repeated"] is None else tuple(item["repeated"]),
        )
        for item in json.loads(piece)
    ]


def _with_manifest(spark: SparkSession, rows: DataFrame, source: Source, pieces: Sequence[bytes]) -> DataFrame:
    """Return the rows with the manifest's columns, and a bad row for each of its rows that no member has. Lazy.

    Rows of members that share a name which the manifest has are bad: it cannot be known which of them it means.
    """
    settings, table = _settings(source), _manifest(source)
    assert settings.manifest is not None
    assert table is not None
    told = F.broadcast(spark.createDataFrame(table))
    schema = _schema(settings.groups, manifest.fields(table))
    kept = [name for name in rows.columns if name == MEMBER or name not in table.column_names]
    names_only = partial(_rows, settings.max_bytes, settings.pattern, False)
    names = binary_rows.frame(spark, pieces, names_only, binary_rows.with_own(_schema(settings.groups)))
    counted = names.groupBy(MEMBER).agg(F.count(F.lit(1)).alias(_TIMES))
    several = counted.where(F.col(_TIMES) > 1).join(told, on=MEMBER, how="left_semi")
    found = rows.select(*map(named, kept)).join(told, on=MEMBER, how="left").join(F.broadcast(several), MEMBER, "left")
    which = F.format_string("%d members have this name, and the manifest does not say which it means", F.col(_TIMES))
    found = found.withColumn(MALFORMED, F.coalesce(MALFORMED, F.when(F.col(_TIMES).isNotNull(), which)))
    found = found.select(*map(named, binary_rows.with_own(schema).names))
    if not any(part.name == settings.manifest.path for part in source.parts):
        return found
    absent = spark.createDataFrame(table).join(counted, on=MEMBER, how="left_anti")
    reasons = {MALFORMED: F.lit("no such member"), SOURCE_FILE: F.lit(settings.manifest.path)}
    return found.unionByName(absent.withColumns(reasons), allowMissingColumns=True)


def _plan(max_bytes: int, span_bytes: int, by_key: bool, piece: bytes) -> Iterator[binary_rows.Row]:
    """Yield {"uri", "items"} of a large archive: its spans. Executors."""
    for item in _from_bytes(piece):
        keys = webdataset.Keys()
        with _opened(item, max_bytes, reads=False) as (archive, kind):
            spans = kind.spans(archive, span_bytes, keys.begins if by_key else None)
        repeated = tuple(sorted(keys.repeated)) if by_key else None
        if repeated and len(repeated) > _MOST_REPEATED:
            raise SourceError(
                f"{item.uri}: files of {len(repeated):,} keys ({', '.join(repeated[:3])}, ...) do not stand one after the "
                f"other; write the archive sorted by name, as WebDataset needs it"
            )
        yield {"uri": item.uri, "items": _to_bytes([replace(item, span=span, repeated=repeated) for span in spans])}


@contextmanager
def _opened(item: _Item, max_bytes: int, *, reads: bool, twice: bool = False) -> Iterator[tuple[Archive, Any]]:
    """Yield (open archive, module of its format); one that is read twice is fetched once where it is small."""
    with opened_files.opened(item.uri, in_memory=twice and item.size <= _MOST_IN_MEMORY) as file:
        if file.seek(0, 2) != item.size:
            raise SourceError(
                f"{item.uri}: changed while it was read: it had {item.size:,} bytes; nothing was written. Run again"
            )
        file.seek(0)
        is_zip = file.read(4) in zip_members.MAGIC or item.uri.lower().endswith(".zip")
        yield Archive(file, item.size, max_bytes, reads), zip_members if is_zip else tar_members


def _members(item: _Item, max_bytes: int, *, reads: bool) -> Iterator[Member]:
    """Yield the members of an archive, or of its span. Executors, and the driver for WebDataset's first ones."""
    if item.size == 0:
        yield Member("", 0, None, NO_BYTE)
        return
    with _opened(item, max_bytes, reads=reads) as (archive, kind):
        yield from kind.members(archive, item.span)


def _rows(max_bytes: int, pattern: str, reads: bool, piece: bytes) -> Iterator[binary_rows.Row]:
    """Yield a row for each member. Executors."""
    for item in _from_bytes(piece):
        for member in _members(item, max_bytes, reads=reads):
            yield {
                **(said_by(member.name, pattern) if member.name else {}),
                MEMBER: member.name or None,
                ARRIVAL: member.place,
                IMAGE: member.content,
                MALFORMED: member.problem or (NO_BYTE if member.content == b"" else None),
                SOURCE_FILE: item.uri,
            }


def _keys(max_bytes: int, pattern: str, wanted: Sequence[str], piece: bytes) -> Iterator[binary_rows.Row]:
    """Yield a row for each key of WebDataset. Executors."""
    for item in _from_bytes(piece):
        for row in _rows_by_key(item, max_bytes, pattern, wanted):
            yield {**row, SOURCE_FILE: item.uri}


def _rows_by_key(item: _Item, max_bytes: int, pattern: str, wanted: Sequence[str]) -> Iterator[binary_rows.Row]:
    if item.size == 0:
        yield from webdataset.rows([Member("", 0, None, NO_BYTE)], wanted, frozenset(), pattern)
        return
    with _opened(item, max_bytes, reads=True, twice=item.repeated is None) as (archive, kind):
        repeated = item.repeated
        if repeated is None:
            keys = webdataset.Keys()
            for member in kind.members(replace(archive, reads=False), item.span):
                keys.begins(member.name)
            repeated = tuple(keys.repeated)
        yield from webdataset.rows(kind.members(archive, item.span), wanted, frozenset(repeated), pattern)
