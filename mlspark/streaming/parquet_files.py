"""Plain Parquet files, of a folder, a glob or a path, as a snapshot. Needs no Spark."""

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from fnmatch import fnmatchcase
from itertools import pairwise
from typing import Any
from urllib.parse import unquote

from pyarrow import fs
from pyarrow import parquet as pq

from mlspark import storage
from mlspark.errors import DatasetError, TableError
from mlspark.streaming.file_identity import mark, read_footer
from mlspark.streaming.filters import Condition, conditions, partition_value
from mlspark.streaming.footers import described
from mlspark.streaming.parquet_schema import merged
from mlspark.streaming.schema import TableColumn, table_columns
from mlspark.streaming.snapshot import PLAIN_FILES, DataFile, Snapshot

_GLOB = re.compile(r"[*?\[]")
_LOG = "_delta_log"
_NULL = "__HIVE_DEFAULT_PARTITION__"
_INTEGER, _DATE = re.compile(r"0|-?[1-9]\d{0,18}"), re.compile(r"\d{4}-\d\d-\d\d")


@dataclass(frozen=True)
class _File:
    """A listed file and its footer."""

    path: str
    """Path below the folder where the files are."""
    info: fs.FileInfo
    footer: pq.FileMetaData
    mark: str
    partition: Mapping[str, str | None]
    """Partition column -> value, by the names of its folders."""


def take(source: str, *, where: Iterable[Condition] = (), threads: int = 16) -> Snapshot:
    """Return the snapshot of the Parquet files that `source` names, as they are now.

    Their sizes, times of change and footers are the version: `fingerprint` tells it from others, and a file that is
    another one when it is streamed is an error. Columns are those of all files, null where a file lacks one.

    Args:
        source: URI of a file, of a folder with files at any depth, or a glob of files or folders (* ? [] within a name, **
            for any folders). Folders called key=value below the part without a pattern are partition columns, whose types
            follow from their values: integer, long, date or string. Names that begin with "_" or "." are left out.
        where: as for `delta_files.take`.
        threads: files looked at at a time.

    Raises:
        TableError: no such files, or they are those of a Delta table.
        DatasetError: a file is no Parquet file; files do not fit together; a condition does not fit.
        StorageError: a link leads to a folder that it is in.
    """
    base, listed = _listed(storage.absolute(source))

    def with_footer(path: str, info: fs.FileInfo) -> _File:
        footer, stored = read_footer(storage.file_uri(base, path))
        return _File(path, info, footer, mark(info, stored), _partition(path))

    with ThreadPoolExecutor(threads) as pool:
        files = list(pool.map(with_footer, *zip(*sorted(listed.items()), strict=True)))
        schema = merged({storage.file_uri(base, file.path): file.footer for file in files})
        partition_types = _partition_types(files, base)
        names = {field["name"] for field in schema["fields"]}
        schema["fields"] += [
            {"name": name, "type": kind, "nullable": True, "metadata": {}}
            for name, kind in partition_types.items()
            if name not in names
        ]
        columns = table_columns(schema)
        for file in files:
            _refuse_other_values(file, base, columns)
        checks = conditions(where, columns, set(partition_types), source)
        kept = [
            DataFile(file.path, file.info.size, file.partition, (), mark=file.mark)
            for file in files
            if checks.hold_in_partition(file.partition)
        ]
        in_order = sorted(
            pool.map(lambda file: described(storage.file_uri(base, file.path), file, checks), kept),
            key=lambda entry: entry[0],
        )
    return Snapshot(base, PLAIN_FILES, schema, tuple(file for _, file in in_order), conditions=checks.texts)


def _listed(source: str) -> tuple[str, dict[str, fs.FileInfo]]:
    """Return (folder, path below it -> file) of the files that `source` names."""
    filesystem, path = storage.filesystem(source)
    kind = filesystem.get_file_info(path).type
    pattern: list[str] = []
    if kind == fs.FileType.File:
        base, name = posixpath.split(source)
        pattern = [name.replace("[", "[[]").replace("*", "[*]").replace("?", "[?]")]
    elif kind == fs.FileType.Directory:
        base = source
    else:
        names = source.split("/")
        first = next((number for number, name in enumerate(names) if _GLOB.search(name)), None)
        if first is None:
            raise TableError(f"{source}: no Delta table and no Parquet files here; check the path")
        base, pattern = "/".join(names[:first]) or "/", names[first:]
    below = dict(_below(base, pattern, recursive=kind != fs.FileType.File))
    files = {
        name: info
        for name, info in below.items()
        if info.type == fs.FileType.File and _is_shown(name) and _matches(name.split("/"), pattern)
    }
    if not files:
        raise TableError(f"{source}: no Delta table and no Parquet files here; check the path")
    tables = {posixpath.dirname(name) for name in below if posixpath.basename(name) == _LOG}
    within = {folder for name in files for folder in _folders(name)} & tables
    table = storage.file_uri(base, min(within)) if within else _table_around(base)
    if table:
        raise TableError(
            f"{source}: {table.rstrip('/')} is a Delta table, whose folder has files of other versions too; open it by "
            f"that path"
        )
    return base, files


