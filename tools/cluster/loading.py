"""Ways for local data into the servers. Driver only."""

from collections.abc import Sequence
from pathlib import Path

from pyarrow import fs
from pyspark.sql import DataFrame

from mlspark import storage
from tools.cluster.postgres import Postgres


def upload(folder: Path, uri: str) -> None:
    """Copy what is in a local folder, with its subfolders, to `uri` (hdfs:, s3a:, file:); same names are replaced."""
    target, path = storage.filesystem(uri)
    fs.copy_files(str(folder), path, source_filesystem=fs.LocalFileSystem(), destination_filesystem=target)


def to_hive(rows: DataFrame, table: str, *, partition_by: Sequence[str] = (), file_format: str = "parquet") -> None:
    """Write `rows` as a Hive table (not one of Spark's own kind) and its database, replacing the table.

    The session must have Hive support.

    Args:
        rows: columns in any order.
        table: database.table
        partition_by: partition columns; they become the last columns.
        file_format: parquet, orc, textfile, ...
    """
    spark = rows.sparkSession
    database = table.split(".")[0]
    spark.sql(f"CREATE DATABASE IF NOT EXISTS {database}")
    spark.sql(f"DROP TABLE IF EXISTS {table}")
    types = dict(rows.dtypes)
    data = [name for name in rows.columns if name not in partition_by]
    columns = ", ".join(f"`{name}` {types[name]}" for name in data)
    partitions = ", ".join(f"`{name}` {types[name]}" for name in partition_by)
    partitioned = f"PARTITIONED BY ({partitions})" if partition_by else ""
    spark.sql(f"CREATE TABLE {table} ({columns}) {partitioned} STORED AS {file_format}")
    rows.select(*data, *partition_by).write.insertInto(table)


def to_postgres(rows: DataFrame, postgres: Postgres, table: str) -> None:
    """Write `rows` as a table of the database, replacing it; one connection per partition of `rows`."""
    rows.write.format("jdbc").options(**postgres.options).option("dbtable", table).mode("overwrite").save()
