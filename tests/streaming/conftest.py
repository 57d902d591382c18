"""Feature files without Spark: a few small Parquet files and the snapshot of them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet as pq

from mlspark.features.tensors import Tensors, TensorSpec
from mlspark.streaming.snapshot import DataFile, Snapshot

TENSORS = Tensors((TensorSpec("dense", ("age", "hours"), "float32"), TensorSpec("ids", ("job",), "int64", (7,))))


def write_snapshot(folder: Path, row_groups: Sequence[Sequence[int]]) -> Snapshot:
    """Write one file per entry of `row_groups`; row n of the table has row_id n, age n and job n mod 7."""
    folder.mkdir(parents=True, exist_ok=True)
    files, first = [], 0
    for number, groups in enumerate(row_groups):
        path = f"part-{number:05d}.parquet"
        schema = pa.schema(
            {"age": pa.float32(), "hours": pa.float32(), "job": pa.int32(), "label": pa.float32(), "row_id": pa.int64()}
        )
        with pq.ParquetWriter(folder / path, schema) as writer:
            for rows in groups:
                ids = np.arange(first, first + rows)
                columns = [ids, ids / 2, ids % 7, ids % 2, ids]
                arrays = [pa.array(column).cast(field.type) for column, field in zip(columns, schema, strict=True)]
                writer.write_table(pa.table(arrays, schema=schema), row_group_size=max(1, rows))
                first += rows
        kept = tuple(rows for rows in groups if rows)
        files.append(DataFile(path, (folder / path).stat().st_size, {"split": "train"}, kept))
    return Snapshot(str(folder), 0, {}, tuple(files))


@pytest.fixture(scope="session")
def small_snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    return write_snapshot(tmp_path_factory.mktemp("features"), [[30, 30, 7], [50], [11, 1]])
