"""Delta tables: whole commits that say what they hold, and versions that can be found again. Driver only."""

import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]
from pyspark.errors import AnalysisException, PySparkException
from pyspark.sql import DataFrame, SparkSession

from mlspark import session, storage
from mlspark.errors import DamagedFile, TableError, one_line

logger = logging.getLogger(__name__)

_KEY = "mlspark"
_ATTEMPTS = 5
_LOG_FILES_LOOKED_AT = 100
"""Newest files of a damaged log that are looked at to find the one at fault."""


@dataclass(frozen=True)
class Commit:
    """One version of a table, and what its writer said of it."""

    version: int
    metadata: Mapping[str, Any]


def exists(table: str) -> bool:
    """Return whether a Delta table stands at `table`.

    Raises:
        StorageError: a file is in its place, or nothing can be written there.
        TableError: the place cannot be read.
    """
    try:
        return DeltaTable.is_deltatable(storage.rust_uri(table))
    except OSError as error:
        storage.check_writable(table)  # says in words what delta-rs says in colours
        raise TableError(f"{table}: cannot be read ({' '.join(str(error).split())[:300]}); see to the store") from error


def opened(table: str) -> DeltaTable:
    """Return the newest version of a Delta table, to be asked without Spark.

    Raises:
        TableError: its log cannot be read; names the file where one is damaged.
    """
    try:
        delta = DeltaTable(storage.rust_uri(table))
        newest = next(iter(delta.history(1)), {"version": -1})
    except (DeltaError, OSError, ValueError) as error:
        raise TableError(
            f"{_damaged_log_file(table) or storage.join(table, '_delta_log')}: the table's log cannot be read "
            f"({one_line(str(error))}); {_LOG_REMEDY}"
        ) from error
    if newest["version"] != delta.version():  # an empty file counts as a version in which nothing happened
        raise TableError(f"{_log_file(table, delta.version())}: the table's log cannot be read (empty); {_LOG_REMEDY}")
    return delta


_LOG_REMEDY = "restore the file, or move the table away and run again"


def _log_file(table: str, version: int) -> str:
    return storage.join(table, "_delta_log", f"{version:020d}.json")


def _damaged_log_file(table: str) -> str | None:
    """Return the newest file of a table's log that is not the JSON it should be; None where none of the last is."""
    files = [uri for uri in storage.list_files(storage.join(table, "_delta_log")) if uri.endswith(".json")]
    for uri in files[:-_LOG_FILES_LOOKED_AT:-1]:
        try:
            lines = storage.read_bytes(uri).decode().splitlines()
            if not lines or not all(isinstance(action, dict) for line in lines for action in json.loads(line).values()):
                return uri
        except (ValueError, AttributeError):
            return uri
    return None


def commits(table: str) -> list[Commit]:
    """Return the versions that mlspark wrote, newest first; empty when there is no table. No Spark job.

    Raises:
        TableError: the table's log cannot be read.
    """
    if not exists(table):
        return []
    history = opened(table).history()
    return [
        Commit(entry["version"], json.loads(entry["userMetadata"])[_KEY])
        for entry in history
        if (entry.get("userMetadata") or "").startswith(f'{{"{_KEY}"')
    ]


def find_commit(table: str, commit_id: str) -> Commit | None:
    """Return the newest version whose metadata has id `commit_id`."""
    return next((commit for commit in commits(table) if commit.metadata["id"] == commit_id), None)


def latest(table: str) -> Commit | None:
    """Return the newest version that mlspark wrote."""
    return next(iter(commits(table)), None)


