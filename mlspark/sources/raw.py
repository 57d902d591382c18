"""Raw rows as they are: one line, one row, nothing skipped but what the settings call no row. Driver, lazy."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from mlspark import storage
from mlspark.config import SourceSettings
from mlspark.errors import SourceError


@dataclass(frozen=True)
class SourceFile:
    """One file of a source, as it was when it was listed."""

    uri: str
    size_bytes: int
    modified: str


@dataclass(frozen=True)
class Source:
    """A raw data set: where it is, and which state of it."""

    uri: str
    settings: SourceSettings
    files: tuple[SourceFile, ...]

    @property
    def identity(self) -> dict[str, Any]:
        """What must be equal for two reads to give equal rows."""
        files = [[file.uri, file.size_bytes, file.modified] for file in self.files]
        return {
            "uri": self.uri,
            "num_files": len(files),
            "size_bytes": sum(file.size_bytes for file in self.files),
            "sha256": hashlib.sha256(json.dumps([self.settings.model_dump(), files]).encode()).hexdigest(),
        }


def find(spark: SparkSession, settings: SourceSettings, *, root: str) -> Source:
    """Return the source with its files as they are now.

    Raises:
        SourceError: nothing there, or nothing in it.
    """
    uri = storage.absolute(settings.path if _is_absolute(settings.path) else storage.join(root, settings.path))
    # binaryFile lists files of any scheme and glob; the content is not read when its column is not selected.
    listing = spark.read.format("binaryFile").option("recursiveFileLookup", "true")
    try:
        rows = (
            listing.load(uri).select("path", "length", F.col("modificationTime").cast("string").alias("time")).collect()
        )
    except AnalysisException as error:
        if error.getCondition() != "PATH_NOT_FOUND":
            raise
        raise SourceError(
            f"{uri}: no such file or folder; check sources.*.path, sources.root and MLSPARK_DATA, "
            f"or get the census files with: mlspark fetch adult"
        ) from None
    # An empty file is not listed.
    files = tuple(SourceFile(row.path, row.length, row.time) for row in sorted(rows))
    if not files:
        raise SourceError(f"{uri}: no bytes to read; check that the file is whole")
    return Source(uri, settings, files)


def read(spark: SparkSession, source: Source, columns: Sequence[str]) -> DataFrame:
    """Return every row of the source.

    Blank lines and lines that start with `settings.comment` are no rows.

    Args:
        columns: names of the fields, in the file's order.

    Returns:
        `columns` as strings (null where empty or `settings.missing`), `_malformed` (why the line is no row of so many
        fields, or null), `_raw` (the line), `_source_file`.
    """
    settings = source.settings
    lines = spark.read.text(source.uri, recursiveFileLookup=True).where(F.trim("value") != "")
    if settings.comment:
        lines = lines.where(~F.col("value").startswith(settings.comment))
    options = {
        "mode": "PERMISSIVE",
        "columnNameOfCorruptRecord": "_malformed",
        "sep": settings.separator,
        "ignoreLeadingWhiteSpace": "true",
        "ignoreTrailingWhiteSpace": "true",
        "nullValue": settings.missing,
    }
    schema = ", ".join(f"`{name}` string" for name in (*columns, "_malformed"))
    fields = F.from_csv("value", schema, options)
    parsed = lines.select(
        fields.alias("fields"), F.col("value").alias("_raw"), F.col("_metadata.file_path").alias("_source_file")
    )
    expected = F.lit(f"not {len(columns)} fields")
    return parsed.select(
        *(F.col(f"fields.{name}").alias(name) for name in columns),
        F.when(F.col("fields._malformed").isNotNull(), expected).alias("_malformed"),
        "_raw",
        "_source_file",
    )


def _is_absolute(path: str) -> bool:
    return "://" in path or path.startswith(("/", "file:"))
