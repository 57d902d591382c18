"""The live files of a version of a Delta table, as a snapshot. Needs no Spark."""

import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from mlspark import delta_log, storage
from mlspark.errors import TableError
from mlspark.streaming.filters import Condition, conditions
from mlspark.streaming.footers import described
from mlspark.streaming.schema import table_columns
from mlspark.streaming.snapshot import DataFile, Snapshot, pack_rows

_READABLE_FEATURES = {
    "appendOnly", "catalogOwned-preview", "checkConstraints", "columnMapping", "deletionVectors", "domainMetadata",
    "generatedColumns", "identityColumns", "inCommitTimestamp", "invariants", "timestampNtz", "typeWidening",
    "typeWidening-preview", "v2Checkpoint", "vacuumProtocolCheck",
    # Those of column types that cannot be streamed stop only who asks for such a column.
    "geospatial", "timestampNanos", "variantShredding", "variantShredding-preview", "variantType", "variantType-preview",
}  # fmt: skip


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
    live = [(file, rows) for file, rows in _live_files(delta, table) if checks.hold_in_partition(file.partition)]
    with ThreadPoolExecutor(threads) as pool:
        files = sorted(
            pool.map(lambda each: described(storage.file_uri(table, each[0].path), each[0], checks, each[1]), live),
            key=lambda entry: entry[0],
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
        raise _unreadable(table, None, failure) from failure
    latest = _open(table, None).version()
    oldest = delta_log.oldest_version(table)
    if oldest <= version <= latest:
        raise _unreadable(table, version, failure) from failure
    why = "is not there yet" if version > latest else "is no version" if version < 0 else "is not kept any more"
    raise TableError(f"{table}: version {version} {why}; give one from {oldest} to {latest}") from None


def _unreadable(table: str, version: int | None, failure: Exception | None) -> TableError:
    """Return what deltalake cannot read in a table that is there, and what to do."""
    place = table if version is None else f"{table}: version {version}"
    # deltalake looks for values of partitions in the type that they have now; Spark for those of their former type too.
    if "Failed to parse value" in str(failure) and (widened := delta_log.widened_partition(table, version)):
        column, former, now = widened
        rows = f"delta.`{table}`"
        return TableError(
            f"{place}: partition column {column} was widened from {former} to {now}, and deltalake does not read the values "
            f"of before; run: INSERT OVERWRITE {rows} TABLE {rows}"
        )
    return TableError(f"{place}{':' if version is None else ''} cannot be read: {_one_line(failure)}")


def _one_line(error: Exception | None) -> str:
    return " ".join(str(error).split())[:300]


def _live_files(delta: DeltaTable, table: str) -> list[tuple[DataFile, int | None]]:
    """Return the files of the version, each with its partition and deleted rows, and the number of all rows if known."""
    actions = pa.table(delta.get_add_actions(flatten=True))
    names = [name for name in actions.column_names if name.startswith("partition.")]
    partitions = {name.removeprefix("partition."): _texts(actions.column(name)) for name in names}
    deleted = _deleted_rows(delta, table, actions.column("path").to_pylist())
    counts = actions.column("num_records").to_pylist() if "num_records" in actions.column_names else []
    files = []
    for index, (path, size) in enumerate(zip(*map(actions.column, ("path", "size_bytes")), strict=True)):
        name = delta_log.plain_path(path.as_py())
        partition = {column: texts[index] for column, texts in partitions.items()}
        file = DataFile(name, size.as_py(), partition, (), deleted.pop(storage.file_uri(table, name), ""))
        files.append((file, counts[index] if counts else None))
    if deleted:
        raise TableError(
            f"{table}: deleted rows of {min(deleted)} cannot be assigned to a live file; "
            f"run: REORG TABLE delta.`{table}` APPLY (PURGE)"
        )
    return files


def _deleted_rows(delta: DeltaTable, table: str, live: Sequence[str]) -> dict[str, str]:
    """Return URI -> packed mask of the deleted rows, for the files that have any.

    Args:
        delta: the table.
        table: its URI.
        live: paths of its files as the log spells them.
    """
    if "deletionVectors" not in (delta.protocol().reader_features or ()):
        return {}
    try:
        batches = delta.deletion_vectors()
    except DeltaError as error:  # deltalake does not look for them in tables with type widening
        if not delta_log.has_deleted_rows(table, delta.version(), live):
            return {}
        raise TableError(
            f"{table}: rows of version {delta.version()} are deleted by vectors that deltalake does not read in such a "
            f"table ({_one_line(error)}); run: REORG TABLE delta.`{table}` APPLY (PURGE)"
        ) from error
    packed = {}
    for batch in batches:
        for uri, keeps in zip(*(pa.record_batch(batch).column(index) for index in (0, 1)), strict=True):
            rows = pack_rows(~np.asarray(keeps.values.to_numpy(zero_copy_only=False), dtype=np.bool_))
            name = delta_log.plain_path(uri.as_py())
            packed[f"s3a:{name.removeprefix('s3:')}" if table.startswith("s3a:") else name] = rows
    return packed


def _texts(values: pa.ChunkedArray) -> list[str | None]:
    """Return partition values as texts that `partition_value` reads: dates and times in ISO form, true and false."""
    kind = values.type
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):  # not as Python's, which end with the year 9999
        is_date = pa.types.is_date(kind)
        whole = values.cast(pa.int32() if is_date else pa.int64()).fill_null(0).to_numpy().astype(np.int64)
        texts = whole.view(f"datetime64[{'D' if is_date else kind.unit}]").astype(str).tolist()
        return [text if is_valid else None for text, is_valid in zip(texts, values.is_valid().to_pylist(), strict=True)]
    return [None if value is None else _text(value) for value in values.to_pylist()]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, bytes):
        return value.decode()
    return f"{value:f}" if isinstance(value, Decimal) else str(value)