def write(
    frame: DataFrame,
    table: str,
    *,
    metadata: Mapping[str, Any],
    mode: str,
    partition_by: Sequence[str] = (),
    replace_where: str | None = None,
    may_add_columns: bool = False,
    turn: tuple[str, int] | None = None,
    ranges_of: Sequence[str] | None = None,
) -> Commit:
    """Write `frame` as one commit and return it. Readers see all of it or nothing.

    Args:
        frame: rows to write.
        table: URI of the table, created when absent.
        metadata: says what the commit holds; must have "id", by which it is found again.
        mode: "overwrite", "append", or "error" for a table that must not be there yet.
        partition_by: partition columns.
        replace_where: with "overwrite": replace only the rows that satisfy this.
        may_add_columns: take columns that the table lacks as new ones, null in the rows that stay.
        turn: a row of writers, and the turn that this one takes in it: see `next_turn`. Of all that take one turn, the
            first is accepted.
        ranges_of: columns of a table that is created here whose ranges (least, greatest, nulls) the log has for each file,
            for good; None: the first 32, as Delta does by itself. The log has the number of a file's rows in any case.

    Raises:
        ConcurrentWrite: another writer committed meanwhile what this one would overwrite, or took its turn; nothing was
            written.
    """
    options: dict[str, str | int] = {"mergeSchema": str(may_add_columns).lower()}
    if turn is not None:
        options |= {"txnAppId": turn[0], "txnVersion": turn[1]}
    if replace_where is not None:
        options["replaceWhere"] = replace_where
    with _refusing_conflicts(table):
        _save(frame, table, options, metadata=metadata, mode=mode, partition_by=partition_by, ranges_of=ranges_of)
    commit = find_commit(table, metadata["id"])
    if commit is None and turn is not None:  # Delta leaves out a turn that is taken, without a word
        raise ConcurrentWrite(f"{table}: another writer was first; nothing was written. Run again")
    assert commit is not None, f"{table}: the commit just written is not in the history"
    return commit


def next_turn(table: str, writers: str) -> tuple[str, int]:
    """Return the next turn of a row of writers, each of which rests on what those before it wrote; see `write`.

    Delta's transaction record keeps it, however long the table's history is.
    """
    taken = opened(table).transaction_version(writers) if exists(table) else None
    return writers, 0 if taken is None else taken + 1


_HISTORY = "delta.logRetentionDuration"


def keep_history(spark: SparkSession, table: str) -> None:
    """Have a table's log keep its commits for good: Delta forgets those older than 30 days. Nothing where it does."""
    if exists(table) and _HISTORY not in opened(table).metadata().configuration:
        spark.sql(f"ALTER TABLE delta.`{table}` SET TBLPROPERTIES ('{_HISTORY}' = 'interval 36500 days')")


def write_next(
    frame: DataFrame,
    table: str,
    *,
    after: Commit | None,
    metadata: Mapping[str, Any],
    mode: str,
    partition_by: Sequence[str] = (),
    ranges_of: Sequence[str] | None = None,
) -> Commit:
    """Write `frame` as the mlspark commit that follows `after`, or lose to another writer that did so first.

    Of all writers that start from the same commit, Delta's transaction record accepts one. Arguments are those of `write`.

    Returns:
        The commit that won; it is this one when its metadata is `metadata`.

    Raises:
        ConcurrentWrite: another commit than this one, with another id, follows `after`; nothing was written.
    """
    turn = -1 if after is None else after.version
    options: dict[str, str | int] = {"txnAppId": _KEY, "txnVersion": turn + 1}
    try:
        with _refusing_conflicts(table):
            _save(frame, table, options, metadata=metadata, mode=mode, partition_by=partition_by, ranges_of=ranges_of)
    except ConcurrentWrite:
        logger.info("%s: another writer was first", table)
    won = latest(table)
    assert won is not None, f"{table}: nothing was written"
    assert won.version > turn, f"{table}: nothing follows version {turn}"
    if won.metadata["id"] != metadata["id"]:
        raise ConcurrentWrite(
            f"{table}: another run wrote version {won.version} (id {won.metadata['id']}) while this one ran; "
            f"this one wrote nothing. Run it again if its rows are to follow"
        )
    return won


class ConcurrentWrite(TableError):
    """Another writer of the same table was first."""


def _save(
    frame: DataFrame,
    table: str,
    options: Mapping[str, str | int],
    *,
    metadata: Mapping[str, Any],
    mode: str,
    partition_by: Sequence[str],
    ranges_of: Sequence[str] | None,
) -> None:
    writer = frame.write.format("delta").mode(mode).options(**options, userMetadata=json.dumps({_KEY: dict(metadata)}))
    if ranges_of is not None:
        writer = writer.option("delta.dataSkippingStatsColumns", ",".join(f"`{name}`" for name in ranges_of))
    if partition_by:
        writer = writer.partitionBy(*partition_by)
    if mode == "overwrite" and "replaceWhere" not in options:
        writer = writer.option("overwriteSchema", "true")
    writer.save(table)


