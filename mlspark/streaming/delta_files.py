"""The live files of a version of a Delta table, as a snapshot. Needs no Spark."""

import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from mlspark import storage
from mlspark.errors import TableError
from mlspark.streaming.filters import Condition, conditions
from mlspark.streaming.footers import described
from mlspark.streaming.schema import table_columns
from mlspark.streaming.snapshot import DataFile, Snapshot, pack_rows

_READABLE_FEATURES = {
    "appendOnly", "catalogOwned-preview", "checkConstraints", "columnMapping", "deletionVectors", "domainMetadata",
    "generatedColumns", "identityColumns", "inCommitTimestamp", "invariants", "timestampNtz", "typeWidening",
    "typeWidening-preview", "v2Checkpoint", "vacuumProtocolCheck",
}  # fmt: skip


def take(table: str, *, version: int | None = None, where: Iterable[Condition] = (), threads: int = 16) -> Snapshot:
    """Return the snapshot of `table` at `version` (None: the latest). Needs no Spark; reads each file's footer once.

    The order of the files follows from partitions, the writer's numbering, sizes and statistics; not from the random part
    of their names, so the same rows written again the same way are streamed in the same order.

    Args:
        table: URI of a Delta table.
        version: of the table.
        where: (column, operator, value), all of which hold; operators =, !=, <, <=, >, >=, in. On partition columns
            exact. On others whole row groups are left out whose statistics show that no row satisfies it: the rest is
            streamed whole, with rows that do not.
        threads: footers read at a time.

    Raises:
        TableError: no such table or version, or a table feature that cannot be read, with the command that removes it.
        DatasetError: a footer cannot be read; a condition names no column or has another type.
    """
    try:
        delta = DeltaTable(storage.rust_uri(table), version=version)
    except TableNotFoundError:
        raise TableError(f"{table}: no Delta table here; run prepare first or check storage.root") from None
    except DeltaError as error:
        raise TableError(f"{table}: version {version} cannot be read: {error}") from error
    for feature in delta.protocol().reader_features or ():
        if feature not in _READABLE_FEATURES:
            raise TableError(
                f"{table}: version {delta.version()} uses {feature}, which cannot be streamed; "
                f"run: ALTER TABLE delta.`{table}` DROP FEATURE {feature}"
            )
    about, schema = delta.metadata(), json.loads(delta.schema().to_json())
    is_mapped_by_id = about.configuration.get("delta.columnMapping.mode") == "id"
    checks = conditions(
        where, table_columns(schema, is_mapped_by_id=is_mapped_by_id), set(about.partition_columns), table
    )
    actions = pa.table(delta.get_add_actions(flatten=True))
    wanted = [name for name in actions.column_names if name in ("path", "size_bytes") or name.startswith("partition.")]
    live = [
        (unquote(action["path"]), action["size_bytes"], _partition(action))
        for action in actions.select(wanted).to_pylist()
    ]
    deleted = _deleted_rows(delta)
    astray = deleted.keys() - {path for path, _, _ in live}
    if astray:
        raise TableError(
            f"{table}: deleted rows of {min(astray)} cannot be assigned to a live file; "
            f"run: REORG TABLE delta.`{table}` APPLY (PURGE)"
        )
    live = [(path, size, partition) for path, size, partition in live if checks.hold_in_partition(partition)]

    def describe(entry: tuple[str, int, dict[str, str | None]]) -> tuple[tuple[Any, ...], DataFile]:
        path, size, partition = entry
        uri = path if "://" in path else storage.join(table, path)
        return described(uri, DataFile(path, size, partition, ()), deleted.get(path, ""), checks)

    with ThreadPoolExecutor(threads) as pool:
        files = sorted(pool.map(describe, live), key=lambda entry: entry[0])
    return Snapshot(table, delta.version(), schema, tuple(file for _, file in files), is_mapped_by_id=is_mapped_by_id)


def _deleted_rows(delta: DeltaTable) -> dict[str, str]:
    """Return path -> packed mask of the deleted rows, for the files that have any."""
    if "deletionVectors" not in (delta.protocol().reader_features or ()):
        return {}
    root = delta.table_uri.rstrip("/") + "/"
    packed = {}
    for batch in delta.deletion_vectors():
        for uri, keeps in zip(*(pa.record_batch(batch).column(index) for index in (0, 1)), strict=True):
            path = unquote(uri.as_py()).removeprefix("file://").removeprefix(unquote(root).removeprefix("file://"))
            packed[path] = pack_rows(~np.asarray(keeps.values.to_numpy(zero_copy_only=False), dtype=np.bool_))
    return packed


def _partition(action: Mapping[str, Any]) -> dict[str, str | None]:
    """Return an action's partition values as text: dates and timestamps in ISO form, true and false."""
    values = {name.removeprefix("partition."): value for name, value in action.items() if name.startswith("partition.")}
    return {name: None if value is None else _text(value) for name, value in values.items()}


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime):
        return value.isoformat(sep=" ")
    return value.isoformat() if isinstance(value, date) else str(value)
