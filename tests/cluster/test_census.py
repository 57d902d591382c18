"""The same census from every kind of store: the same feature rows, the same account."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from pyspark.sql import DataFrame, SparkSession

from mlspark import tables
from mlspark.contracts import check_spark
from mlspark.contracts import contract as contracts
from mlspark.datasets import census_like
from mlspark.settings import loading
from mlspark.settings.pipeline import Settings
from mlspark.sources import catalog
from mlspark.stages.prepare import prepare
from tools.cluster import loading as bulk_loading
from tools.cluster.hdfs import Hdfs
from tools.cluster.metastore import Metastore
from tools.cluster.postgres import Postgres
from tools.cluster.s3 import S3

ROOT = Path(__file__).parents[2]
CENSUS = str(ROOT / "conf" / "census.yaml")
Overlay = Mapping[str, Mapping[str, Any]]


def settings(folder: Path, root: str, overlay: Overlay | None = None) -> Settings:
    """The census pipeline, tables below `root`, its sources those of `overlay`."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "overlay.yaml"
    given = {"sources": dict(overlay or {}), "storage": {"root": root}, "contract": str(ROOT / "schemas/census.json")}
    file.write_text(yaml.safe_dump(given))
    return loading.load([CENSUS, str(file)])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    census_like.write(folder, num_train=800, num_test=300, seed=2, bad_rows=0)
    return folder


@pytest.fixture(scope="module")
def typed(cluster_spark: SparkSession, data: Path, tmp_path_factory: pytest.TempPathFactory) -> DataFrame:
    """The census rows in the contract's types, with a column `part` (learn, test)."""
    csv = settings(tmp_path_factory.mktemp("typed"), "unused", {"root": str(data)})
    contract = contracts.load(csv.contract)
    names = [column.name for column in contract.columns]
    frames = []
    for part, source in (("learn", csv.sources.learn), ("test", csv.sources.test)):
        assert source is not None
        rows = catalog.read(cluster_spark, catalog.find(cluster_spark, source, root=str(data)), contract)
        frames.append(check_spark.conform(rows, contract).selectExpr(*names, f"'{part}' as part"))
    return frames[0].unionByName(frames[1]).cache()


def prepared(spark: SparkSession, pipeline: Settings) -> tuple[list[Any], dict[str, Any]]:
    """The sorted feature rows, and the account."""
    report = prepare(spark, pipeline)
    rows = tables.read(spark, report["table"], version=report["version"])
    account = {key: report[key] for key in ("rows_read", "rows_good", "rows_quarantined", "reasons")}
    return sorted((tuple(row) for row in rows.select(sorted(rows.columns)).collect()), key=str), account


@pytest.fixture(scope="module")
def expected(
    cluster_spark: SparkSession, data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[Any], dict[str, Any]]:
    """What CSV files on the local disk give."""
    folder = tmp_path_factory.mktemp("local")
    rows, account = prepared(cluster_spark, settings(folder, str(folder), {"root": str(data)}))
    assert account == {"rows_read": len(rows), "rows_good": len(rows), "rows_quarantined": 0, "reasons": {}}
    return rows, account


def both(source: Callable[[str], Mapping[str, Any]]) -> Overlay:
    return {"learn": source("learn"), "test": source("test")}


def test_csv_on_hdfs(cluster_spark: SparkSession, hdfs: Hdfs, data: Path, expected: Any, tmp_path: Path) -> None:
    bulk_loading.upload(data / "adult", f"{hdfs.url}/census/raw/adult")
    pipeline = settings(tmp_path, f"{hdfs.url}/census/home", {"root": f"{hdfs.url}/census/raw"})
    assert prepared(cluster_spark, pipeline) == expected
    assert prepare(cluster_spark, pipeline)["already_done"]


def test_csv_on_s3(cluster_spark: SparkSession, s3: S3, data: Path, expected: Any, tmp_path: Path) -> None:
    bulk_loading.upload(data / "adult", f"{s3.url}/census/raw/adult")
    pipeline = settings(tmp_path, f"{s3.url}/census/home", {"root": f"{s3.url}/census/raw"})
    assert prepared(cluster_spark, pipeline) == expected
    assert prepare(cluster_spark, pipeline)["already_done"]


def test_parquet(cluster_spark: SparkSession, typed: DataFrame, expected: Any, tmp_path: Path) -> None:
    typed.repartition(3).write.partitionBy("part").parquet(str(tmp_path / "raw"))
    overlay = both(lambda part: {"kind": "parquet", "path": f"{tmp_path}/raw/part={part}"})
    assert prepared(cluster_spark, settings(tmp_path, str(tmp_path / "home"), overlay)) == expected


def test_partitioned_hive_table(
    cluster_spark: SparkSession, metastore: Metastore, typed: DataFrame, expected: Any, tmp_path: Path
) -> None:
    bulk_loading.to_hive(typed, "lake.census", partition_by=["part"])
    overlay = both(lambda part: {"kind": "hive", "table": "lake.census", "filter": f"part = '{part}'"})
    assert prepared(cluster_spark, settings(tmp_path, str(tmp_path / "home"), overlay)) == expected


def test_delta_at_an_older_version(
    cluster_spark: SparkSession, hdfs: Hdfs, typed: DataFrame, expected: Any, tmp_path: Path
) -> None:
    table = f"{hdfs.url}/census/delta"
    typed.write.format("delta").save(table)
    typed.limit(10).write.format("delta").mode("overwrite").save(table)
    overlay = both(lambda part: {"kind": "delta", "path": table, "version": 0, "filter": f"part = '{part}'"})
    assert prepared(cluster_spark, settings(tmp_path, str(tmp_path / "home"), overlay)) == expected


def test_postgres(
    cluster_spark: SparkSession, postgres: Postgres, typed: DataFrame, expected: Any, tmp_path: Path
) -> None:
    bulk_loading.to_postgres(typed, postgres, "census")
    overlay = both(
        lambda part: {
            "kind": "jdbc",
            "url": postgres.options["url"],
            "query": f"SELECT * FROM census WHERE part = '{part}'",
            "partition_column": "fnlwgt",
            "num_partitions": 2,
        }
    )
    assert prepared(cluster_spark, settings(tmp_path, str(tmp_path / "home"), overlay)) == expected
