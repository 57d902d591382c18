"""What every kind of source has: parts that can be told apart, and failures that a person can read. Driver."""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]
from pyspark.errors import PySparkException

from mlspark import storage
from mlspark.config import SourceSettings
from mlspark.errors import SourceError


@dataclass(frozen=True)
class Part:
    """What is read whole and taken once: a file, a partition, a table version, the result of a query."""

    name: str
    """URI of a file, path of a partition, ..."""
    state: str
    """Changes when the content does: size and time of change, table version, checksum."""
    size_bytes: int = 0
    """0 where it is not known."""


@dataclass(frozen=True)
class Source:
    """A raw data set: where it is, and which state of it. A read gives the rows of its parts and no others."""

    uri: str
    settings: SourceSettings
    parts: tuple[Part, ...]

    @property
    def identity(self) -> dict[str, Any]:
        """What must be equal for two reads to give equal rows: {"uri", "kind", "num_parts", "size_bytes", "sha256"}."""
        parts = [[part.name, part.state] for part in self.parts]
        return {
            "uri": self.uri,
            "kind": self.settings.kind,
            "num_parts": len(parts),
            "size_bytes": sum(part.size_bytes for part in self.parts),
            "sha256": hashlib.sha256(json.dumps([self.settings.model_dump(), parts]).encode()).hexdigest(),
        }

    def with_parts(self, parts: tuple[Part, ...]) -> "Source":
        """Return the source restricted to some of its parts."""
        return replace(self, parts=parts)


def absolute_uri(path: str, root: str) -> str:
    """Return the URI of a source's `path`, relative ones taken from `root` (sources.root)."""
    is_absolute = "://" in path or path.startswith(("/", "file:"))
    return storage.absolute(path if is_absolute else storage.join(root, path))


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Turn Spark's failure to read `what` into a SourceError of one line that names the file and the cause.

    Wraps whatever runs a job that reads a source; other failures pass as they are.
    """
    try:
        yield
    except (PySparkException, Py4JJavaError) as error:
        text = str(error)
        if not any(sign in text for sign in _READ_FAILURES):
            raise
        raise SourceError(f"{what}: cannot be read: {_cause(text)}; mend or remove it, nothing was written") from error


_READ_FAILURES = (
    "FAILED_READ_FILE",
    "PATH_NOT_FOUND",
    "CANNOT_READ_FILE_FOOTER",
    "UNABLE_TO_INFER_SCHEMA",
    "EOFException",
    "ChecksumException",
    "FileNotFoundException",
    "AccessControlException",
    "ZipException",
    "is not a Parquet file",
    "PSQLException",
    "TABLE_OR_VIEW_NOT_FOUND",
    "MetaException",
)


def _cause(text: str) -> str:
    """Return the file, where it is named, and the innermost cause, without the stack."""
    file = re.search(
        r"(?:while reading file|[Rr]ead footer of|file:|Path does not exist:) ?((?:[a-z0-9]+:)?/[^\s,]+)", text
    )
    causes = re.findall(r"(?:Caused by|Exception): ([^\n]+)", text)
    first = next((line for line in text.splitlines() if line.strip()), "unknown")
    cause = " ".join((causes[-1] if causes else first).split())[:300].rstrip(".")
    return f"{file.group(1).rstrip('.')}: {cause}" if file and file.group(1) not in cause else cause
