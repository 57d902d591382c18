"""What every kind of source has: distinguishable parts, and failures that a person can read. Driver."""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from py4j.java_gateway import is_instance_of  # type: ignore[import-untyped]
from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]
from pyspark import SparkContext
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from mlspark import session, storage
from mlspark.contracts import free_sql, headers
from mlspark.contracts.contract import Contract
from mlspark.errors import SourceError, one_line, raised_by_worker
from mlspark.sources.settings import SourceSettings

STRICT = {"ignoreCorruptFiles": "false", "ignoreMissingFiles": "false"}
"""Options of every read of files: the session's own settings must not leave rows out in silence."""


@dataclass(frozen=True, slots=True)  # there may be a million
class Part:
    """What is read whole and taken once: a file, a partition, a table version, the result of a query."""

    name: str
    """URI of a file, path of a partition, or table."""
    state: str
    """Text that changes when the content does: size and time of change, table version, checksum."""
    size_bytes: int = 0
    """Size as stored; 0 where it is not known."""


@dataclass(frozen=True)
class Source:
    """A raw data set: where it is, and which state of it. A read returns the rows of its parts and no others."""

    uri: str
    settings: SourceSettings
    """Settings as configured, with the table version filled in where it was left open."""
    parts: tuple[Part, ...]
    rests_on: str = "sizes and times of change of the files"
    """What tells whether the source has changed, in words for reports."""

    @property
    def identity(self) -> dict[str, Any]:
        """What must be equal for two reads to return equal rows.

        {"uri", "kind", "rests_on", "num_parts", "size_bytes", "sha256" of the settings and of each part's name and state}.
        """
        sha256 = hashlib.sha256(json.dumps(self.settings.model_dump()).encode())
        for part in self.parts:  # one by one: the text of a million takes as much memory as they do
            sha256.update(json.dumps([part.name, part.state]).encode())
        return {
            "uri": self.uri,
            "kind": self.settings.kind,
            "rests_on": self.rests_on,
            "num_parts": len(self.parts),
            "size_bytes": sum(part.size_bytes for part in self.parts),
            "sha256": sha256.hexdigest(),
        }

    def with_parts(self, parts: tuple[Part, ...]) -> "Source":
        """Return the source restricted to some of its parts."""
        return replace(self, parts=parts)


def refuse_changed(before: Source, now: Source) -> None:
    """Raise SourceError, naming the parts, when parts that were read of a source are no longer what they were."""
    states = {part.name: part.state for part in now.parts}
    changed = sorted(part.name for part in before.parts if states.get(part.name) != part.state)
    if changed:
        raise SourceError(
            f"{before.uri}: changed while it was read ({', '.join(changed[:3])}); nothing was written. Run again"
        )


def absolute_uri(path: str, root: str) -> str:
    """Return the URI of a source's `path`, relative ones taken from `root` (sources.root)."""
    is_absolute = "://" in path or path.startswith(("/", "file:"))
    return storage.absolute(path if is_absolute else storage.join(root, path))


def named(column: str) -> Column:
    """Return a column of a source, whatever characters are in its name."""
    return F.col("`" + column.replace("`", "``") + "`")


def filtered(
    rows: DataFrame,
    settings: SourceSettings,
    contract: Contract,
    *,
    kept: Column | None = None,
    columns: Sequence[str] | None = None,
) -> DataFrame:
    """Return the rows that satisfy the source's filter, and those of `kept` whatever it says of them. Lazy.

    Args:
        rows: the source's own columns, not pruned or cast yet, so that Spark can push the filter down.
        settings: of the source.
        contract: what its columns are called elsewhere.
        kept: true for rows that are bad whatever the filter says.
        columns: those that the filter may name; all of them unless given.

    Raises:
        SourceError: the filter is no condition over these columns, or something else than a row's own values decides it.
    """
    if not settings.filter:
        return rows
    schema = StructType([field for field in rows.schema if columns is None or field.name in columns])
    names, text = schema.fieldNames(), settings.filter
    if answer := headers.in_filter(text, names, contract.names_by_header):
        raise SourceError(f"filter {text!r}: {answer}")
    try:
        free_sql.check(rows.sparkSession, text, schema)
    except ValueError as error:
        answer = headers.in_filter(text, names, contract.names_by_header, is_refused=True)
        why = answer or f"{error}; the source's columns are {', '.join(names)}"
        raise SourceError(f"filter {text!r}: {why}") from None
    condition = F.expr(settings.filter)
    return rows.where(condition if kept is None else kept | condition)


@contextmanager
def reading(what: str, *, is_only_reading: bool = False) -> Iterator[None]:
    """Turn Spark's failure to read `what` into a SourceError of one line that names the file and the cause.

    Wraps whatever runs a job that reads a source.

    Args:
        what: URI of the source.
        is_only_reading: True where nothing but the source can be at fault: every failure of Spark's is turned. Else those
            that are no failure to read, such as lost executors, pass as they are.
    """
    try:
        with session.unlogged():
            yield
    except (PySparkException, Py4JJavaError) as error:
        causes = _causes(error)
        cause = _reading_failure(causes)
        if cause is None and is_only_reading:
            cause = _shown(causes[-1])
        if cause is None:
            raise
        raise SourceError(f"{what}: {cause}") from error


def storage_failure(error: PySparkException | Py4JJavaError) -> str | None:
    """Return what a store said that did not take what Spark wrote; None for every other failure."""
    reported = (_NOT_TAKEN.search(f"{cause.name}: {cause.message}") for cause in reversed(_causes(error)))
    return next((one_line(line[0]) for line in reported if line is not None), None)


