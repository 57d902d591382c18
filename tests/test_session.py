"""The settings of a session are those of conf/spark-defaults.conf."""

import subprocess
import sys

import pyspark
import pytest
from pyspark.sql import SparkSession

from mlspark import session

from .conftest import ROOT


def test_what_is_computed_in_utc_puts_the_session_s_zone_back(spark: SparkSession) -> None:
    hour = session.computed_in_utc(lambda spark, text: spark.sql(f"SELECT hour(TIMESTAMP '{text}')").first()[0])
    spark.conf.set("spark.sql.session.timeZone", "America/New_York")
    try:
        assert hour(spark, "2024-01-02 02:00:00Z") == 2
        assert spark.conf.get("spark.sql.session.timeZone") == "America/New_York"
        assert session.start("anywhere").conf.get("spark.sql.session.timeZone") == "UTC"
    finally:
        spark.conf.set("spark.sql.session.timeZone", "UTC")


@pytest.mark.skipif(not pyspark.__version__.startswith("4.2"), reason="conf/ names the Delta jar of pyspark 4.2")
def test_defaults_without_spark_submit_are_those_of_conf() -> None:
    lines = (ROOT / "conf" / "spark-defaults.conf").read_text().splitlines()
    in_file = dict(text.split(None, 1) for text in lines if text and not text.startswith("#"))
    assert session.defaults() == in_file


PLANNED = """
import sys
from mlspark import session
spark = session.start("planned", dict(setting.split("=") for setting in sys.argv[1:]))
session.plan_ahead(spark)
names = ("spark.sql.adaptive.enabled", "spark.sql.shuffle.partitions")
print("planned:", *(spark.conf.get(name) for name in names))
"""


@pytest.mark.parametrize(
    ("settings", "planned"),
    [
        ([], "false 2"),
        (["spark.sql.adaptive.enabled=true"], "true 200"),
        (["spark.sql.shuffle.partitions=7"], "true 7"),
    ],
)
def test_few_rows_are_planned_as_a_whole_unless_the_user_has_said_how(settings: list[str], planned: str) -> None:
    """In a process of its own: the tests' session has settings for all of them."""
    command = [sys.executable, "-c", PLANNED, *settings]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert f"planned: {planned}\n" in done.stdout, done.stderr
