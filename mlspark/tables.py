"""Delta tables: whole commits that say what they hold, and versions that can be found again. Driver only."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deltalake import DeltaTable
from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from mlspark import storage
from mlspark.errors import TableError

_KEY = "mlspark"
_QUARANTINE_ROWS_PER_FILE = 100_000


@dataclass(frozen=True)
class Commit:
    """One version of a table, and what its writer said of it."""

    version: int
    metadata: Mapping[str, Any]


def exists(table: str) -> bool:
    """Return whether a Delta table stands at `table`."""
    return DeltaTable.is_deltatable(storage.rust_uri(table))


def commits(table: str) -> list[Commit]:
    """Return the versions that mlspark wrote, newest first; empty when there is no table. No Spark job."""
    if not exists(table):
        return []
    history = DeltaTable(storage.rust_uri(table)).history()
    return [
        Commit(entry["version"], json.loads(entry["userMetadata"])[_KEY])
        for entry in history
        if (entry.get("userMetadata") or "").startswith(f'{{"{_KEY}"')
    ]


def find_commit(table: str, commit_id: str) -> Commit | None:
    """Return the newest version whose metadata has id `commit_id`."""
    return next((commit for commit in commits(table) if commit.metadata["id"] == commit_id), None)


def write(
    frame: DataFrame,
    table: str,
    *,
    metadata: Mapping[str, Any],
    mode: str,
    partition_by: Sequence[str] = (),
    replace_where: str | None = None,
) -> int:
    """Write `frame` as one commit and return its version. Readers see all of it or nothing.

    Args:
        frame: rows to write.
        table: URI of the table, created when absent.
        metadata: says what the commit holds; must have "id", by which it is found again.
        mode: "overwrite" or "append".
        partition_by: partition columns.
        replace_where: with "overwrite": replace only the rows that satisfy this.
    """
    writer = frame.write.format("delta").mode(mode).option("userMetadata", json.dumps({_KEY: dict(metadata)}))
    if partition_by:
        writer = writer.partitionBy(*partition_by)
    if replace_where is not None:
        writer = writer.option("replaceWhere", replace_where)
    elif mode == "overwrite":
        writer = writer.option("overwriteSchema", "true")
    writer.save(table)
    commit = find_commit(table, metadata["id"])
    assert commit is not None, f"{table}: the commit just written is not in the history"
    return commit.version


def replace_part(frame: DataFrame, table: str, *, part: str, value: str, metadata: Mapping[str, Any]) -> int:
    """Write `frame` as the whole of partition `part` = `value` and return the version.

    A second run writes the same partition anew, so rows that an interrupted one left are not kept beside it.
    """
    is_new = not exists(table)
    return write(
        frame,
        table,
        metadata=metadata,
        mode="overwrite",
        partition_by=[part],
        replace_where=None if is_new else f"{part} = '{value}'",
    )


def write_quarantine(bad: DataFrame, table: str, job_id: str, num_rows: int) -> None:
    """Write the bad rows of a job, with their reasons, as partition `job_id` of its quarantine.

    Args:
        bad: conformed bad rows with a column `source`.
        table: URI of the quarantine.
        job_id: the id of the commit that holds the good rows of the same job.
        num_rows: rows of `bad`; decides the number of files.
    """
    if not num_rows and exists(table):
        return
    rows = bad.select(
        F.lit(job_id).alias("job_id"),
        "source",
        F.col("_source_file").alias("source_file"),
        F.col("_reasons").alias("reasons"),
        F.col("_raw").alias("raw"),
    )
    rows = rows.repartition(max(1, -(-num_rows // _QUARANTINE_ROWS_PER_FILE)))
    replace_part(rows, table, part="job_id", value=job_id, metadata={"id": job_id, "rows": num_rows})


def read(spark: SparkSession, table: str, *, version: int | None = None) -> DataFrame:
    """Return the table at `version` (None: the latest).

    Raises:
        TableError: no such table or version.
    """
    reader = spark.read.format("delta")
    if version is not None:
        reader = reader.option("versionAsOf", version)
    try:
        return reader.load(table)
    except AnalysisException as error:
        raise TableError(f"{table}: version {version} cannot be read: {error.getMessage()}") from error


def sidecar(table: str, commit_id: str, name: str) -> str:
    """Return the URI of a small file that travels with a table: what a commit holds beyond its rows.

    The folder's name starts with an underscore, so that Delta's VACUUM leaves it alone.
    """
    return storage.join(table, "_mlspark", commit_id, name)
