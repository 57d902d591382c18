"""What a source is and what Spark reads of it: its state, its parts, no more columns and rows than asked for."""

import re
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.orc as orc
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from pydantic import TypeAdapter
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from mlspark.contracts.contract import ColumnRule, Contract
from mlspark.contracts.own_columns import MALFORMED
from mlspark.errors import SourceError
from mlspark.sources import catalog
from mlspark.sources.catalog import AnySource
from mlspark.sources.source import Source, reading

PEOPLE = Contract.model_validate(
    {"name": "people", "columns": ({"name": "age", "type": "int"}, {"name": "name", "type": "string"})}
)
TABLE = pa.table({"name": ["Ann", "Bob", "Eve"], "age": pa.array([30, 40, 50], pa.int32()), "size": [1, 2, 3]})
DERBY = "jdbc:derby:memory:mlspark;create=true"


def find(spark: SparkSession, root: Path, **settings: Any) -> Source:
    checked = TypeAdapter(AnySource).validate_python(settings)
    return catalog.find(spark, checked, root=str(root))


def rows(spark: SparkSession, source: Source) -> list[tuple[Any, ...]]:
    return sorted(tuple(row) for row in catalog.read(spark, source, PEOPLE).select("age", "name").collect())


def plan(frame: DataFrame) -> str:
    conf = frame.sparkSession.conf
    conf.set("spark.sql.maxMetadataStringLength", "10000")
    try:
        return str(frame._jdf.queryExecution().executedPlan().toString())
    finally:
        conf.unset("spark.sql.maxMetadataStringLength")


def write_people(folder: Path, kind: str) -> None:
    folder.mkdir()
    if kind == "parquet":
        pq.write_table(TABLE, folder / "a.parquet")
    elif kind == "orc":
        orc.write_table(TABLE, folder / "a.orc")
    else:
        write_deltalake(folder, TABLE)


@pytest.mark.parametrize("kind", ["parquet", "orc", "delta"])
def test_filter_and_columns_reach_the_files(spark: SparkSession, tmp_path: Path, kind: str) -> None:
    write_people(tmp_path / "in", kind)
    source = find(spark, tmp_path, kind=kind, path="in", filter="size > 1")
    read = catalog.read(spark, source, PEOPLE)
    assert re.search(r"PushedFilters: \[IsNotNull\(size\), GreaterThan\(size,1\)\]", plan(read))
    assert re.search("ReadSchema: struct<age:int,size:bigint[,>]", plan(read.select("age")))
    assert rows(spark, source) == [(40, "Bob"), (50, "Eve")]


def test_filter_over_partitions_reads_only_those(spark: SparkSession, tmp_path: Path) -> None:
    pq.write_to_dataset(
        TABLE.append_column("code", pa.array(["007", "8", None])), tmp_path / "in", partition_cols=["code"]
    )
    source = find(spark, tmp_path, kind="parquet", path="in", filter="code = '007' and size > 0")
    read = catalog.read(spark, source, PEOPLE)
    assert re.search(r"PartitionFilters: \[isnotnull\(code#\d+\), \(code#\d+ = 007\)\]", plan(read))
    assert rows(spark, source) == [(30, "Ann")]


def test_nanoseconds_of_int96_are_refused_by_column_and_file(spark: SparkSession, tmp_path: Path) -> None:
    """As Hive, Impala and old pandas write Parquet."""
    contract = Contract(name="c", columns=(ColumnRule(name="x", type="timestamp"),))
    table = pa.table({"id": [1, 2], "x": pa.array([1709251200123456000, 1709251200123456789], pa.timestamp("ns"))})
    pq.write_table(table, tmp_path / "a.parquet", use_deprecated_int96_timestamps=True)
    source = find(spark, tmp_path, kind="parquet", path="a.parquet")
    message = r"file:.*/a\.parquet: x: 2024-03-01 00:00:00\.123456789 has digits below a micro.*pandas: \.dt\.floor"
    with pytest.raises(SourceError, match=message):
        catalog.read(spark, source, contract)
    ids = contract.model_copy(update={"columns": (ColumnRule(name="id", type="bigint"),)})
    assert catalog.read(spark, source, ids).count() == 2
    pq.write_table(table[:1], tmp_path / "a.parquet", use_deprecated_int96_timestamps=True)
    spark.read.parquet(str(tmp_path / "a.parquet")).write.option("outputTimestampType", "INT96").parquet(
        str(tmp_path / "b")
    )
    for path in ("a.parquet", "b"):
        whole = find(spark, tmp_path, kind="parquet", path=path)
        [row] = catalog.read(spark, whole, contract).select("x").collect()
        assert row.x == datetime(2024, 3, 1, 0, 0, 0, 123456)


