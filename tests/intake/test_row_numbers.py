"""The number of a row is its place in the source, into however many tasks Spark cuts the files."""

from pathlib import Path

import pytest
from pyspark import StorageLevel
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from mlspark.contracts.contract import ColumnRule, Contract
from mlspark.contracts.own_columns import ROW_NUMBER, SOURCE_FILE
from mlspark.intake import row_numbers
from mlspark.intake import rows as intake
from mlspark.sources import binary_rows, catalog
from mlspark.sources.csv import CsvSettings
from mlspark.sources.images import ImagesSettings

CONTRACT = Contract(name="lines", columns=(ColumnRule(name="file", type="string"), ColumnRule(name="line", type="int")))


@pytest.mark.parametrize("bytes_of_a_task", [2_000, 100_000_000])
def test_numbers_are_those_of_the_lines(spark: SparkSession, tmp_path: Path, bytes_of_a_task: int) -> None:
    sizes = {"a.csv": 700, "b.csv": 1500, "c.csv": 1, "d.csv": 300}
    for name, size in sizes.items():
        (tmp_path / name).write_text("".join(f"{name},{line}\n\n" for line in range(size)))
    changed = {"spark.sql.files.maxPartitionBytes": str(bytes_of_a_task), "spark.sql.files.openCostInBytes": "0"}
    before = {name: spark.conf.get(name) for name in changed}
    try:
        for name, value in changed.items():
            spark.conf.set(name, value)
        source = catalog.find(spark, CsvSettings(kind="csv", path=str(tmp_path)), root=".")
        read = row_numbers.with_position(intake.conform(spark, {"score": source}, CONTRACT))
        kept = read.persist(StorageLevel.MEMORY_AND_DISK)
        numbered = row_numbers.numbered(kept, kept.where("line % 3 = 0")).orderBy(ROW_NUMBER)
        found = numbered.select(ROW_NUMBER, "file", "line", F.regexp_extract(SOURCE_FILE, r"[^/]+$", 0)).collect()
        kept.unpersist()
    finally:
        for name, old in before.items():
            spark.conf.set(name, str(old))
    expected, at = [], 0
    for name, size in sizes.items():
        expected += [(at + line, name, line, name) for line in range(0, size, 3)]
        at += size
    assert [tuple(row) for row in found] == expected


def test_files_that_tasks_read_in_their_order_are_numbered_by_task(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A million pictures are a million files: what is joined to number them has a row for each task, not for each file."""
    monkeypatch.setattr(binary_rows, "TASK_BYTES", 2**18)
    monkeypatch.setattr(binary_rows, "LEAST_TASK_BYTES", 2**18)
    names = [f"{number:02}.jpg" for number in range(20)]
    for name in names:
        (tmp_path / name).write_text(name)
    source = catalog.find(spark, ImagesSettings(kind="images", path=str(tmp_path)), root=".")
    columns = (ColumnRule(name="path", type="string"), ColumnRule(name="image", type="binary"))
    read = intake.conform(spark, {"score": source}, Contract(name="files", columns=columns))
    joined = []
    shifts = row_numbers._shifts
    monkeypatch.setattr(row_numbers, "_shifts", lambda spans: joined.append(shifts(spans)) or joined[-1])
    with intake.kept(row_numbers.with_position(read)) as kept:
        found = row_numbers.numbered(kept, kept).orderBy(ROW_NUMBER).select(ROW_NUMBER, "path").collect()
    assert [tuple(row) for row in found] == list(enumerate(names))
    assert [table.num_rows for table in joined] == [7]  # three files of 64 KiB and some bytes a task
    assert joined[0].column_names == ["_mlspark_partition", "_mlspark_shift"]
