"""The live files of a version of a Delta table, as a snapshot. Needs no Spark."""

import json
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from mlspark import storage
from mlspark.errors import TableError
from mlspark.streaming.filters import Condition, conditions
from mlspark.streaming.footers import described
from mlspark.streaming.schema import table_columns
from mlspark.streaming.snapshot import DataFile, Snapshot, file_uri, pack_rows

_READABLE_FEATURES = {
    "appendOnly", "catalogOwned-preview", "checkConstraints", "columnMapping", "deletionVectors", "domainMetadata",
    "generatedColumns", "identityColumns", "inCommitTimestamp", "invariants", "timestampNtz", "typeWidening",
    "typeWidening-preview", "v2Checkpoint", "vacuumProtocolCheck",
    # Those of column types that cannot be streamed stop only who asks for such a column.
    "geospatial", "timestampNanos", "variantShredding", "variantShredding-preview", "variantType", "variantType-preview",
}  # fmt: skip
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")
_COMMIT = re.compile(r"(\d{20})\.json")
_CHECKPOINT = re.compile(r"(\d{20})\.checkpoint\..*parquet|(\d{20})\.checkpoint\..*json")


def take(table: str, *, version: int | None = None, where: Iterable[Condition] = (), threads: int = 16) -> Snapshot:
    """Return the snapshot of `table` at `version` (None: the latest). Needs no Spark; reads each file's footer once.

    The order of the files follows from partitions, the writer's numbering, sizes and statistics; not from the random part
    of their names, so the same rows written again the same way are streamed in the same order.

    Args:
        table: URI of a Delta table.
        version: of the table.
        where: (column, operator, value), all of which hold for each row of the snapshot; operators =, !=, <, <=, >, >=, in.
            NaN and null are compared as Spark does. Partitions and statistics spare most of the reading; where they leave
            it open, the columns of the conditions are read once, here.
        threads: files looked at at a time.

    Raises:
        TableError: no such table or version, or a table feature that cannot be read.
        DatasetError: a file is gone or damaged; a condition names no column or has a value of another type.
    """
    table = storage.absolute(table)
    delta = _open(table, version)
    for feature in delta.protocol().reader_features or ():
        if feature not in _READABLE_FEATURES:
            raise TableError(
                f"{table}: version {delta.version()} uses the table feature {feature}, which cannot be streamed; where "
                f"Delta allows it, run: ALTER TABLE delta.`{table}` DROP FEATURE {feature}; else write the columns that "
                f"you need to another table"
            )
    about, schema = delta.metadata(), json.loads(delta.schema().to_json())
    is_mapped_by_id = about.configuration.get("delta.columnMapping.mode") == "id"
    checks = conditions(
        where, table_columns(schema, is_mapped_by_id=is_mapped_by_id), set(about.partition_columns), table
    )
    live = [file for file in _live_files(delta, table) if checks.hold_in_partition(file.partition)]
    with ThreadPoolExecutor(threads) as pool:
        files = sorted(
            pool.map(lambda file: described(file_uri(table, file.path), file, checks), live), key=lambda entry: entry[0]
        )
    return Snapshot(
        table,
        delta.version(),
        schema,
        tuple(file for _, file in files),
        is_mapped_by_id=is_mapped_by_id,
        table_id=str(about.id),
        conditions=checks.texts,
    )


def _open(table: str, version: int | None) -> DeltaTable:
    """Return the table at a version.

    Raises:
        TableError: no such table or version; says which versions there are.
    """
    if version is not None and (not isinstance(version, int) or isinstance(version, bool)):
        raise TableError(f"{table}: version {version!r} is a {type(version).__name__}; give a whole number, or None")
    uri = storage.rust_uri(table)
    try:
        if version is None:
            return DeltaTable(uri)
        if version >= 0:
            return DeltaTable(uri, version=version)
    except (DeltaError, OSError, OverflowError) as error:
        failure: Exception | None = error
    else:
        failure = None
    if version is None:
        if isinstance(failure, TableNotFoundError):
            raise TableError(f"{table}: no Delta table here; run prepare first or check storage.root") from None
        raise TableError(f"{table}: cannot be read: {_one_line(failure)}") from failure
    latest = _open(table, None).version()
    oldest = _oldest_version(table)
    if oldest <= version <= latest:
        raise TableError(f"{table}: version {version} cannot be read: {_one_line(failure)}") from failure
    why = "is not there yet" if version > latest else "is no version" if version < 0 else "is not kept any more"
    raise TableError(f"{table}: version {version} {why}; give one from {oldest} to {latest}") from None


def _oldest_version(table: str) -> int:
    """Return the oldest version that the log still tells in full: from its first commit, or from a checkpoint on."""
    names = [uri.rsplit("/", 1)[-1] for uri in storage.list_files(storage.join(table, "_delta_log"))]
    commits = [int(match[1]) for name in names if (match := _COMMIT.fullmatch(name))]
    checkpoints = [int(match[1] or match[2]) for name in names if (match := _CHECKPOINT.fullmatch(name))]
    return 0 if 0 in commits else min(checkpoints, default=0)


def _one_line(error: Exception | None) -> str:
    return " ".join(str(error).split())[:300]


def _live_files(delta: DeltaTable, table: str) -> list[DataFile]:
    """Return the files of the version, each with its partition and deleted rows."""
    actions = pa.table(delta.get_add_actions(flatten=True))
    wanted = [name for name in actions.column_names if name in ("path", "size_bytes") or name.startswith("partition.")]
    deleted = _deleted_rows(delta, table)
    files = []
    for action in actions.select(wanted).to_pylist():
        path = _plain(action["path"])
        rows = deleted.pop(file_uri(table, path), "")
        files.append(DataFile(path, action["size_bytes"], _partition(action), (), rows))
    if deleted:
        raise TableError(
            f"{table}: deleted rows of {min(deleted)} cannot be assigned to a live file; "
            f"run: REORG TABLE delta.`{table}` APPLY (PURGE)"
        )
    return files


def _plain(path: str) -> str:
    """Return a path of the log as it names the file: relative to the table, absolute on a local disk, or a URI."""
    if path.startswith("file:/"):
        return unquote(urlsplit(path).path)
    return unquote(path)


def _deleted_rows(delta: DeltaTable, table: str) -> dict[str, str]:
    """Return URI -> packed mask of the deleted rows, for the files that have any."""
    if "deletionVectors" not in (delta.protocol().reader_features or ()):
        return {}
    packed = {}
    for batch in delta.deletion_vectors():
        for uri, keeps in zip(*(pa.record_batch(batch).column(index) for index in (0, 1)), strict=True):
            rows = pack_rows(~np.asarray(keeps.values.to_numpy(zero_copy_only=False), dtype=np.bool_))
            name = _plain(uri.as_py())
            packed[f"s3a:{name.removeprefix('s3:')}" if table.startswith("s3a:") else name] = rows
    return packed


def _partition(action: Mapping[str, Any]) -> dict[str, str | None]:
    """Return an action's partition values as text: dates and timestamps in ISO form, true and false."""
    values = {name.removeprefix("partition."): value for name, value in action.items() if name.startswith("partition.")}
    return {name: None if value is None else _text(value) for name, value in values.items()}


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, datetime):
        return value.isoformat(sep=" ")
    return value.isoformat() if isinstance(value, date) else str(value)
