"""The quarantine: bad rows with their reasons, a partition for each job that met them. Driver only."""

from collections.abc import Sequence

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from mlspark import storage, tables
from mlspark.contracts.own_columns import RAW, REASONS, SOURCE, SOURCE_FILE
from mlspark.errors import TableError, one_line

_ROWS_PER_FILE = 100_000
_JOB = "job_id"
_REASON = pa.struct({"column": pa.string(), "rule": pa.string(), "value": pa.string()})
_COLUMNS = pa.schema(
    {
        _JOB: pa.string(),
        "source": pa.string(),
        "source_file": pa.string(),
        "reasons": pa.list_(_REASON),
        "raw": pa.string(),
    }
)


def write(bad: DataFrame, table: str, job_id: str, num_rows: int) -> None:
    """Write the bad rows of a job, with their reasons, as partition `job_id` of its quarantine.

    They are raw rows, so a quarantine that is made here is its owner's alone; make its folder beforehand to share it.

    They count from when the commit with that id stands in the table of the good rows: see `read`.

    Args:
        bad: conformed bad rows with a column `SOURCE`.
        table: URI of the quarantine; made where it is absent, without rows too.
        job_id: the id of the commit that will hold the good rows of the same job.
        num_rows: rows of `bad`; decides the number of files.

    Raises:
        TableError: it cannot be made.
    """
    if not num_rows and tables.exists(table):
        return
    storage.make_private(table)
    if not num_rows:
        _make(table)
        return
    values = F.lit(job_id), F.col(SOURCE), F.col(SOURCE_FILE), F.col(REASONS), F.col(RAW)
    rows = bad.select(*(value.alias(name) for value, name in zip(values, _COLUMNS.names, strict=True)))
    rows = rows.repartition(max(1, -(-num_rows // _ROWS_PER_FILE)))
    tables.replace_part(rows, table, part=_JOB, value=job_id, metadata={"id": job_id, "rows": num_rows})


def _make(table: str) -> None:
    """Make a quarantine without rows; Spark would take one to two seconds for it."""
    try:
        DeltaTable.create(storage.rust_uri(table), _COLUMNS, mode="ignore", partition_by=[_JOB])
    except (DeltaError, OSError) as error:
        if tables.exists(table):  # another job was first
            return
        raise TableError(f"{table}: cannot be made ({one_line(str(error))}); see to the store") from error


def read(spark: SparkSession, table: str, job_ids: Sequence[str]) -> DataFrame:
    """Return the bad rows of the jobs whose good rows are in force: job_id, source, source_file, reasons, raw.

    What an interrupted run left has another id, and is not seen.

    Args:
        spark: any session.
        table: URI of the quarantine.
        job_ids: `ids` of the metadata of a commit of good rows.
    """
    return tables.read(spark, table).where(F.col(_JOB).isin(*job_ids))
