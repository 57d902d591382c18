"""The live files of one table version, as a file: what ranks read, without Spark and without asking the table again."""

import base64
import hashlib
import json
import posixpath
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from functools import cached_property
from typing import Any, NamedTuple, overload
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError
from numpy.typing import NDArray
from pyarrow import parquet as pq

from mlspark import storage
from mlspark.errors import DatasetError, TableError
from mlspark.streaming.filters import Condition, Conditions, conditions
from mlspark.streaming.schema import TableColumn, table_columns

_READABLE_FEATURES = {
    "appendOnly", "catalogOwned-preview", "checkConstraints", "columnMapping", "deletionVectors", "domainMetadata",
    "generatedColumns", "identityColumns", "inCommitTimestamp", "invariants", "timestampNtz", "typeWidening",
    "typeWidening-preview", "v2Checkpoint", "vacuumProtocolCheck",
}  # fmt: skip
_RANDOM_NAME = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")
_COLUMNS_OF_KEY = 16


@dataclass(frozen=True)
class DataFile:
    """One live Parquet file of the table."""

    path: str
    """URI of the file, or its path relative to the table."""
    size_bytes: int
    partition: Mapping[str, str | None]
    """Partition column -> value; these columns are not in the file."""
    row_groups: tuple[int, ...]
    """Rows to stream of each row group: without those deleted, 0 where a filter leaves the row group out."""
    deleted: str = ""
    """Rows of the file that are deleted, as `pack_rows` writes them; empty: none."""


class RowGroup(NamedTuple):
    """Where one row group is; small enough to send to another process."""

    uri: str
    number: int
    """Number of the row group in the file."""
    rows: int
    """Rows of the row group that are not deleted."""
    size_bytes: int
    """Size of the whole file; with the URI its identity."""
    partition: Mapping[str, str | None]
    deleted: str
    """Deleted rows, as in DataFile."""


