"""Snapshots of tables as deltalake and Spark write them: what is live, where, and what is left out."""

import datetime
import os
from pathlib import Path

import deltalake
import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet as pq
from pyspark.sql import SparkSession

from mlspark.errors import DatasetError, TableError
from mlspark.streaming import delta_files
from mlspark.streaming.filters import partition_value
from mlspark.streaming.schema import table_columns
from mlspark.streaming.snapshot import Snapshot, pack_rows, unpack_rows
from mlspark.streaming.stream import Stream

from .conftest import write_snapshot


def stream(table: str | Snapshot, **options) -> dict[str, list]:
    """All rows of a table, in table order."""
    columns: dict[str, list] = {}
    with Stream(table, batch_size=4, shuffle=False, lanes=1, **options) as batches:
        for batch in batches:
            keep = ~batch["is_padding"]
            for name, values in batch.items():
                columns.setdefault(name, []).extend(values[keep].tolist())
    return columns


def write(folder: Path, rows: dict, **options) -> str:
    deltalake.write_deltalake(str(folder), pa.table(rows), **options)
    return str(folder)


def test_partition_values_come_from_the_log_in_their_types(tmp_path):
    days = [datetime.date(2024, 1, 1), datetime.date(2024, 1, 1), datetime.date(2023, 5, 1), None]
    names = ["a b/ü%20#?=&", "x", "x", None]
    rows = {"id": [1, 2, 3, 4], "day": days, "name": names}
    table = write(tmp_path, rows, partition_by=["day", "name"])
    found = stream(table, columns=["id", "day", "name"], lengths={}, vocabularies={"name": ["x", names[0]]},
                   fill={"day": datetime.date(1970, 1, 1)})  # fmt: skip
    by_id = dict(zip(found["id"], zip(found["day"], found["name"], strict=True), strict=True))
    assert by_id == {1: (19723, 3), 2: (19723, 2), 3: (19478, 2), 4: (0, 0)}


def test_rows_older_than_a_column_take_its_fill_value(tmp_path):
    table = write(tmp_path, {"id": [1, 2]})
    write(tmp_path, {"id": [3], "age": [30]}, mode="append", schema_mode="merge")
    assert sorted(zip(*map(stream(table, fill={"age": -1}).get, ("id", "age")), strict=True)) == [
        (1, -1),
        (2, -1),
        (3, 30),
    ]
    with pytest.raises(DatasetError, match=r"row group 0: column age holds 2 nulls; give a fill value for it"):
        stream(table)
    assert stream(table, columns=["age"], fill={"age": 0})["age"].count(0) == 2  # no column of the file is read


def test_versions_stay_what_they_were(tmp_path):
    table = write(tmp_path, {"id": [1, 2]})
    first = delta_files.take(table)
    write(tmp_path, {"id": [3]}, mode="overwrite")
    assert delta_files.take(table, version=0) == first
    assert sorted(stream(table, version=0)["id"]) == [1, 2]
    assert stream(table)["id"] == [3]
    for version, message in [
        (7, "version 7 is not there yet; give one from 0 to 1"),
        (-1, "version -1 is no version; give one from 0 to 1"),
        (2**70, f"version {2**70} is not there yet; give one from 0 to 1"),
        ("1", "version '1' is a str; give a whole number, or None"),
        (True, "version True is a bool; give a whole number, or None"),
    ]:
        with pytest.raises(TableError, match=message):
            delta_files.take(table, version=version)
    with pytest.raises(TableError, match="no Delta table here"):
        delta_files.take(str(tmp_path / "none"))


def test_version_before_the_oldest_kept_log_is_told_with_those_there_are(tmp_path):
    for _ in range(4):
        table = write(tmp_path, {"id": [1]}, mode="append")
    deltalake.DeltaTable(table, version=2).create_checkpoint()
    for version in (0, 1):
        (tmp_path / "_delta_log" / f"{version:020d}.json").unlink()
    for version in (0, 1):
        with pytest.raises(TableError, match=f"version {version} is not kept any more; give one from 2 to 3"):
            delta_files.take(table, version=version)
    assert [delta_files.take(table, version=version).num_rows for version in (2, 3)] == [3, 4]


