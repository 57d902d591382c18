"""What a Delta table's log says that deltalake does not: its versions, files with deleted rows, widened partitions."""

import json
import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa
from pyarrow import parquet as pq

from mlspark import storage

_CHECKPOINT = re.compile(r"(\d{20})\.checkpoint\..*(?:parquet|json)")
_COMMIT = re.compile(r"(\d{20})\.json")
_ADDED = ["add.path", "add.deletionVector.storageType"]


def oldest_version(table: str) -> int:
    """Return the oldest version that the log still tells in full: from its first commit, or from a checkpoint on."""
    names = _names(table)
    return 0 if f"{0:020}.json" in names else min(_versions(names, _CHECKPOINT), default=0)


def plain_path(path: str) -> str:
    """Return a path of the log as it names the file: relative to the table, absolute on a local disk, or a URI."""
    if path.startswith("file:/"):
        return unquote(urlsplit(path).path)
    return unquote(path)


def has_deleted_rows(table: str, version: int, live: Iterable[str]) -> bool:
    """Return whether a live file of the version has a deletion vector.

    Args:
        table: URI of the table.
        version: of the table.
        live: paths of the live files, as the log spells them.
    """
    names = _names(table)
    base = max((number for number in _versions(names, _CHECKPOINT) if number <= version), default=-1)
    deleted: dict[str, bool] = {}
    for name in names:
        if _CHECKPOINT.fullmatch(name) and int(name[:20]) == base:
            deleted |= _in_checkpoint(table, name)
    for number in range(base + 1, version + 1):
        for line in storage.read_bytes(_uri(table, f"{number:020}.json")).splitlines():
            if added := json.loads(line).get("add"):
                deleted[added["path"]] = bool(added.get("deletionVector"))
    return any(deleted.get(path) for path in live)


def widened_partition(table: str, version: int | None) -> tuple[str, str, str] | None:
    """Return (column, former type, type) of the first partition column that was widened.

    None where there is none, or where the last change of the schema is older than the commits that the log keeps.

    Args:
        table: URI of the table.
        version: of the table; None: the latest.
    """
    names = _names(table)
    commits = _versions(names, _COMMIT)
    for number in sorted((number for number in commits if version is None or number <= version), reverse=True):
        name = f"{number:020}.json"
        for line in storage.read_bytes(_uri(table, name)).splitlines():
            if about := json.loads(line).get("metaData"):
                partitions = set(about["partitionColumns"])
                for field in json.loads(about["schemaString"])["fields"]:
                    changes = field["metadata"].get("delta.typeChanges")
                    if changes and field["name"] in partitions:
                        return field["name"], changes[0]["fromType"], field["type"]
                return None
    return None


def _in_checkpoint(table: str, name: str) -> dict[str, bool]:
    """Return for the files of a checkpoint whether they have a deletion vector; with those of its sidecars."""
    uri = _uri(table, name)
    if name.endswith(".json"):
        actions = [json.loads(line) for line in storage.read_bytes(uri).splitlines()]
        sidecars = [action["sidecar"]["path"] for action in actions if "sidecar" in action]
        added = [action["add"] for action in actions if "add" in action]
    else:
        filesystem, path = storage.filesystem(uri)
        columns = {name.split(".")[0] for name in pq.read_schema(path, filesystem=filesystem).names}
        wanted = [*(_ADDED if "add" in columns else ()), *(["sidecar.path"] if "sidecar" in columns else ())]
        rows: pa.Table = pq.read_table(path, filesystem=filesystem, columns=wanted, partitioning=None)
        sidecars = [each["path"] for each in _present(rows, "sidecar")]
        added = _present(rows, "add")
    deleted = {each["path"]: bool((each.get("deletionVector") or {}).get("storageType")) for each in added}
    for sidecar in sidecars:
        deleted |= _in_checkpoint(table, f"_sidecars/{sidecar}")
    return deleted


def _present(rows: pa.Table, name: str) -> list[dict[str, Any]]:
    return [row for row in rows.column(name).to_pylist() if row] if name in rows.column_names else []


def _names(table: str) -> list[str]:
    return [uri.rsplit("/", 1)[-1] for uri in storage.list_files(storage.join(table, "_delta_log"))]


def _versions(names: Iterable[str], pattern: re.Pattern[str]) -> list[int]:
    return [int(match[1]) for name in names if (match := pattern.fullmatch(name))]


def _uri(table: str, name: str) -> str:
    return storage.join(table, "_delta_log", name)
