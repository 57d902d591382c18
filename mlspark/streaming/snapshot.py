"""The live files of one table version, as a file: what ranks read, without Spark and without asking the table again."""

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError
from numpy.typing import NDArray
from pyarrow import parquet as pq

from mlspark import storage
from mlspark.errors import DatasetError, TableError

_UNREADABLE_FEATURES = {
    "deletionVectors": "ALTER TABLE delta.`{table}` DROP FEATURE deletionVectors",
    "columnMapping": "ALTER TABLE delta.`{table}` DROP FEATURE columnMapping",
}


@dataclass(frozen=True)
class DataFile:
    """One live Parquet file of the table."""

    path: str
    """URI, or path relative to the table."""
    size_bytes: int
    partition: Mapping[str, str | None]
    """Partition column -> value; these columns are not in the file."""
    row_groups: tuple[int, ...]
    """Rows of each row group."""


@dataclass(frozen=True)
class Snapshot:
    """The files of one Delta version, or those of some partitions of it."""

    table: str
    """URI of the table."""
    version: int
    schema: Mapping[str, Any]
    """Delta's own schema, as JSON."""
    files: tuple[DataFile, ...]
    """Sorted by path: the order in which every plan counts the rows."""

    @property
    def num_rows(self) -> int:
        return sum(sum(file.row_groups) for file in self.files)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over version, schema and files: equal fingerprints stream equal rows in equal order."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()

    def rows_per_group(self) -> NDArray[np.int64]:
        """Return the rows of each row group, files in order: shape (row groups,)."""
        return np.array([rows for file in self.files for rows in file.row_groups], dtype=np.int64)

    def row_group_items(self) -> list[dict[str, Any]]:
        """Return where each row group is, in the order of `rows_per_group`: {"uri", "row_group", "partition"}."""
        return [
            {"uri": self.uri(file), "row_group": index, "partition": file.partition}
            for file in self.files
            for index in range(len(file.row_groups))
        ]

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
            "files": [
                {
                    "path": file.path,
                    "size_bytes": file.size_bytes,
                    "partition": dict(file.partition),
                    "row_groups": list(file.row_groups),
                }
                for file in self.files
            ],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Snapshot":
        files = tuple(
            DataFile(file["path"], file["size_bytes"], file["partition"], tuple(file["row_groups"]))
            for file in value["files"]
        )
        return cls(value["table"], value["version"], value["schema"], files)

    def save(self, uri: str) -> None:
        storage.write_json(uri, self.to_json())

    @classmethod
    def load(cls, uri: str) -> "Snapshot":
        return cls.from_json(storage.read_json(uri))


def take(table: str, *, version: int | None = None, threads: int = 8) -> Snapshot:
    """Return the snapshot of `table` at `version` (None: the latest). Needs no Spark; reads each file's footer once.

    Raises:
        TableError: no such table or version, or a table feature that cannot be read, with the command that removes it.
    """
    try:
        delta = DeltaTable(storage.rust_uri(table), version=version)
    except TableNotFoundError:
        raise TableError(f"{table}: no Delta table here; run prepare first or check storage.root") from None
    except DeltaError as error:
        raise TableError(f"{table}: version {version} cannot be read: {error}") from error
    for feature in delta.protocol().reader_features or ():
        if feature in _UNREADABLE_FEATURES:
            remedy = _UNREADABLE_FEATURES[feature].format(table=table)
            raise TableError(
                f"{table}: version {delta.version()} uses {feature}, which cannot be streamed; run: {remedy}"
            )
    actions = pa.table(delta.get_add_actions(flatten=True)).to_pylist()
    with ThreadPoolExecutor(threads) as pool:
        files = list(pool.map(lambda action: _data_file(table, action), actions))
    schema = json.loads(delta.schema().to_json())
    return Snapshot(table, delta.version(), schema, tuple(sorted(files, key=lambda file: file.path)))


def _data_file(table: str, action: Mapping[str, Any]) -> DataFile:
    path = unquote(action["path"])
    uri = path if "://" in path else storage.join(table, path)
    filesystem, location = storage.filesystem(uri)
    try:
        metadata = pq.read_metadata(location, filesystem=filesystem)
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(f"{uri}: the footer of this live file cannot be read: {error}") from error
    partition = {
        name.removeprefix("partition."): None if value is None else str(value)
        for name, value in action.items()
        if name.startswith("partition.")
    }
    rows = tuple(metadata.row_group(index).num_rows for index in range(metadata.num_row_groups))
    return DataFile(path, action["size_bytes"], partition, tuple(count for count in rows))