def test_snapshot_comes_back_from_its_file(tmp_path):
    table = write(tmp_path / "table", {"id": [1, 2], "p": ["x", None]}, partition_by=["p"])
    taken = delta_files.take(table)
    taken.save(str(tmp_path / "snapshot.json"))
    assert Snapshot.load(str(tmp_path / "snapshot.json")) == taken
    assert Snapshot.load(str(tmp_path / "snapshot.json")).fingerprint == taken.fingerprint


def test_file_order_does_not_depend_on_random_names(tmp_path):
    def build(folder: Path) -> list[int]:
        table = write(folder, {"id": [1, 2]})
        for first in (10, 20, 30, 40):
            write(folder, {"id": [first, first + 1]}, mode="append")
        return stream(table)["id"]

    orders = [build(tmp_path / str(number)) for number in range(3)]
    assert orders[0] == orders[1] == orders[2]


@pytest.mark.parametrize(
    ("where", "ids"),
    [
        ([("day", ">=", datetime.date(2024, 1, 2))], [3, 4, 5, 6]),
        ([("day", "in", [datetime.date(2024, 1, 1)])], [1, 2]),
        ([("day", "!=", datetime.date(2024, 1, 1))], [3, 4, 5, 6]),  # as in SQL, null is not unequal
        ([("id", "<", 3)], [1, 2]),
        ([("id", ">", 3), ("day", "=", datetime.date(2024, 1, 2))], [4, 5, 6]),
        ([("id", "in", [0, 4, 9])], [4]),
        ([("id", "=", 100)], []),
        ([("age", ">", 9)], [6]),  # null in the rows that are older than the column
    ],
)
def test_conditions_leave_out_partitions_row_groups_and_rows(tmp_path, where, ids):
    first, second = datetime.date(2024, 1, 1), datetime.date(2024, 1, 2)
    table = write(tmp_path, {"id": [1, 2, 3, 4, 7], "day": [first, first, second, second, None]}, partition_by=["day"])
    rows = {"id": [5, 6], "day": [second] * 2, "age": [9, 10]}
    write(tmp_path, rows, mode="append", schema_mode="merge")
    taken = delta_files.take(table, where=where)
    assert taken.num_rows == len(ids)
    if ids:
        assert sorted(stream(taken, columns=["id"])["id"]) == ids


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (("nope", "=", 1), "condition on nope: no such column; there are id"),
        (("id", "like", 1), "condition on id: unknown operator 'like'"),
        (("id", "<", "x"), r"condition id < 'x': column id is long, but 'x' is a str; give a number"),
    ],
)
def test_conditions_that_do_not_fit_are_named(tmp_path, condition, message):
    table = write(tmp_path, {"id": [1]})
    with pytest.raises(DatasetError, match=message):
        delta_files.take(table, where=[condition])


def test_damaged_footer_is_named(tmp_path):
    table = write(tmp_path, {"id": [1]})
    (path,) = tmp_path.glob("*.parquet")
    os.truncate(path, path.stat().st_size - 3)
    with pytest.raises(DatasetError, match=rf"{path.name}: the footer of this live file cannot be read"):
        delta_files.take(table)


def test_file_with_other_rows_than_the_log_says_is_named(tmp_path):
    """A footer that has lost its row groups is a footer still: the rows were left out in silence."""
    table = write(tmp_path, {"id": [1, 2, 3]})
    (path,) = tmp_path.glob("*.parquet")
    pq.write_table(pq.read_table(path).slice(0, 2), path)
    for where in ([], [("id", ">", 0)]):
        with pytest.raises(DatasetError, match=rf"{path.name}: the row groups .* 2 rows, but the table's log says 3; "):
            delta_files.take(table, where=where)


