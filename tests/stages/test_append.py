"""New files for a prepared table, and runs that meet: each row is in force once, under one commit."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from mlspark import quarantine, tables
from mlspark.errors import ConfigError, SourceError, TableError
from mlspark.features import prepared
from mlspark.settings.pipeline import Settings
from mlspark.stages.prepare import prepare
from mlspark.tables import ConcurrentWrite

from ..conftest import census_settings
from .test_prepare import line

DAY = [line(f0=20 + number, f1="Private" if number % 3 else "State-gov") for number in range(40)]


def write_day(data: Path, name: str, lines: list[str]) -> None:
    (data / "learn").mkdir(parents=True, exist_ok=True)
    (data / "learn" / name).write_text("\n".join(lines) + "\n")


@pytest.fixture
def daily(tmp_path: Path) -> Any:
    """A folder of daily files with its settings; one day is there."""
    data = tmp_path / "data"
    write_day(data, "day1.csv", DAY)
    (data / "test.csv").write_text(line(f14=">50K.") + "\n")
    overrides = ["sources.learn.path=learn", "sources.test.path=test.csv", "sources.test.comment=''"]
    return data, lambda *more: census_settings(data, tmp_path / "home", *overrides, *more)


def in_force(spark: SparkSession, settings: Settings) -> list[Any]:
    frame = tables.read(spark, settings.table("features"))
    return sorted(frame.collect(), key=str)


def test_append_takes_new_files_only_and_keeps_the_encoder(spark: SparkSession, daily: Any) -> None:
    data, settings = daily
    first = prepare(spark, settings())
    write_day(data, "day2.csv", [line(f0=90, f1="Without-pay", f2=number) for number in range(1000, 1030)] + ["broken"])
    second = prepare(spark, settings(), mode="append")
    assert (second["rows_read"], second["rows_good"], second["rows_quarantined"]) == (31, 30, 1)
    assert second["sources"].keys() == {"learn"}
    assert second["version"] == first["version"] + 1
    assert second["encoder_fingerprint"] == first["encoder_fingerprint"]
    assert len(in_force(spark, settings())) == 41 + 30
    assert prepared.read_quarantine(spark, settings().table("features"), settings().table("quarantine")).count() == 1
    assert second["shift"]["columns"]["workclass"]["unseen_share"] == 1.0
    warned = " ".join(second["shift"]["warnings"])
    assert "workclass: 100.0% of the rows have an unseen category" in warned
    assert "age: mean moved by +" in warned
    third = prepare(spark, settings(), mode="append")
    assert third["already_done"]
    assert third["version"] == second["version"]
    write_day(data, "day3.csv", [line(f0=33, f2=7)])
    assert prepare(spark, settings(), mode="append")["rows_good"] == 1
    rebuilt = prepare(spark, settings())
    assert rebuilt["rows_read"] == 41 + 31 + 1
    assert rebuilt["encoder_fingerprint"] != first["encoder_fingerprint"]


def test_append_refuses_what_does_not_fit_the_rows_in_force(spark: SparkSession, daily: Any) -> None:
    data, settings = daily
    with pytest.raises(TableError, match="no feature table"):
        prepare(spark, settings(), mode="append")
    prepare(spark, settings())
    before = in_force(spark, settings())
    with pytest.raises(ConfigError, match=r"features changed since version 0.*use --mode rebuild"):
        prepare(spark, settings("features.inputs=[{kind: number, columns: [age]}]"), mode="append")
    write_day(data, "day1.csv", [*DAY, line(f0=77)])
    with pytest.raises(SourceError, match=r"changed since version 0 took it: .*day1\.csv.*use --mode rebuild"):
        prepare(spark, settings(), mode="append")
    assert in_force(spark, settings()) == before


def test_append_quarantines_a_key_that_is_in_force(spark: SparkSession, daily: Any, tmp_path: Path) -> None:
    data, settings = daily
    contract = (Path(__file__).parents[2] / "schemas" / "census.json").read_text()
    keyed = tmp_path / "keyed.json"
    keyed.write_text(contract.replace('"label": "income",', '"label": "income", "unique_key": ["age", "fnlwgt"],'))
    with_key = settings(f"contract={keyed}")
    prepare(spark, with_key)
    write_day(data, "day2.csv", [DAY[3].replace("State-gov", "Private"), line(f0=88)] + [line(f2=n) for n in range(20)])
    report = prepare(spark, with_key, mode="append")
    assert report["reasons"] == {"age,fnlwgt.unique": 1}
    [bad] = prepared.read_quarantine(spark, with_key.table("features"), with_key.table("quarantine")).collect()
    assert bad.raw == DAY[3].replace("State-gov", "Private")


def test_leftovers_of_an_interrupted_run_are_not_seen(spark: SparkSession, daily: Any) -> None:
    data, settings = daily
    write_day(data, "day1.csv", [*DAY, "broken"])
    prepare(spark, settings())
    # What a run that was killed between quarantine and features leaves: a partition and sidecars of another id.
    bad = tables.read(spark, settings().table("quarantine"))
    tables.replace_part(
        bad.selectExpr("'dead' as job_id", "source", "source_file", "reasons", "raw"),
        settings().table("quarantine"),
        part="job_id",
        value="dead",
        metadata={"id": "dead", "rows": 1},
    )
    assert tables.read(spark, settings().table("quarantine")).count() == 2
    assert prepared.read_quarantine(spark, settings().table("features"), settings().table("quarantine")).count() == 1
    shutil.rmtree(Path(settings().table("features")))  # killed before the first commit
    with pytest.raises(TableError, match="no feature table"):
        prepared.read_quarantine(spark, settings().table("features"), settings().table("quarantine"))
    again = prepare(spark, settings())
    assert (
        again["rows_quarantined"]
        == prepared.read_quarantine(spark, settings().table("features"), settings().table("quarantine")).count()
        == 1
    )


def test_of_two_writers_after_the_same_version_one_wins(spark: SparkSession, tmp_path: Path) -> None:
    table = str(tmp_path / "table")
    rows = spark.range(3)
    first = tables.write_next(rows, table, after=None, metadata={"id": "a"}, mode="overwrite")
    same = tables.write_next(rows, table, after=None, metadata={"id": "a"}, mode="overwrite")
    assert same.version == first.version == 0
    tables.write_next(rows, table, after=first, metadata={"id": "b"}, mode="append")
    with pytest.raises(ConcurrentWrite, match=r"another run wrote version 1 \(id b\).*this one wrote nothing"):
        tables.write_next(rows, table, after=first, metadata={"id": "c"}, mode="append")
    assert tables.read(spark, table).count() == 6


def test_a_source_that_changes_while_it_is_read_is_refused(
    spark: SparkSession, daily: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, settings = daily
    write_quarantine = quarantine.write

    def meanwhile(*arguments: Any) -> None:
        write_quarantine(*arguments)
        write_day(data, "day1.csv", [*DAY, line(f0=66)])

    monkeypatch.setattr(quarantine, "write", meanwhile)
    with pytest.raises(SourceError, match=r"changed while it was read \(.*day1\.csv\)"):
        prepare(spark, settings())
    assert not tables.exists(settings().table("features"))