class RowGroups(Sequence[RowGroup]):
    """The row groups of a snapshot in its order; made when asked for, so that millions take no memory."""

    def __init__(self, snapshot: "Snapshot") -> None:
        self._snapshot = snapshot
        self._ends = np.cumsum([len(file.row_groups) for file in snapshot.files], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    @overload
    def __getitem__(self, place: int) -> RowGroup: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[RowGroup]: ...
    def __getitem__(self, place: int | slice) -> RowGroup | Sequence[RowGroup]:
        if isinstance(place, slice):
            return [self[index] for index in range(*place.indices(len(self)))]
        if not 0 <= place < len(self):
            raise IndexError(place)
        number = int(np.searchsorted(self._ends, place, side="right"))
        file = self._snapshot.files[number]
        index = place - int(self._ends[number]) + len(file.row_groups)
        return RowGroup(
            self._snapshot.uri(file), index, file.row_groups[index], file.size_bytes, file.partition, file.deleted
        )


@dataclass(frozen=True)
class Snapshot:
    """The files of one Delta version, or those of some partitions of it."""

    table: str
    """URI of the table."""
    version: int
    schema: Mapping[str, Any]
    """Delta's own schema, as JSON."""
    files: tuple[DataFile, ...]
    """Files, in the order in which every plan counts the rows."""
    is_mapped_by_id: bool = field(default=False, kw_only=True)
    """Whether the files' columns are matched by id (delta.columnMapping.mode = id)."""

    @property
    def num_rows(self) -> int:
        return sum(sum(file.row_groups) for file in self.files)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over version, schema and files: equal fingerprints stream equal rows in equal order."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()

    @cached_property
    def columns(self) -> dict[str, TableColumn]:
        """The table's columns by name; empty when the snapshot has no schema."""
        return table_columns(self.schema, is_mapped_by_id=self.is_mapped_by_id)

    def rows_per_group(self) -> NDArray[np.int64]:
        """Return the rows of each row group, files in order: shape (row groups,)."""
        return np.array([rows for file in self.files for rows in file.row_groups], dtype=np.int64)

    def row_group_items(self) -> RowGroups:
        """Return where each row group is, in the order of `rows_per_group`."""
        return RowGroups(self)

    def uri(self, file: DataFile) -> str:
        """Return the absolute URI of a data file."""
        return file.path if "://" in file.path else storage.join(self.table, file.path)

    def where(self, **partition: str) -> "Snapshot":
        """Return the snapshot of those files whose partition columns have the given values; possibly none."""
        kept = [
            file for file in self.files if all(file.partition.get(name) == value for name, value in partition.items())
        ]
        return replace(self, files=tuple(kept))

    def to_json(self) -> dict[str, Any]:
        return {
            "table": self.table,
            "version": self.version,
            "schema": self.schema,
            "is_mapped_by_id": self.is_mapped_by_id,
            "files": [
                {
                    "path": file.path,
                    "size_bytes": file.size_bytes,
                    "partition": dict(file.partition),
                    "row_groups": list(file.row_groups),
                }
                | ({"deleted": file.deleted} if file.deleted else {})
                for file in self.files
            ],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Snapshot":
        files = tuple(
            DataFile(
                file["path"],
                file["size_bytes"],
                file["partition"],
                tuple(file["row_groups"]),
                file.get("deleted", ""),
            )
            for file in value["files"]
        )
        return cls(
            value["table"],
            value["version"],
            value["schema"],
            files,
            is_mapped_by_id=value.get("is_mapped_by_id", False),
        )

    def save(self, uri: str) -> None:
        storage.write_json(uri, self.to_json())

    @classmethod
    def load(cls, uri: str) -> "Snapshot":
        return cls.from_json(storage.read_json(uri))


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
        return _data_file(uri, DataFile(path, size, partition, ()), deleted.get(path, ""), checks)

    with ThreadPoolExecutor(threads) as pool:
        files = sorted(pool.map(describe, live), key=lambda described: described[0])
    return Snapshot(table, delta.version(), schema, tuple(file for _, file in files), is_mapped_by_id=is_mapped_by_id)


def pack_rows(rows: NDArray[np.bool_]) -> str:
    """Return a mask over the rows of a file as text, short where the mask is regular."""
    return base64.b64encode(zlib.compress(np.packbits(rows).tobytes())).decode()


def unpack_rows(packed: str, num_rows: int) -> NDArray[np.bool_]:
    """Return the mask that `pack_rows` wrote: shape (num_rows,)."""
    bits = np.frombuffer(zlib.decompress(base64.b64decode(packed)), np.uint8)
    # Not unpackbits(count=num_rows): beyond the bits of an empty array it leaves whatever was in memory (numpy 2.4).
    rows = np.zeros(num_rows, np.bool_)
    known = np.unpackbits(bits)[:num_rows]
    rows[: len(known)] = known
    return rows


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


def _data_file(uri: str, file: DataFile, deleted: str, checks: Conditions) -> tuple[tuple[Any, ...], DataFile]:
    """Return (key to sort by, the file with its row groups) from the file's footer."""
    filesystem, location = storage.filesystem(uri)
    try:
        footer = pq.read_metadata(location, filesystem=filesystem)
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(f"{uri}: the footer of this live file cannot be read: {error}") from error
    rows = np.array([footer.row_group(index).num_rows for index in range(footer.num_row_groups)], dtype=np.int64)
    if deleted:
        starts = np.cumsum(rows) - rows
        mask = unpack_rows(deleted, int(rows.sum()))
        rows = np.array(
            [count - mask[start : start + count].sum() for start, count in zip(starts, rows, strict=True)], np.int64
        )
    if checks.on_rows:
        for index in range(footer.num_row_groups):
            if not checks.may_hold_in(footer.row_group(index), uri):
                rows[index] = 0
    described = replace(file, row_groups=tuple(rows.tolist()), deleted=deleted)
    partition = tuple((name, value is None, value or "") for name, value in sorted(file.partition.items()))
    name = _RANDOM_NAME.sub("", posixpath.basename(file.path))
    return (partition, name, described.row_groups, file.size_bytes, _statistics(footer), file.path), described


def _statistics(footer: pq.FileMetaData) -> str:
    """Return a text of the first columns' statistics: tells files apart that differ in nothing else but rows."""
    if not footer.num_row_groups:
        return ""
    group = footer.row_group(0)
    columns = [group.column(index).statistics for index in range(min(_COLUMNS_OF_KEY, group.num_columns))]
    return repr([(column.min, column.max) for column in columns if column is not None and column.has_min_max])