def test_time_of_orc_that_java_does_not_read_is_named(spark: SparkSession, tmp_path: Path) -> None:
    early = pa.array([datetime(1969, 12, 31, 23, 59, 58, 500000)], pa.timestamp("us"))
    orc.write_table(pa.table({"at": early}), tmp_path / "a.orc")
    source = find(spark, tmp_path, kind="orc", path="a.orc")
    contract = Contract(name="c", columns=(ColumnRule(name="at", type="timestamp"),))
    with (
        pytest.raises(SourceError, match=r"a\.orc: cannot be read: a time before 1970 .*write it as Par"),
        reading(source.uri),
    ):
        catalog.read(spark, source, contract).collect()


NANOSECONDS = pa.array([1709251200123456000, 1709251200123456789], pa.timestamp("ns"))


@pytest.mark.parametrize(
    ("column", "shown"),
    [
        (NANOSECONDS, "x: 2024-03-01 00:00:00.123456789 "),
        (NANOSECONDS.cast(pa.timestamp("ns", "UTC")), "x: 2024-03-01 00:00:00.123456789 "),
        (pa.StructArray.from_arrays([NANOSECONDS], ["t"]), 'x: {"t":"2024-03-01 00:00:00.123456789"} '),
        (pa.ListArray.from_arrays([0, 1, 2], NANOSECONDS), 'x: ["2024-03-01 00:00:00.123456789"] '),
    ],
)
def test_nanoseconds_of_orc_are_refused_by_column_and_file(
    spark: SparkSession, tmp_path: Path, column: Any, shown: str
) -> None:
    def contract(**types: str) -> Contract:
        return Contract(name="c", columns=tuple(ColumnRule(name=name, type=kind) for name, kind in types.items()))

    kind = "timestamp" if pa.types.is_timestamp(column.type) else "string"
    orc.write_table(pa.table({"id": [1, 2], "x": column}), tmp_path / "a.orc")
    source = find(spark, tmp_path, kind="orc", path="a.orc")
    with pytest.raises(
        SourceError, match=rf"file:.*/a\.orc: {re.escape(shown)}.*has digits below a micro.*pandas: .dt.floor"
    ):
        catalog.read(spark, source, contract(id="bigint", x=kind))
    assert catalog.read(spark, source, contract(id="bigint")).count() == 2
    orc.write_table(pa.table({"id": [1], "x": column[:1]}), tmp_path / "a.orc")
    spark.read.orc(str(tmp_path / "a.orc")).coalesce(1).write.orc(str(tmp_path / "of_spark"))
    for path in ("a.orc", "of_spark"):
        whole = find(spark, tmp_path, kind="orc", path=path)
        [row] = catalog.read(spark, whole, contract(x=kind)).select(F.col("x").cast("string")).collect()
        assert ".123456" in row.x
        assert "789" not in row.x


@pytest.mark.parametrize(
    ("folders", "kind", "values"),
    [
        (["007", "8"], "string", ["007", "8"]),  # Spark alone would say 7
        (["7", "-8"], "int", [-8, 7]),
        (["7", "__HIVE_DEFAULT_PARTITION__"], "int", [7, None]),
        (["__HIVE_DEFAULT_PARTITION__"], "string", [None]),
        (["1.0", "2"], "string", ["1.0", "2"]),
        (["x%20y"], "string", ["x y"]),
    ],
)
def test_partition_columns_keep_what_their_folders_say(
    spark: SparkSession, tmp_path: Path, folders: list[str], kind: str, values: list[Any]
) -> None:
    for folder in folders:
        (tmp_path / "in" / f"code={folder}").mkdir(parents=True)
        pq.write_table(TABLE.slice(0, 1), tmp_path / "in" / f"code={folder}" / "a.parquet")
    source = find(spark, tmp_path, kind="parquet", path="in")
    found = catalog.columns(spark, source)
    assert found is not None
    assert found["code"].dataType.simpleString() == kind
    coded = PEOPLE.model_copy(update={"columns": (PEOPLE.columns[0].model_copy(update={"name": "code"}),)})
    read = [row[0] for row in catalog.read(spark, source, coded).select("code").collect()]
    assert sorted(read, key=str) == sorted(values, key=str)


