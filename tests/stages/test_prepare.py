"""The prepare stage on real Spark and Delta: every row accounted for, nothing written twice, no test row in the encoder."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from mlspark import tables
from mlspark.errors import ContractError, MlsparkError, SourceError
from mlspark.features import prepared
from mlspark.stages.prepare import prepare
from mlspark.streaming import delta_files

from ..conftest import census_settings

TRAIN_LINE = (
    "39, State-gov, 77516, Bachelors, 13, Never-married, Adm-clerical, Not-in-family, White, Male, 2174, 0, 40, "
    "United-States, <=50K"
)


def write_census(folder: Path, train: list[str], test: list[str]) -> Path:
    (folder / "adult").mkdir(parents=True)
    (folder / "adult" / "adult.data").write_text("\n".join(train) + "\n\n")
    (folder / "adult" / "adult.test").write_text("\n".join(["|1x3 Cross validator", *test]) + "\n\n")
    return folder


def line(**changes: Any) -> str:
    fields = TRAIN_LINE.split(", ")
    for index, value in changes.items():
        fields[int(index.removeprefix("f"))] = str(value)
    return ", ".join(fields)


def encoder_of(spark: SparkSession, data: Path, home: Path) -> Any:
    settings = census_settings(data, home)
    prepare(spark, settings)
    return prepared.latest(settings.table("features")).encoder


def test_every_row_is_good_or_quarantined_with_its_reasons(
    spark: SparkSession, small_census: Path, tmp_path: Path
) -> None:
    settings = census_settings(small_census, tmp_path)
    report = prepare(spark, settings)
    assert report["rows_read"] == report["rows_good"] + report["rows_quarantined"]
    assert report["rows_quarantined"] == 40
    assert sum(report["reasons"].values()) >= 40
    features = tables.read(spark, report["table"], version=report["version"])
    assert features.count() == report["rows_good"]
    assert features.where(F.expr(" or ".join(f"`{name}` is null" for name in features.columns))).isEmpty()
    quarantined = tables.read(spark, settings.table("quarantine")).collect()
    assert len(quarantined) == 40
    lines = {
        text
        for name in ("adult.data", "adult.test")
        for text in (small_census / "adult" / name).read_text().splitlines()
    }
    for row in quarantined:
        assert row.reasons
        assert row.raw in lines
        assert row.source_file.endswith("adult.data" if row.source == "learn" else "adult.test")


def test_second_run_says_already_done_and_adds_no_version(
    spark: SparkSession, small_census: Path, tmp_path: Path
) -> None:
    settings = census_settings(small_census, tmp_path)
    first, second = prepare(spark, settings), prepare(spark, settings)
    assert not first["already_done"]
    assert second["already_done"]
    assert {**first, "already_done": 0, "seconds": 0} == {**second, "already_done": 0, "seconds": 0}
    for kind in ("features", "quarantine"):
        assert [commit.version for commit in tables.commits(settings.table(kind))] == [0]


def test_other_settings_or_other_bytes_are_prepared_anew(spark: SparkSession, tmp_path: Path) -> None:
    data = write_census(tmp_path / "data", [TRAIN_LINE, line(f0=40)], [line(f14=">50K.")])
    versions = [prepare(spark, census_settings(data, tmp_path / "home", "split.validation_share=0"))["version"]]
    versions.append(
        prepare(
            spark,
            census_settings(
                data, tmp_path / "home", "split.validation_share=0", "features.inputs=[{kind: number, columns: [age]}]"
            ),
        )["version"]
    )
    with (data / "adult" / "adult.data").open("a") as file:
        file.write(line(f0=41) + "\n")
    versions.append(prepare(spark, census_settings(data, tmp_path / "home", "split.validation_share=0"))["version"])
    assert versions == [0, 1, 2]


def test_two_homes_get_the_same_rows_in_the_same_order(spark: SparkSession, small_census: Path, tmp_path: Path) -> None:
    orders = []
    for home, partitions in (("a", "2"), ("b", "5")):
        settings = census_settings(small_census, tmp_path / home)
        spark.conf.set("spark.sql.shuffle.partitions", partitions)
        spark.conf.set("spark.sql.files.maxPartitionBytes", str(40_000 * int(partitions)))
        try:
            report = prepare(spark, settings)
        finally:
            spark.conf.set("spark.sql.shuffle.partitions", "2")
            spark.conf.unset("spark.sql.files.maxPartitionBytes")
        pinned = delta_files.take(report["table"], version=report["version"])
        orders.append(
            [
                spark.read.parquet(pinned.uri(file)).coalesce(1).collect()
                for split in ("test", "train", "validation")
                for file in pinned.where(split=split).files
            ]
        )
    assert orders[0] == orders[1]


def log_columns(table: str) -> set[str]:
    """Return the columns of the log's newest version that say something of a file's rows."""
    names = pa.table(DeltaTable(table).get_add_actions(flatten=True)).column_names
    return {name for name in names if name.startswith(("num_records", "min.", "max.", "null_count."))}


def test_log_has_the_rows_of_each_file_and_no_ranges_of_features(spark: SparkSession, tmp_path: Path) -> None:
    data = write_census(tmp_path / "data", [line(f0=20 + age) for age in range(30)], [line(f14=">50K.")])
    report = prepare(spark, census_settings(data, tmp_path / "home"))
    assert log_columns(report["table"]) == {"num_records", "min.row_id", "max.row_id", "null_count.row_id"}
    files = pa.table(DeltaTable(report["table"]).get_add_actions(flatten=True))
    assert sum(files.column("num_records").to_pylist()) == report["rows_good"] == 31
    pinned = delta_files.take(report["table"], where=[("age", ">", 0.0)])  # a feature, whose ranges Parquet has
    scaled = [row.age for row in tables.read(spark, report["table"]).collect()]
    assert pinned.num_rows == sum(age > 0.0 for age in scaled) > 0


def test_table_with_ranges_of_all_columns_takes_more_versions(spark: SparkSession, tmp_path: Path) -> None:
    data = write_census(tmp_path / "data", [TRAIN_LINE, line(f0=40)], [line(f14=">50K.")])
    settings = census_settings(data, tmp_path / "home", "split.validation_share=0")
    table = settings.table("features")
    earlier = spark.range(3).selectExpr("CAST(id AS FLOAT) AS age", "id AS row_id", "'train' AS split")
    tables.write_next(earlier, table, after=None, metadata={"id": "a"}, mode="overwrite", partition_by=["split"])
    assert {"min.age", "min.row_id"} < log_columns(table)
    report = prepare(spark, settings)
    assert report["version"] == 1
    assert {"num_records", "min.age", "min.row_id", "min.label"} < log_columns(table)
    assert tables.read(spark, table).count() == report["rows_good"] == 3
    spark.sql(f"ALTER TABLE delta.`{table}` SET TBLPROPERTIES ('delta.dataSkippingStatsColumns' = 'row_id')")
    assert prepare(spark, settings)["already_done"]
    other = census_settings(data, tmp_path / "home", "split.validation_share=0.5")
    assert prepare(spark, other)["version"] == 3
    assert log_columns(table) == {"num_records", "min.row_id", "max.row_id", "null_count.row_id"}
    assert sorted(row.age for row in tables.read(spark, table, version=0).collect()) == [0.0, 1.0, 2.0]


def test_no_test_row_reaches_the_encoder(spark: SparkSession, tmp_path: Path) -> None:
    train = [line(f0=20 + age, f1="Private" if age % 2 else "State-gov") for age in range(40)]
    plain = write_census(tmp_path / "plain", train, [line(f14=">50K.")])
    other = write_census(tmp_path / "other", train, [line(f0=99, f1="Never-worked", f10=99999, f14="<=50K.")])
    assert encoder_of(spark, plain, tmp_path / "h1") == encoder_of(spark, other, tmp_path / "h2")
    more_train = write_census(tmp_path / "more", [*train, line(f0=99, f1="Never-worked")] * 3, [line()])
    assert encoder_of(spark, plain, tmp_path / "h1") != encoder_of(spark, more_train, tmp_path / "h3")


def test_validation_rows_are_chosen_by_content(spark: SparkSession, tmp_path: Path) -> None:
    rows = [line(f2=weight) for weight in range(1000, 1300)]
    data = write_census(tmp_path / "data", rows + rows[:50] + [line(f2=1000, f14=">50K")], [line()])
    fewer = write_census(tmp_path / "fewer", rows[:200], [line()])
    sides: list[dict[int, set[str]]] = []
    for folder, home in ((data, "h1"), (fewer, "h2")):
        report = prepare(spark, census_settings(folder, tmp_path / home, "split.validation_share=0.3"))
        found: dict[int, set[str]] = {}
        for row in tables.read(spark, report["table"]).where("split <> 'test'").select("row_id", "split").collect():
            found.setdefault(row.row_id, set()).add(row.split)
        sides.append(found)
    assert all(len(splits) == 1 for splits in sides[0].values())  # duplicates, even with another label, on one side
    assert all(sides[0][row] == splits for row, splits in sides[1].items())  # more rows move none
    assert 0.2 < sum(splits == {"validation"} for splits in sides[0].values()) / 300 < 0.4


@pytest.mark.parametrize(
    ("train", "overrides", "exception", "message"),
    [
        (None, ["sources.learn.path=adult/absent.data"], SourceError, r"absent\.data: no such file or folder; check"),
        ("", [], SourceError, r"adult\.data: no bytes to read"),
        ("\n\n", [], ContractError, r"learn: 0 good rows of 0 read, fewer than min_rows=1"),
        (TRAIN_LINE.rsplit(", ", 1)[0], [], ContractError, r"1 of 2 rows are bad \(malformed 1\).*nothing was written"),
        (line(f0="forty"), [], ContractError, r"1 of 2 rows are bad \(age.type 1\)"),
        (TRAIN_LINE, ["contract=no.json"], ContractError, "contract no.json: cannot be read"),
        (
            TRAIN_LINE,
            ["features.inputs=[{kind: index, columns: [jobs]}]"],
            MlsparkError,
            "index jobs: jobs: not a column of contract census",
        ),
    ],
)
def test_bad_input_is_refused_and_nothing_is_written(
    spark: SparkSession, tmp_path: Path, train: str | None, overrides: list[str], exception: type, message: str
) -> None:
    data = write_census(tmp_path / "data", [TRAIN_LINE], [line()])
    if train is not None:
        (data / "adult" / "adult.data").write_text(train)
    with pytest.raises(exception, match=message):
        prepare(spark, census_settings(data, tmp_path / "home", *overrides))
    assert not (tmp_path / "home").exists()


def test_one_text_in_a_number_column_is_quarantined_by_name(spark: SparkSession, tmp_path: Path) -> None:
    data = write_census(tmp_path / "data", [line(f0=20 + age) for age in range(20)] + [line(f0="forty")], [line()])
    settings = census_settings(data, tmp_path / "home")
    report = prepare(spark, settings)
    assert (report["rows_read"], report["rows_good"], report["reasons"]) == (22, 21, {"age.type": 1})
    [bad] = tables.read(spark, settings.table("quarantine")).collect()
    assert (bad.raw, [tuple(reason) for reason in bad.reasons]) == (line(f0="forty"), [("age", "type", "forty")])


@pytest.mark.slow
def test_real_census_is_read_whole(spark: SparkSession, whole_adult: Path, tmp_path: Path) -> None:
    report = prepare(spark, census_settings(whole_adult, tmp_path))
    assert (report["rows_read"], report["rows_good"], report["rows_quarantined"]) == (48_842, 48_842, 0)
    learn, test = report["sources"]["learn"], report["sources"]["test"]
    missing = ("missing_workclass", "missing_occupation", "missing_native_country")
    assert [learn[name] for name in missing] == [1_836, 1_843, 583]
    assert [test[name] for name in missing] == [963, 966, 274]
    assert (learn["label_events"], test["label_events"]) == (7_841, 3_846)
