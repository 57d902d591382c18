"""What a source's identity rests on: files once each, and all rows where nothing else tells of a change."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from mlspark.contracts.contract import ColumnRule, Contract
from mlspark.errors import SourceError
from mlspark.sources import catalog
from mlspark.sources.csv import CsvSettings
from mlspark.sources.jdbc import JdbcSettings
from mlspark.sources.source import Source

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