LINES = {
    "json": ({"kind": "json"}, '{"age": 30, "name": "%s"}', '{"age": 30}'),
    "csv with header": ({"kind": "csv", "header": True}, "age,name\n30,%s", "age\n30"),
    "csv": ({"kind": "csv"}, None, "30"),
}


@pytest.mark.parametrize("kind", LINES)
def test_folders_say_what_lines_leave_out(spark: SparkSession, tmp_path: Path, kind: str) -> None:
    settings, with_name, without = LINES[kind]
    names = {"Ann": "Ann", "ü b+c%2Fd%25": "ü b+c/d%", "007": "007", "__HIVE_DEFAULT_PARTITION__": None}
    for folder in names:
        (tmp_path / "in" / f"name={folder}" / "more").mkdir(parents=True)
        (tmp_path / "in" / f"name={folder}" / "more" / "a.txt").write_text(without + "\n")
    source = find(spark, tmp_path, path="in", **settings)
    columns = catalog.columns(spark, source)
    assert columns is None or columns.fieldNames() == ["age", "name"]
    read = catalog.read(spark, source, PEOPLE)
    assert sorted(row.name or "" for row in read.collect()) == sorted(name or "" for name in names.values())
    filtered = find(spark, tmp_path, path="in", filter="name = 'Ann'", **settings)
    assert rows(spark, filtered) == [("30", "Ann")]
    if with_name is None:
        return
    (tmp_path / "in" / "name=Ann" / "more" / "a.txt").write_text(with_name % "Ann" + "\n")
    for folder in list(names)[1:]:
        shutil.rmtree(tmp_path / "in" / f"name={folder}")
    source = find(spark, tmp_path, path="in", **settings)
    assert [(row.name, row[MALFORMED]) for row in catalog.read(spark, source, PEOPLE).collect()] == [("Ann", None)]
    (tmp_path / "in" / "name=Ann" / "more" / "a.txt").write_text(with_name % "Bob" + "\n")
    source = find(spark, tmp_path, path="in", **settings)
    [row] = catalog.read(spark, source, PEOPLE).collect()
    assert row[MALFORMED] == "name: Bob in the line, Ann in its folder"