def _below(base: str, pattern: Sequence[str], *, recursive: bool) -> Iterator[tuple[str, fs.FileInfo]]:
    """Yield (path below it, what it is) of what a folder holds; on local disks only as deep as the pattern leads.

    Raises:
        StorageError: a link leads to a folder that it is in.
    """
    filesystem, root = storage.filesystem(base)
    root = root.rstrip("/")

    def leads_on(folder: str) -> bool:
        name = folder.removeprefix(root).lstrip("/")
        return recursive and _is_shown(name) and _may_lead_to(name.split("/"), pattern)

    # Elsewhere there are no links, and a request for each folder would take long.
    is_local = isinstance(filesystem, fs.LocalFileSystem)
    for folder in storage.local_folders(root or "/", leads_on) if is_local else [root or "/"]:
        for info in filesystem.get_file_info(
            fs.FileSelector(folder, recursive=recursive and not is_local, allow_not_found=True)
        ):
            yield info.path.removeprefix(root).lstrip("/"), info


def _may_lead_to(names: Sequence[str], pattern: Sequence[str]) -> bool:
    """Return whether a folder may hold a file that the pattern names, at any depth."""
    if not names or not pattern or pattern[0] == "**":
        return True
    return fnmatchcase(names[0], pattern[0]) and _may_lead_to(names[1:], pattern[1:])


def _folders(name: str) -> list[str]:
    """Return the folders in which a file is, as paths like its own."""
    parts = name.split("/")[:-1]
    return ["/".join(parts[:count]) for count in range(len(parts) + 1)]


def _table_around(folder: str) -> str:
    """Return the Delta table of which a folder, or a partition, is; empty: of none."""
    while not storage.exists(storage.join(folder, _LOG)):
        folder, _, name = folder.rpartition("/")
        if "=" not in name:
            return ""
    return folder


def _is_shown(name: str) -> bool:
    return not any(part.startswith(".") or (part.startswith("_") and "=" not in part) for part in name.split("/"))


def _matches(names: Sequence[str], pattern: Sequence[str]) -> bool:
    """Return whether a file is one that the pattern names, or in a folder that it names."""
    if not pattern:
        return True
    if pattern[0] == "**":
        return any(_matches(names[start:], pattern[1:]) for start in range(len(names)))
    return bool(names) and fnmatchcase(names[0], pattern[0]) and _matches(names[1:], pattern[1:])


def _partition(path: str) -> dict[str, str | None]:
    pairs = (folder.partition("=") for folder in path.split("/")[:-1] if "=" in folder)
    return {unquote(name): None if value == _NULL else unquote(value) for name, _, value in pairs}


def _partition_types(files: Sequence[_File], base: str) -> dict[str, str]:
    """Return partition column -> type, in the order of the folders."""
    for one, other in pairwise(files):
        if list(one.partition) != list(other.partition):
            raise DatasetError(
                f"{base}: {one.path} and {other.path} lie in folders of different partition columns "
                f"({', '.join(one.partition) or 'none'}; {', '.join(other.partition) or 'none'}); open one kind of them"
            )
    types = {}
    for name in files[0].partition:
        values = {text for file in files if (text := file.partition[name]) is not None}
        types[name] = _partition_type(values) if values else "string"
    return types


def _partition_type(values: Iterable[str]) -> str:
    """Return the type that says all that the values do, so that 007 is no 7."""
    if all(map(_INTEGER.fullmatch, values)):
        most = max(max(int(value), -int(value) - 1) for value in values)
        return "integer" if most < 2**31 else "long" if most < 2**63 else "string"
    return "date" if all(map(_is_date, values)) else "string"


def _is_date(value: str) -> bool:
    try:
        return bool(_DATE.fullmatch(value) and date.fromisoformat(value))
    except ValueError:
        return False


def _refuse_other_values(file: _File, base: str, columns: Mapping[str, TableColumn]) -> None:
    """Raise DatasetError where a file holds a column that its folder gives another value, or may do so."""
    for name, text in file.partition.items():
        for number in range(file.footer.num_row_groups):
            group = file.footer.row_group(number)
            stored = next(
                (group.column(leaf) for leaf in range(group.num_columns) if group.column(leaf).path_in_schema == name),
                None,
            )
            if stored is None or not group.num_rows:
                continue
            statistics, value = stored.statistics, partition_value(text, columns[name]).as_py()
            values: tuple[Any, ...] | None = None
            if statistics is not None and statistics.has_min_max and not statistics.null_count:
                values = (statistics.min, statistics.max)
            if values != (value, value):
                raise DatasetError(
                    f"{storage.file_uri(base, file.path)}: column {name} is in the file, with other values than its "
                    f"folder's {text!r}{'' if values else ' as far as its statistics say'}; rename the folders, or "
                    f"open one folder at a time"
                )
