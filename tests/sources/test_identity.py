"""What a source's identity rests on: files once each, and all rows where nothing else tells of a change."""

import json
import os
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession
from pyspark.sql.types import StringType

from mlspark.contracts import check_spark
from mlspark.contracts.contract import ColumnRule, Contract
from mlspark.contracts.own_columns import RAW, REASONS
from mlspark.errors import SourceError
from mlspark.sources import catalog, file_states
from mlspark.sources.csv import CsvSettings
from mlspark.sources.images import ImagesSettings
from mlspark.sources.jdbc import JdbcSettings
from mlspark.sources.source import Part, Source

from .conftest import visits

URL = "jdbc:derby:memory:identity;create=true"


@pytest.fixture
def derby(spark: SparkSession) -> Iterator[Callable[[str], Any]]:
    """A database in memory that cannot say whether rows have changed, by the driver that comes with Spark."""
    spark._jvm.java.lang.Class.forName("org.apache.derby.iapi.jdbc.AutoloadedDriver")
    connection = spark._jvm.java.sql.DriverManager.getConnection(URL)
    yield connection.createStatement().execute
    connection.close()


def found(spark: SparkSession, query: str, **settings: Any) -> Source:
    return catalog.find(spark, JdbcSettings(kind="jdbc", url=URL, query=query, **settings), root="")


def test_values_replaced_in_place_make_another_source(spark: SparkSession, derby: Callable[[str], Any]) -> None:
    derby("CREATE TABLE seen (id INT, age SMALLINT, name VARCHAR(9))")
    derby("INSERT INTO seen VALUES (1, 30, 'Ann'), (2, 40, NULL), (2, 40, NULL)")
    before = found(spark, "seen").identity
    assert before == found(spark, "SEEN".lower()).identity
    assert before["rests_on"] == "a checksum of all rows"
    derby("UPDATE seen SET age = 31 WHERE id = 1")
    assert found(spark, "seen").identity["sha256"] != before["sha256"]
    derby("UPDATE seen SET age = 30 WHERE id = 1")
    assert found(spark, "seen").identity == before
    derby("UPDATE seen SET name = '40', age = NULL WHERE id = 2")
    assert found(spark, "seen").identity["sha256"] != before["sha256"]


def test_times_that_microseconds_cannot_hold_are_bad_rows(spark: SparkSession, derby: Callable[[str], Any]) -> None:
    derby("CREATE TABLE moments (id INT, seen TIMESTAMP, clock TIME)")
    derby(
        "INSERT INTO moments VALUES (1, '2024-03-01 10:00:00.123456789', '10:11:12'), "
        "(2, '2024-03-01 10:00:00.123456', NULL), (3, NULL, '23:59:59'), (4, '1969-12-31 23:59:59.9999991', NULL)"
    )
    before = found(spark, "moments").identity
    source = found(spark, "moments", filter="id < 9")
    assert catalog.columns(spark, source)["CLOCK"].dataType == StringType()
    contract = Contract(
        name="c",
        columns=(
            ColumnRule(name="id", header="ID", type="int"),
            ColumnRule(name="seen", header="SEEN", type="timestamp"),
            ColumnRule(name="clock", header="CLOCK", type="string"),
        ),
    )
    conformed = check_spark.conform(catalog.read(spark, source, contract), contract)
    rows = conformed.withColumn(RAW, check_spark.raw_text(conformed)).orderBy("id").collect()
    assert [(row.id, row.seen, row.clock, [reason.value for reason in row[REASONS]]) for row in rows] == [
        (1, rows[0].seen, "10:11:12", ["SEEN: digits below a microsecond: 2024-03-01 10:00:00.123456789"]),
        (2, datetime(2024, 3, 1, 10, 0, 0, 123456), None, []),
        (3, None, "23:59:59", []),
        (4, rows[3].seen, None, ["SEEN: digits below a microsecond: 1969-12-31 23:59:59.9999991"]),
    ]
    assert json.loads(rows[1][RAW]) == {"ID": 2, "SEEN": "2024-03-01T10:00:00.123456Z", "CLOCK": None}
    for changed in ("2024-03-01 10:00:00.123457", "2024-03-01 10:00:00.123456001"):
        derby(f"UPDATE moments SET seen = '{changed}' WHERE id = 2")
        assert found(spark, "moments").identity["sha256"] != before["sha256"]


def test_partition_column_without_bounds_is_named(spark: SparkSession, derby: Callable[[str], Any]) -> None:
    derby("CREATE TABLE far (id INT, x DOUBLE)")
    derby("INSERT INTO far VALUES (1, 1e300), (2, 0.5)")
    source = found(spark, "far", partition_column="x", num_partitions=2)
    with pytest.raises(SourceError, match=r"partition_column \(.*: x is from 0.5 to 1.0E300, which"):
        catalog.read(spark, source, visits())