def test_only_the_parts_are_read_whatever_their_names(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    names = ["a b.csv", "a%20b.csv", "j*k.csv", "jjk.csv", "i[1].csv", "i1.csv", "m{n}.csv", "e#f,g?.csv"]
    for age, name in enumerate(names):
        (tmp_path / "in" / name).write_text(f"{age},{name.replace(',', '')}\n")
    (tmp_path / "in" / "_SUCCESS").write_text("no row")
    source = find(spark, tmp_path, kind="csv", path="in")
    assert [age for age, _ in rows(spark, source)] == [str(age) for age in range(len(names))]
    for part in source.parts:
        [(age, _)] = rows(spark, source.with_parts((part,)))
        assert part.name.endswith(names[int(age)])
    pattern = find(spark, tmp_path, kind="csv", path="in/a*.csv")
    assert [part.name.rsplit("/", 1)[1] for part in pattern.parts] == ["a b.csv", "a%20b.csv"]


def test_identity_is_equal_for_equal_states_only(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    file = tmp_path / "in" / "a.csv"
    file.write_text("1,Ann\n")

    def identity(**settings: Any) -> dict[str, Any]:
        return find(spark, tmp_path, **({"kind": "csv", "path": "in"} | settings)).identity

    first = identity()
    assert first == identity()
    assert (first["kind"], first["num_parts"], first["size_bytes"]) == ("csv", 1, 6)
    others = [identity(missing="?"), identity(filter="age = '1'")]
    file.write_text("2,Ann\n")
    others.append(identity())
    (tmp_path / "in" / "b.csv").write_text("2,Ann\n")
    others.append(identity())
    assert len({found["sha256"] for found in (first, *others)}) == 5


def test_delta_is_read_at_the_version_found(spark: SparkSession, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    times = []
    for index in range(3):
        write_deltalake(folder, TABLE.slice(index, 1), mode="append")
        time.sleep(0.01)
        times.append(datetime.now(UTC))
        time.sleep(0.01)
    latest = find(spark, tmp_path, kind="delta", path="in")
    older = find(spark, tmp_path, kind="delta", path="in", version=1)
    at = find(spark, tmp_path, kind="delta", path="in", timestamp=times[1].replace(tzinfo=None).isoformat(" "))
    in_zone = find(spark, tmp_path, kind="delta", path="in", timestamp="2999-01-01T00:00:00+02:00")
    assert at.identity == older.identity
    assert in_zone.identity == latest.identity != older.identity
    write_deltalake(folder, TABLE.slice(0, 1), mode="overwrite")
    assert [len(rows(spark, source)) for source in (latest, older)] == [3, 2]
    with pytest.raises(SourceError, match="version=1 and timestamp='2020-01-01' are both set"):
        find(spark, tmp_path, kind="delta", path="in", version=1, timestamp="2020-01-01")


def test_older_version_whose_files_or_log_are_gone_is_refused_by_what_is_gone(
    spark: SparkSession, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    for _ in range(3):
        write_deltalake(folder, TABLE, mode="overwrite")
    assert len(rows(spark, find(spark, tmp_path, kind="delta", path="in", version=0))) == 3
    DeltaTable(folder).vacuum(0, dry_run=False, enforce_retention_duration=False)
    latest = DeltaTable(folder).version()
    gone = rf"1 of the 1 files of version 1 are gone, .*in/part-.*VACUUM.*a newer one \(the latest is {latest}\)"
    with pytest.raises(SourceError, match=gone):
        find(spark, tmp_path, kind="delta", path="in", version=1)
    DeltaTable(folder, version=2).create_checkpoint()
    for version in (0, 1):
        (folder / "_delta_log" / f"{version:020}.json").unlink()
    with pytest.raises(
        SourceError, match=rf"version 1 is not kept any more; set sources.*.version to one from 2 to {latest}"
    ):
        find(spark, tmp_path, kind="delta", path="in", version=1)
    assert len(rows(spark, find(spark, tmp_path, kind="delta", path="in"))) == 3


@pytest.fixture(scope="module")
def people_table(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A table of Spark's own catalog, which answers like Hive's, with partitions."""
    folder = tmp_path_factory.mktemp("warehouse")
    spark.sql(
        f"create table visitors (age int, name string, year int, code string) using parquet "
        f"partitioned by (year, code) location '{folder}/visitors'"
    )
    spark.sql(
        "insert into visitors values (30, 'Ann', 2020, 'a/b=c'), (40, 'Bob', 2021, '01'), (50, 'Eve', null, 'x y')"
    )
    return "visitors"


def test_partitions_of_a_table_are_its_parts(spark: SparkSession, tmp_path: Path, people_table: str) -> None:
    source = find(spark, tmp_path, kind="hive", table=people_table)
    assert [part.name for part in source.parts] == [
        "year=2020/code=a%2Fb%3Dc",
        "year=2021/code=01",
        "year=__HIVE_DEFAULT_PARTITION__/code=x y",
    ]
    assert rows(spark, source) == [(30, "Ann"), (40, "Bob"), (50, "Eve")]
    for part, expected in zip(source.parts, [(30, "Ann"), (40, "Bob"), (50, "Eve")], strict=True):
        assert rows(spark, source.with_parts((part,))) == [expected]
    found = catalog.columns(spark, source)
    assert found is not None
    assert found.simpleString() == "struct<age:int,name:string,year:int,code:string>"


def test_filter_of_a_table_reads_only_its_partitions(spark: SparkSession, tmp_path: Path, people_table: str) -> None:
    source = find(spark, tmp_path, kind="hive", table=people_table, filter="year >= 2021")
    assert [part.name for part in source.parts] == ["year=2021/code=01"]
    mixed = find(spark, tmp_path, kind="hive", table=people_table, filter="year >= 2021 and age > 30")
    assert len(mixed.parts) == 3  # which rows pass is seen when it is read
    assert rows(spark, source) == rows(spark, mixed) == [(40, "Bob")]
    explained = plan(catalog.read(spark, mixed, PEOPLE).select("name"))
    assert re.search(r"PartitionFilters: \[.*year#\d+ >= 2021", explained)
    assert re.search(r"PushedFilters: \[IsNotNull\(age\), GreaterThan\(age,30\)\]", explained)
    assert "ReadSchema: struct<age:int,name:string>" in explained
    with pytest.raises(SourceError, match="visitors: no partition that passes the filter"):
        find(spark, tmp_path, kind="hive", table=people_table, filter="year > 3000")


def test_table_that_is_none_of_hive_is_refused(spark: SparkSession, tmp_path: Path, people_table: str) -> None:
    spark.sql("create or replace temporary view one as select 1 as age")
    spark.sql(f"create view old_visitors as select * from {people_table}")
    write_deltalake(tmp_path / "delta", TABLE)
    spark.sql(f"create table changing using delta location '{tmp_path / 'delta'}'")
    for table, message in (
        ("old_visitors", "old_visitors: is a view"),
        ("changing", "changing: is a Delta table; set kind to delta and path to file:.*delta"),
        ("one", "one: "),
    ):
        with pytest.raises(SourceError, match=message):
            find(spark, tmp_path, kind="hive", table=table)


@pytest.fixture(scope="module")
def database(spark: SparkSession) -> str:
    people = spark.range(20).select(
        (F.col("id") + 30).cast("int").alias("AGE"), F.concat(F.lit("n"), "id").alias("NAME"), F.col("id").alias("SIZE")
    )
    people.write.format("jdbc").options(url=DERBY, dbtable="people").save()
    return DERBY


BIG = PEOPLE.model_copy(
    update={"columns": tuple(column.model_copy(update={"name": column.name.upper()}) for column in PEOPLE.columns)}
)


def test_filter_and_columns_reach_the_database(spark: SparkSession, tmp_path: Path, database: str) -> None:
    source = find(spark, tmp_path, kind="jdbc", url=database, query="people", filter="SIZE >= 15")
    read = catalog.read(spark, source, BIG)
    assert re.search(r"PushedFilters: \[\*IsNotNull\(SIZE\), \*GreaterThanOrEqual\(SIZE,15\)\]", plan(read))
    assert "ReadSchema: struct<AGE:int>" in plan(read.select("AGE"))
    assert sorted(row.AGE for row in read.collect()) == [45, 46, 47, 48, 49]


def test_connections_share_the_rows_of_a_query(
    spark: SparkSession, tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DERBY_USER", "ann")
    monkeypatch.setenv("DERBY_PASSWORD", "a secret")
    source = find(
        spark, tmp_path, kind="jdbc", url=database, query="select * from app.people where AGE > 31;", num_partitions=3,
        partition_column="SIZE", user_variable="DERBY_USER", password_variable="DERBY_PASSWORD",
    )  # fmt: skip
    read = catalog.read(spark, source, BIG)
    assert read.rdd.getNumPartitions() == 3
    assert sorted(row.AGE for row in read.collect()) == list(range(32, 50))
    [part] = source.parts
    assert re.fullmatch(r"18 rows, -?\d+ -?\d+", part.state)  # and a checksum of them
    assert "secret" not in str(source) + str(source.identity) + plan(read)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"query": "nobody"}, "NOBODY' does not exist"),
        ({"query": "selec 1"}, "cannot be read: .*[Ss]yntax error"),
        ({"query": "select * from people where AGE > 99"}, "#select \\* from people where AGE > 99: no row"),
        ({"query": "people", "partition_column": "WEIGHT", "num_partitions": 2}, "WEIGHT"),
        (
            {"query": "people", "partition_column": "NAME", "num_partitions": 2},
            "partition_column .*: NAME is string, w",
        ),
    ],
)
def test_query_that_cannot_be_read_is_refused(
    spark: SparkSession, tmp_path: Path, database: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(SourceError, match=message) as refused:
        catalog.read(spark, find(spark, tmp_path, kind="jdbc", url=database, **settings), BIG)
    assert "\n" not in str(refused.value)
