"""The snapshot of whatever a person names: a Delta table, or plain Parquet files. Needs no Spark."""

from collections.abc import Iterable

from mlspark import storage
from mlspark.errors import DatasetError
from mlspark.streaming import delta_files, parquet_files
from mlspark.streaming.filters import Condition
from mlspark.streaming.snapshot import Snapshot


def take(table: str, *, version: int | None = None, where: Iterable[Condition] = ()) -> Snapshot:
    """Return the snapshot of a Delta table, as `delta_files.take` does, or of Parquet files, as `parquet_files.take` does.

    Raises:
        TableError: no such table, version or files.
        DatasetError: a version of files that have none; what the two raise.
    """
    if storage.exists(storage.join(table, "_delta_log")):
        return delta_files.take(table, version=version, where=where)
    if version is not None:
        raise DatasetError(
            f"{table}: no Delta table here, which version={version} is for; leave it out to open plain Parquet files, or "
            f"open the folder of a table"
        )
    return parquet_files.take(table, where=where)