@contextmanager
def _refusing_conflicts(table: str) -> Iterator[None]:
    """Turn Delta's many exceptions for a lost race into ConcurrentWrite."""
    try:
        yield
    except (PySparkException, Py4JJavaError) as error:
        if "DELTA_REPLACE_WHERE_MISMATCH" in str(error):
            raise TableError(f"{table}: a row is not one of those to be replaced; nothing was written") from error
        if not any(sign in f"{type(error).__name__} {error}" for sign in _CONFLICTS):
            raise
        raise ConcurrentWrite(f"{table}: another writer was first; nothing was written. Run again") from error


_CONFLICTS = (
    "ConcurrentAppendException",
    "ConcurrentDeleteReadException",
    "ConcurrentDeleteDeleteException",
    "ConcurrentWriteException",
    "ConcurrentTransactionException",
    "MetadataChangedException",
    "ProtocolChangedException",
    "DELTA_CONCURRENT",
    "DELTA_PATH_EXISTS",
    "DELTA_METADATA_CHANGED",
    "DELTA_PROTOCOL_CHANGED",
)


_WRITERS_OF_TASK = "spark.sql.maxConcurrentOutputFileWriters"


def replace_part(
    frame: DataFrame,
    table: str,
    *,
    part: str,
    value: str,
    metadata: Mapping[str, Any],
    may_add_columns: bool = False,
    replacing: str = "",
    turn: tuple[str, int] | None = None,
    ranges_of: Sequence[str] | None = None,
) -> Commit:
    """Write `frame` as the whole of partition `part` = `value` and return the commit.

    A second run writes the same partition anew, so rows that an interrupted one left are not kept beside it. Runs that
    write other partitions at the same time do not lose anything; this one tries again after them. Of two runs that find no
    table one creates it, and the other then writes its partition into it.

    Args:
        frame: rows to write.
        table: URI of the table, created when absent.
        part: partition column.
        value: of the partition.
        metadata, may_add_columns, turn, ranges_of: see `write`.
        replacing: SQL condition over the table's columns: its rows are taken out of all partitions in the same commit. All
            of `frame` must satisfy it.

    Raises:
        TableError: a row does not satisfy `replacing`.
        ConcurrentWrite: the same partition was written again and again by others.
    """
    for attempt in range(_ATTEMPTS):
        is_new = not exists(table)
        try:
            # A task has rows of one partition: Spark need not sort them by it, on disk where they are many.
            with session.having(frame.sparkSession, _WRITERS_OF_TASK, "1", instead_of="0"):
                return write(
                    frame,
                    table,
                    metadata=metadata,
                    # Not "overwrite": a table that another run has created meanwhile must not be replaced.
                    mode="error" if is_new else "overwrite",
                    partition_by=[part],
                    replace_where=None if is_new else replacing or f"{part} = '{value}'",
                    may_add_columns=may_add_columns and not is_new,
                    turn=turn,
                    ranges_of=ranges_of,
                )
        except ConcurrentWrite:
            if attempt == _ATTEMPTS - 1:
                raise
            time.sleep(0.5 * 2**attempt)
    raise AssertionError("unreachable")


def read(spark: SparkSession, table: str, *, version: int | None = None) -> DataFrame:
    """Return the table at `version` (None: the latest).

    Raises:
        TableError: no such table or version.
    """
    reader = spark.read.format("delta")
    if version is not None:
        reader = reader.option("versionAsOf", version)
    try:
        return reader.load(table)
    except AnalysisException as error:
        raise TableError(f"{table}: version {version} cannot be read: {error.getMessage()}") from error


def sidecar(table: str, commit_id: str, name: str) -> str:
    """Return the URI of a small file that travels with a table: what a commit holds beyond its rows.

    The folder's name starts with an underscore, so that Delta's VACUUM leaves it alone.
    """
    return storage.join(table, "_mlspark", commit_id, name)


def read_sidecar(table: str, commit_id: str, name: str) -> dict[str, Any]:
    """Return a JSON file that travels with a commit, written by `storage.write_sealed`.

    Raises:
        TableError: it is absent or not what was written; names it.
    """
    uri = sidecar(table, commit_id, name)
    try:
        return storage.read_sealed(uri)
    except FileNotFoundError:
        raise TableError(
            f"{uri}: missing, though a version of the table needs it; restore it or prepare the table anew"
        ) from None
    except DamagedFile as error:
        raise TableError(f"{error}; restore the file or prepare the table anew") from error