_NOT_TAKEN = re.compile(
    r"[^\n]*(?:No space left on device|Disk quota exceeded|Read-only file system|File too large|Permission denied"
    r"|Mkdirs failed to create|AccessControlException|AccessDenied)[^\n]*"
)


@dataclass(frozen=True)
class _Cause:
    """One Java exception of a chain."""

    name: str
    message: str
    condition: str = ""
    """Spark's name of the error: "FAILED_READ_FILE.NO_HINT"; empty for others."""
    sql_state: str = ""
    path: str = ""
    """File that Spark was reading."""
    sql: str = ""
    """Part of a text in SQL that failed."""


_REFUSED_BY_STORES = (
    "AccessControlException",
    "AccessDeniedException",
    "ChecksumException",
    "ConnectException",
    "EOFException",
    "FileNotFoundException",
    "HiveException",
    "MetaException",
    "NoSuchBucketException",
    "NoSuchFileException",
    "PSQLException",
    "TTransportException",
    "UnknownHostException",
    "UnsupportedFileSystemException",
    "ZipException",
)
_REFUSED_BY_SPARK = (
    "CANNOT_MERGE_SCHEMAS",
    "COLUMN_ALREADY_EXISTS",
    "FAILED_JDBC",
    "JDBC_EXTERNAL_ENGINE_SYNTAX_ERROR",
    "PARQUET_TYPE_ILLEGAL",
    "PATH_NOT_FOUND",
    "TABLE_OR_VIEW_NOT_FOUND",
    "UNABLE_TO_INFER_SCHEMA",
)
_SHOWN = 1000
REMEDY = "correct or remove it; nothing was written"


def _reading_failure(causes: list[_Cause]) -> str | None:
    """Return why a source cannot be read, or None when its reading is not what failed."""
    root = causes[-1]
    for cause in causes:
        if cause.name == "PythonException" and (told := raised_by_worker(SourceError, cause.message)):
            return one_line(told)
        if cause.condition.startswith("FAILED_READ_FILE"):
            if "CSV header" in root.message:
                return f"{cause.path}: {_spark_header_difference(root.message)}; {REMEDY}"
            shown = one_line(cause.message) if root is cause else _shown(root)
            return f"{'' if _plain(cause.path) in shown else cause.path + ': '}cannot be read: {shown}; {REMEDY}"
        if cause.name == "IllegalArgumentException" and cause.message.startswith("nanos >"):
            return (
                "cannot be read: a time before 1970 that is no whole second, in a file of ORC by another program than Java "
                "(pyarrow); write it as Parquet, or leave it out of the contract; nothing was written"
            )
        if cause.sql_state.startswith("22"):
            expression = f"{cause.sql!r}" if cause.sql else "a value cannot be computed, or an expression"
            return (
                f"{expression} (filter, or rule of the contract) fails on a row: {one_line(cause.message)}; "
                f"nothing was written"
            )
    for cause in causes:
        is_refused = cause.condition.startswith(_REFUSED_BY_SPARK) or cause.name.startswith("SQL")
        if is_refused or cause.name in _REFUSED_BY_STORES or cause.name.endswith("S3Exception"):
            # "Connection refused" alone does not say whose.
            reported = causes[-2] if root.name.startswith("Connect") and len(causes) > 1 else root
            return f"cannot be read: {_shown(reported)}; nothing was written"
    return None


def header_difference(header: str, expected: str) -> str:
    """Return that a file's header is not the first file's."""
    return f"its first line {header[:_SHOWN]!r} is not the first file's header {expected[:_SHOWN]!r}"


def _spark_header_difference(message: str) -> str:
    """Return what Spark's check of CSV headers says: it has a header of one column, the whole line."""
    headers = re.search(r"Header: (.*)\n\s*Schema: (.*)\n", message)
    if headers is None:
        return one_line(message)
    header, expected = (line.encode("latin-1", "replace").decode("utf-8", "replace") for line in headers.groups())
    return header_difference(header, expected)


def _shown(cause: _Cause) -> str:
    message = one_line(cause.message)
    if message in ("", "unknown", "null"):
        return cause.name
    return message if " " in message else f"{cause.name}: {message}"  # the name of a host alone says nothing


def _plain(path: str) -> str:
    return re.sub(r"^[a-z0-9]+:/*", "/", path)


def _causes(error: PySparkException | Py4JJavaError) -> list[_Cause]:
    """Return the Java exceptions behind a failure, the innermost last; Python's own error where there are none."""
    java = getattr(error, "java_exception", None) or getattr(error, "_origin", None)
    if java is None:
        return [_Cause(type(error).__name__, str(error))]
    context = SparkContext._active_spark_context
    causes: list[_Cause] = []
    while java is not None and len(causes) < 20:  # the chain may be a ring
        name, message = java.getClass().getSimpleName(), str(java.getMessage())
        if context is not None and is_instance_of(context._gateway, java, "org.apache.spark.SparkThrowable"):
            details = {"condition": java.getCondition(), "sql_state": java.getSqlState()}
            details["sql"] = next((c.fragment() for c in java.getQueryContext() if str(c.contextType()) == "SQL"), "")
            details["path"] = dict(java.getMessageParameters() or {}).get("path")
            causes.append(_Cause(name, message, **{key: value or "" for key, value in details.items()}))
        else:
            causes.append(_Cause(name, message))
        java = java.getCause()
    return causes
