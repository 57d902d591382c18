"""A Delta table at one version, which is settled when the source is found. Driver, lazy."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Annotated, Literal

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError
from pydantic import Field
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import StructType

from mlspark import delta_log, storage
from mlspark.contracts.contract import Contract
from mlspark.errors import SourceError
from mlspark.sources import columnar_files, files, typed_rows
from mlspark.sources.settings import FilesSettings
from mlspark.sources.source import Part, Source, absolute_uri


class DeltaSettings(FilesSettings):
    """A Delta table at one version."""

    kind: Literal["delta"]
    version: Annotated[int, Field(ge=0)] | None = None
    """Version of the table to read; unset: the latest when the job starts."""
    timestamp: str = ""
    """Read the version that was the latest at this time, "2026-01-31 12:00:00"; not together with version."""


Settings = DeltaSettings
HAS_TYPES = True
PLACE = "path"
EXTENSIONS: tuple[str, ...] = ()
_LOOKED_FOR_AT_A_TIME = 16


def find(spark: SparkSession, settings: DeltaSettings, *, root: str) -> Source:
    """Return the source with the table's version as its part; settings.version then says which it is. No Spark job.

    Raises:
        SourceError: no such table or version, one whose log or files are gone, none as old as settings.timestamp, or both
            are set.
    """
    if settings.version is not None and settings.timestamp:
        raise SourceError(
            f"sources: version={settings.version} and timestamp={settings.timestamp!r} are both set for Delta table "
            f"{settings.path}; set one"
        )
    uri = absolute_uri(settings.path, root)
    try:
        table = DeltaTable(storage.rust_uri(uri))
    except TableNotFoundError:
        raise SourceError(
            f"{uri}: no Delta table there; check sources.*.path (scoring.source.path) and sources.root"
        ) from None
    except (DeltaError, OSError) as error:
        raise SourceError(f"{uri}: cannot be read: {' '.join(str(error).split())[:300]}") from error
    version = table.version() if settings.version is None else settings.version
    if settings.timestamp:
        version = _version_at(table, settings.timestamp, uri)
    if version > table.version():
        raise SourceError(f"{uri}: has no version {version}; the latest is {table.version()}")
    if version < table.version():
        _refuse_gone(uri, version, table.version())
    pinned = settings.model_copy(update={"version": version, "timestamp": ""})
    return Source(
        uri, pinned, (Part(uri, f"table {table.metadata().id}, version {version}"),), "the version of the table"
    )


def columns(spark: SparkSession, source: Source) -> StructType:
    """Return the columns of the version by name and type."""
    return typed_rows.schema(_rows(spark, source).schema)


def read(spark: SparkSession, source: Source, contract: Contract) -> DataFrame:
    """Return every row of the version; see `typed_rows.conformable`.

    Raises:
        SourceError: the version is gone, `filter` is not a boolean SQL condition over these columns, or no column of the
            contract is there.
    """
    rows = _rows(spark, source)
    return typed_rows.conformable(rows, source, contract, file=files.file_of(rows))


def _rows(spark: SparkSession, source: Source) -> DataFrame:
    settings = source.settings
    assert isinstance(settings, DeltaSettings)
    return spark.read.format("delta").options(**columnar_files.OPTIONS, versionAsOf=settings.version).load(source.uri)


def _refuse_gone(uri: str, version: int, latest: int) -> None:
    """Raise SourceError where an older version cannot be read any more: its log is not kept, or its files are not."""
    oldest = delta_log.oldest_version(uri)
    if version < oldest:
        raise SourceError(
            f"{uri}: version {version} is not kept any more; set sources.*.version to one from {oldest} to {latest}, or "
            f"have logs kept longer (delta.logRetentionDuration)"
        )
    try:
        paths = (
            pa.table(DeltaTable(storage.rust_uri(uri), version=version).get_add_actions()).column("path").to_pylist()
        )
    except (DeltaError, OSError) as error:
        raise SourceError(f"{uri}: version {version} cannot be read: {' '.join(str(error).split())[:300]}") from error
    files_then = [storage.file_uri(uri, delta_log.plain_path(path)) for path in paths]
    with ThreadPoolExecutor(_LOOKED_FOR_AT_A_TIME) as pool:
        gone = [
            file
            for file, is_there in zip(files_then, pool.map(storage.exists, files_then), strict=True)
            if not is_there
        ]
    if gone:
        raise SourceError(
            f"{uri}: {len(gone)} of the {len(files_then)} files of version {version} are gone, {gone[0]} among them; VACUUM "
            f"removes files of old versions: set sources.*.version to a newer one (the latest is {latest}), or have files "
            f"kept longer (delta.deletedFileRetentionDuration)"
        )


def _version_at(table: DeltaTable, timestamp: str, uri: str) -> int:
    """Return the version that was the latest at a time; UTC where it names no zone."""
    try:
        asked = datetime.fromisoformat(timestamp)
    except ValueError:
        raise SourceError(f"timestamp {timestamp!r}: expected a time like 2026-01-31 12:00:00") from None
    millis = (asked if asked.tzinfo else asked.replace(tzinfo=UTC)).timestamp() * 1000
    # deltalake would return the oldest version for any earlier time.
    commits = {entry["version"]: entry["timestamp"] for entry in table.history()}
    versions = [version for version, committed in commits.items() if committed <= millis]
    if not versions:
        oldest = datetime.fromtimestamp(min(commits.values()) / 1000, UTC)
        raise SourceError(f"{uri}: has no version as old as {timestamp}; the oldest known is of {oldest}")
    return int(max(versions))