@pytest.mark.parametrize("name", ["education-num", "Education-Num", "education_num"])
def test_partition_column_may_have_any_header(spark: SparkSession, derby: Callable[[str], Any], name: str) -> None:
    derby('CREATE TABLE schooled ("education-num" INT, education INT, num INT)')
    derby("INSERT INTO schooled VALUES (1, 0, 0), (9, 0, 0), (5, 0, 0)")
    contract = Contract(name="c", columns=(ColumnRule(name="education_num", header="education-num", type="int"),))
    source = found(spark, "schooled", partition_column=name, num_partitions=2)
    read = catalog.read(spark, source, contract)
    assert [sorted(row.education_num for row in part) for part in read.rdd.glom().collect()] == [[1], [5, 9]]
    derby("DROP TABLE schooled")


def test_partition_column_that_is_not_there_is_named(spark: SparkSession, derby: Callable[[str], Any]) -> None:
    derby("CREATE TABLE small (id INT)")
    derby("INSERT INTO small VALUES (1)")
    source = found(spark, "small", partition_column="age", num_partitions=2)
    with pytest.raises(SourceError, match=r"partition_column 'age': not a column of the source \(ID\)"):
        catalog.read(spark, source, visits())


def test_a_file_is_read_once_whatever_leads_to_it(
    spark: SparkSession, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "in" / "more").mkdir(parents=True)
    (tmp_path / "in" / "a%41.csv").write_text("1\n")
    (tmp_path / "in" / "b.csv").symlink_to("a%41.csv")
    os.link(tmp_path / "in" / "a%41.csv", tmp_path / "in" / "c.csv")
    (tmp_path / "in" / "more" / "d.csv").write_text("1\n")
    (tmp_path / "in" / "twice").symlink_to("more")
    source = catalog.find(spark, CsvSettings(kind="csv", path="in"), root=str(tmp_path))
    assert [part.name.rsplit("/", 1)[1] for part in source.parts] == ["a%41.csv", "d.csv"]
    assert "b.csv: is the same file as" in caplog.text
    assert source.identity["rests_on"] == "sizes and times of change of the files"
    (tmp_path / "in" / "more" / "round").symlink_to("..")
    with pytest.raises(SourceError, match=r"more/round: is a link to .*/in, a folder that it is in"):
        catalog.find(spark, CsvSettings(kind="csv", path="in"), root=str(tmp_path))


@pytest.mark.parametrize("kind", ["csv", "images"])
def test_files_without_a_time_of_change_are_known_by_their_content(
    spark: SparkSession, tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    settings = {"csv": CsvSettings, "images": ImagesSettings}[kind](kind=kind, path="in")
    (tmp_path / "in").mkdir()
    for name in ("a%41.csv", "b.csv"):
        (tmp_path / "in" / name).write_text("1\n")
    states = []
    for text, second in (("1\n", 0), ("2\n", 0), ("1\n", 0), ("1\n", 1)):
        (tmp_path / "in" / "a%41.csv").write_text(text)
        os.utime(tmp_path / "in" / "a%41.csv", (second, second))
        states.append(catalog.find(spark, settings, root=str(tmp_path)).identity)
    assert states[0] == states[2]
    assert len({state["sha256"] for state in states}) == 3
    assert states[0]["rests_on"] == "sizes and times of change of the files, and checksums of 1 without a time"
    assert "a%41.csv: has no time of change; 1 such files are read" in caplog.text


def test_files_of_this_second_are_listed_again_where_times_are_whole_seconds(tmp_path: Path) -> None:
    """A store of such times gives a file that is replaced within its second the same state."""
    second = int(time.time())
    listings = iter([[file_states.state(1, second * 10**6)], [file_states.state(1, (second + 1) * 10**6)]])
    listed = file_states.settled(lambda: [Part("a", state) for state in next(listings)])
    assert time.time() >= second + 1
    assert [part.state for part in listed] == [f"1 bytes, {(second + 1) * 10**6}"]
    fine = [Part("a", file_states.state(1, second * 10**6 + 1)), Part("b", file_states.state(1, 10**15))]
    assert file_states.settled(lambda: fine) == tuple(fine)
    # Of a clock that is years ahead, or before this one was set back: listed again once, and not waited for.
    ahead = iter([[Part("a", file_states.state(1, (second + 10**8) * 10**6))]] * 2)
    assert len(file_states.settled(lambda: next(ahead))) == 1
    assert next(ahead, None) is None
