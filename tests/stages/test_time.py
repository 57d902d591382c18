"""Moments are UTC whatever the session says: the same rows, ids and sides."""

from pathlib import Path

from pyspark.sql import SparkSession

from mlspark import tables
from mlspark.settings import loading
from mlspark.stages.prepare import prepare

from .test_names import write


def test_another_time_zone_of_the_session_changes_nothing(spark: SparkSession, tmp_path: Path) -> None:
    tables_of = []
    for zone in ("UTC", "America/New_York"):
        folder = tmp_path / zone.replace("/", "_")
        folder.mkdir()
        config = write(
            folder,
            {"at": "timestamp", "day": "date", "y": "string"},
            [f"2024-01-{day:02} 02:00:00,2024-01-{day:02},{day % 2}" for day in range(1, 29)],
            features={
                "inputs": [
                    {"kind": "cyclic", "columns": ["at"], "parts": ["hour"]},
                    {"kind": "number", "expression": "days(day)", "name": "days", "scale": "none"},
                ]
            },
            split={"by": "time", "time": "at", "validation_from": "2024-01-20 02:00:00"},
        )
        contract = folder / "contract.json"
        contract.write_text(contract.read_text().replace('"timestamp"}', '"timestamp", "nullable": false}'))
        spark.conf.set("spark.sql.session.timeZone", zone)
        try:
            report = prepare(spark, loading.load([str(config)]))
        finally:
            spark.conf.set("spark.sql.session.timeZone", "UTC")
        rows = tables.read(spark, report["table"]).orderBy("days", "row_id").collect()
        assert {row["split"] for row in rows if row["days"] >= 19742} == {"validation"}  # 2024-01-20
        assert sum(row["split"] == "train" for row in rows) == 19
        tables_of.append(rows)
    assert tables_of[0] == tables_of[1]