def test_footer_that_says_otherwise_than_its_row_groups_is_named(tmp_path):
    table = write(tmp_path, {"id": list(range(1000))})
    (path,) = tmp_path.glob("*.parquet")
    content = path.read_bytes()
    length = int.from_bytes(content[-8:-4], "little")
    footer, number = content[-8 - length : -8], bytes([0x16, 0xD0, 0x0F])  # 1000 as Thrift has it, zigzag and base 128
    places = [place for place in range(length) if footer[place : place + 3] == number]
    changed = 0
    for place in places:
        damaged = bytearray(content)
        damaged[len(content) - 8 - length + place + 1] ^= 2
        path.write_bytes(bytes(damaged))
        if pq.read_metadata(path).num_rows != pq.read_metadata(path).row_group(0).num_rows:
            changed += 1
            with pytest.raises(DatasetError, match=rf"{path.name}: the row groups of this .* rows, but "):
                delta_files.take(table)
    assert changed == 2  # the whole and the row group


@settings(deadline=None)
@given(st.lists(st.booleans(), max_size=100), st.integers(0, 20))
def test_masks_come_back_and_rows_beyond_them_are_kept(mask, more):
    packed = pack_rows(np.array(mask, np.bool_))
    assert unpack_rows(packed, len(mask) + more).tolist() == mask + [False] * more


def test_files_older_than_a_wider_type_are_read_in_the_type_of_the_table(tmp_path):
    written = write_snapshot(tmp_path, [[3]])  # job is int32 there, age float32
    schema = {"fields": [{"name": "job", "type": "long"}, {"name": "age", "type": "double"}]}
    widened = Snapshot(written.table, 0, schema, written.files)
    with Stream(widened, batch_size=3, shuffle=False) as rows:
        (batch,) = rows
    assert (batch["job"].dtype, batch["age"].dtype) == (torch.int64, torch.float64)
    assert batch["job"].tolist() == [0, 1, 2]


def test_cache_does_not_confuse_columns_that_changed_names(tmp_path):
    written = write_snapshot(tmp_path, [[4]])
    found = {}
    for physical in ("age", "hours"):
        about = {"delta.columnMapping.physicalName": physical}
        schema = {"fields": [{"name": "x", "type": "float", "metadata": about}]}
        table = Snapshot(written.table, 0, schema, written.files)
        with Stream(table, batch_size=4, shuffle=False, cache_folder=str(tmp_path / "cache")) as rows:
            (batch,) = rows
        found[physical] = batch["x"].tolist()
    assert found == {"age": [0, 1, 2, 3], "hours": [0, 0.5, 1, 1.5]}


@pytest.mark.slow
def test_deletion_vectors_and_mapped_columns_are_read_as_spark_reads_them(spark: SparkSession, tmp_path):
    deleted, mapped = str(tmp_path / "deleted"), str(tmp_path / "mapped")
    spark.sql(
        f"CREATE TABLE delta.`{deleted}` (id BIGINT, part STRING) USING delta PARTITIONED BY (part) "
        "TBLPROPERTIES ('delta.enableDeletionVectors' = 'true')"
    )
    rows = spark.range(4000).selectExpr("id", "if(id % 2 = 0, 'a b%20', 'ü#?') AS part")
    rows.write.format("delta").mode("append").option("parquet.block.size", 4096).save(deleted)
    for condition in ("id % 7 = 0", "id BETWEEN 1000 AND 1500", "id = 3999"):
        spark.sql(f"DELETE FROM delta.`{deleted}` WHERE {condition}")
    taken = delta_files.take(deleted)
    assert any(file.left_out for file in taken.files)
    expected = sorted(row.id for row in spark.read.format("delta").load(deleted).collect())
    assert taken.num_rows == len(expected)
    assert sorted(stream(taken, columns=["id"])["id"]) == expected
    shuffled = Stream(Snapshot.from_json(taken.to_json()), columns=["id"], batch_size=64)
    assert sorted(row for batch in shuffled for row in batch["id"][~batch["is_padding"]].tolist()) == expected

    for mode in ("name", "id"):
        table = f"{mapped}-{mode}"
        spark.sql(
            f"CREATE TABLE delta.`{table}` (id BIGINT, `old name` INT, gone INT, day DATE) USING delta PARTITIONED BY (day) "
            f"TBLPROPERTIES ('delta.columnMapping.mode' = '{mode}')"
        )
        spark.sql(f"INSERT INTO delta.`{table}` VALUES (1, 10, 0, DATE'2024-01-01'), (2, 20, 0, NULL)")
        spark.sql(f"ALTER TABLE delta.`{table}` RENAME COLUMN `old name` TO age")
        spark.sql(f"ALTER TABLE delta.`{table}` DROP COLUMN gone")
        spark.sql(f"ALTER TABLE delta.`{table}` ADD COLUMN more DOUBLE")
        spark.sql(f"INSERT INTO delta.`{table}` VALUES (3, 30, DATE'2024-01-02', 0.5)")
        found = stream(table, fill={"more": -1.0, "day": datetime.date(1970, 1, 1)})
        assert sorted(zip(*(found[name] for name in ("id", "age", "day", "more")), strict=True)) == [
            (1, 10, 19723, -1.0),
            (2, 20, 0, -1.0),
            (3, 30, 19724, 0.5),
        ]
        assert delta_files.take(table, where=[("age", ">", 25)]).num_rows == 1


