"""The live files of one table version, as a file: what ranks read, without Spark and without asking the table again."""

import base64
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from mlspark import storage
from mlspark.errors import DamagedFile, DatasetError
from mlspark.streaming.schema import TableColumn, table_columns

PLAIN_FILES = -1
"""In place of a version: plain Parquet files, whose version is the snapshot's fingerprint."""


@dataclass(frozen=True)
class DataFile:
    """One live Parquet file of the table."""

    path: str
    """URI of the file, or its path relative to the table."""
    size_bytes: int
    partition: Mapping[str, str | None]
    """Partition column -> value; these columns are not in the file."""
    row_groups: tuple[int, ...]
    """Rows to stream of each row group: without those that are left out."""
    left_out: str = ""
    """Rows of the file that are deleted or for which a condition fails, as `pack_rows` writes them; empty: none."""
    mark: str = ""
    """What tells the file from a changed one, as `file_identity.mark` writes it; empty: a file of a table never changes."""


class RowGroup(NamedTuple):
    """Where one row group is; small enough to send to another process."""

    uri: str
    number: int
    """Number of the row group in the file."""
    rows: int
    """Rows of the row group to stream."""
    size_bytes: int
    """Size of the whole file; with the URI its identity."""
    partition: Mapping[str, str | None]
    left_out: str
    """Rows of the file that are left out, as in DataFile."""
    mark: str
    """What tells the file from a changed one, as in DataFile."""


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
            self._snapshot.uri(file),
            index,
            file.row_groups[index],
            file.size_bytes,
            file.partition,
            file.left_out,
            file.mark,
        )


@dataclass(frozen=True)
class Snapshot:
    """The files of one Delta version, or those of some partitions of it; or plain Parquet files as they were."""

    table: str
    """URI of the table."""
    version: int
    """Version of the table; PLAIN_FILES: there is no table."""
    schema: Mapping[str, Any]
    """Delta's own schema, as JSON."""
    files: tuple[DataFile, ...]
    """Files, in the order in which every plan counts the rows."""
    is_mapped_by_id: bool = field(default=False, kw_only=True)
    """Whether the files' columns are matched by id (delta.columnMapping.mode = id)."""
    table_id: str = field(default="", kw_only=True)
    """Id that the table has wherever it lies; empty: its URI is all that tells it from others."""
    conditions: tuple[str, ...] = field(default=(), kw_only=True)
    """What left rows and files out, as it was written."""

    @property
    def num_rows(self) -> int:
        return sum(sum(file.row_groups) for file in self.files)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over table, version, schema, files and rows left out: equal ones stream equal rows in equal order.

        The path by which a table with an id was opened does not count, nor do the words of conditions.
        """
        about = self.to_json()
        del about["conditions"]
        if self.table_id:
            del about["table"]
        return storage.digest(about)

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
        return storage.file_uri(self.table, file.path)

    def where(self, **partition: str) -> "Snapshot":
        """Return the snapshot of those files whose partition columns have the given values; possibly none."""
        kept = [
            file for file in self.files if all(file.partition.get(name) == value for name, value in partition.items())
        ]
        texts = tuple(f"{name} = {value!r}" for name, value in partition.items())
        return replace(self, files=tuple(kept), conditions=self.conditions + texts)

    def refuse_no_rows(self) -> None:
        """Raise DatasetError where there is no row to stream; names table and conditions."""
        if self.num_rows:
            return
        rows, have, remedy = f"version {self.version}", "has", ", or open another version"
        if self.version == PLAIN_FILES:
            rows, have, remedy = "the files", "have", ""
        if not self.conditions:
            raise DatasetError(f"{self.table}: {rows} {have} no rows; write some{remedy}")
        raise DatasetError(
            f"{self.table}: no row of {rows} satisfies {' and '.join(self.conditions)}; change the condition{remedy}"
        )

    def about(self) -> dict[str, Any]:
        """Return in a few words what is streamed, for people: {"table", "table_id", "version", "conditions"}."""
        return {
            "table": self.table,
            "table_id": self.table_id,
            "version": self.version,
            "conditions": list(self.conditions),
        }

    def other_than_this(self, other: Mapping[str, Any]) -> str:
        """Return how another snapshot, which `about` describes, differs from this one, and how to open it."""
        mine, remedies = self.about(), []
        same_table = (
            other.get("table_id" if self.table_id else "table") == mine["table_id" if self.table_id else "table"]
        )
        if other and not same_table:
            remedies.append(f"table {other['table']}")
        if other and (not same_table or other["version"] != mine["version"]):
            remedies.append(f"version={other['version']}")
        if other and other["conditions"] != mine["conditions"]:
            remedies.append(f"where {' and '.join(other['conditions'])}" if other["conditions"] else "no condition")
        if not remedies:
            return f"other rows than those of {_words(mine)}, whose files were changed since; begin anew"
        return (
            f"{_words(other)}, and this stream is of {_words(mine)}; open it with {', '.join(remedies)}, or begin anew"
        )

    def to_json(self) -> dict[str, Any]:
        return {
            **self.about(),
            "schema": self.schema,
            "is_mapped_by_id": self.is_mapped_by_id,
            "files": [
                {
                    "path": file.path,
                    "size_bytes": file.size_bytes,
                    "partition": dict(file.partition),
                    "row_groups": list(file.row_groups),
                }
                | ({"left_out": file.left_out} if file.left_out else {})
                | ({"mark": file.mark} if file.mark else {})
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
                file.get("left_out", ""),
                file.get("mark", ""),
            )
            for file in value["files"]
        )
        return cls(
            value["table"],
            value["version"],
            value["schema"],
            files,
            is_mapped_by_id=value.get("is_mapped_by_id", False),
            table_id=value.get("table_id", ""),
            conditions=tuple(value.get("conditions", ())),
        )

    def save(self, uri: str) -> None:
        storage.write_sealed(uri, self.to_json())

    @classmethod
    def load(cls, uri: str) -> "Snapshot":
        """Return the snapshot that `save` wrote.

        Raises:
            DatasetError: the file is absent, or not what was written; names it.
        """
        try:
            return cls.from_json(storage.read_sealed(uri))
        except FileNotFoundError:
            raise DatasetError(f"{uri}: no snapshot here; take the snapshot anew") from None
        except DamagedFile as error:
            raise DatasetError(f"{error}; take the snapshot anew, or train in another folder") from error


def _words(about: Mapping[str, Any]) -> str:
    conditions = f" where {' and '.join(about['conditions'])}" if about["conditions"] else ""
    rows = "the files" if about["version"] == PLAIN_FILES else f"version {about['version']}"
    return f"{rows} of {about['table']}{conditions}"


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
