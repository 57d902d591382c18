"""A job over a table of a real, embedded Hive metastore: the session that it needs is started from its settings."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import pipeline, visits

JOB = """
import sys
from mlspark import tables
from mlspark.commands import job
from mlspark.stages.check import check_prepare
from mlspark.stages.prepare import prepare

def work(spark, settings):
    spark.sql("create database raw")
    spark.sql(
        "create table raw.visits (id int, age smallint, amount decimal(6,2), ratio double, seen date, at timestamp, "
        "sure boolean, name string) partitioned by (is_new string, year int) "
        "row format delimited fields terminated by ',' stored as textfile"
    )
    spark.sql("set hive.exec.dynamic.partition.mode=nonstrict")
    spark.sql(
        "insert into raw.visits select id, 30 + id, 1.5, 0.5, date'2020-01-31', timestamp'2020-01-31 10:00:00', true, "
        "'Ann', if(id % 2 = 0, 'yes', 'no'), 2020 + id % 3 from range(30)"
    )
    report = prepare(spark, settings)
    found = tables.read(spark, report["table"])
    return {**report, "features": found.count(), "again": prepare(spark, settings)["already_done"]}

job.run("prepare", work, check_prepare, [sys.argv[1]], None, sys.argv[2])
"""


@pytest.mark.slow
def test_partitioned_hive_table_is_prepared(folder: Path) -> None:
    settings = pipeline(folder, {"kind": "hive", "table": "raw.visits", "filter": "year = 2021"}, visits())
    assert settings.sources.learn.kind == "hive"
    report = folder / "report.json"
    command = [sys.executable, "-c", JOB, str(folder / "visits.yaml"), str(report)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(report.read_text())
    assert (found["rows_read"], found["rows_quarantined"], found["features"], found["again"]) == (10, 0, 10, True)
    source = found["sources"]["learn"]
    assert (source["uri"], source["num_parts"]) == ("raw.visits", 2)
    assert (folder / "metastore_db").is_dir()  # Hive's own, not Spark's catalog in memory