@pytest.mark.parametrize(
    ("declared", "text", "value"),
    [
        ("date", "+10000-01-01", pa.scalar(2932897, pa.int32())),
        ("date", "10000-01-01", pa.scalar(2932897, pa.int32())),
        ("date", "2024-01-01", pa.scalar(19723, pa.int32())),
        ("timestamp", "10000-01-01T00:00:00.000001", pa.scalar(253402300800000001)),
        ("timestamp", "2024-01-01 00:00:00", pa.scalar(1704067200000000)),
        ("timestamp_ntz", "2024-01-01", pa.scalar(1704067200000000)),
    ],
)
def test_partition_values_of_any_year_are_read(declared, text, value):
    column = table_columns({"fields": [{"name": "x", "type": declared}]})["x"]
    assert partition_value(text, column).cast(value.type) == value


def test_partition_values_are_padded_as_char_and_refused_where_bytes_are_lost():
    about = {"__CHAR_VARCHAR_TYPE_STRING": "char(5)"}
    fields = [{"name": "c", "type": "string", "metadata": about}, {"name": "b", "type": "binary"}]
    columns = table_columns({"fields": fields})
    assert partition_value("ab", columns["c"]).as_py() == "ab   "
    assert partition_value("ab", columns["b"]).as_py() == b"ab"
    with pytest.raises(DatasetError, match="may stand for other bytes; leave b out"):
        partition_value("\\u0061", columns["b"])


def test_decimals_are_the_nearest_doubles(tmp_path):
    """pyarrow's cast of a decimal is not: it gives 6111780.0200000005."""
    values = [6111780.02, 0.07, -9999999.99]
    texts = pa.array([f"{value:.2f}" for value in values])
    table = write(tmp_path / "table", {"x": texts.cast(pa.decimal128(9, 2))})
    assert stream(table)["x"] == values


def test_views_of_text_take_their_fill_value(tmp_path):
    table = write(tmp_path / "table", {"s": pa.array(["a", None], pa.string_view())})
    assert stream(table, fill={"s": "b"}, lengths={"s": 1})["s"] == [[ord("a")], [ord("b")]]


def test_version_whose_files_were_vacuumed_is_named(tmp_path):
    table = write(tmp_path / "table", {"x": [1]})
    write(tmp_path / "table", {"x": [2]}, mode="overwrite")
    deltalake.DeltaTable(table).vacuum(0, dry_run=False, enforce_retention_duration=False)
    with pytest.raises(DatasetError, match="VACUUM"):
        stream(table, version=0)
    assert stream(table)["x"] == [2]


def test_files_that_are_vacuumed_between_epochs_are_named(tmp_path):
    """No row is left out in silence where an open stream's version is taken away."""
    table = write(tmp_path / "table", {"x": [1]})
    with Stream(table, batch_size=1, lanes=1) as batches:
        assert [batch["x"].tolist() for batch in batches] == [[1]]
        write(tmp_path / "table", {"x": [2]}, mode="overwrite")
        deltalake.DeltaTable(table).vacuum(0, dry_run=False, enforce_retention_duration=False)
        with pytest.raises(
            DatasetError, match=r"\.parquet.*not there any more; VACUUM removes files.*open a newer version"
        ):
            list(batches)
