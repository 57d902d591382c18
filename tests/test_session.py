"""The settings of a session are those of conf/spark-defaults.conf."""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pyspark
import pytest
from pyspark.sql import SparkSession

from mlspark import session
from mlspark.errors import ConfigError

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


@pytest.mark.parametrize(("given", "there", "after"), [("0", "1", "0"), ("7", "7", "7")])
def test_setting_of_a_while_is_put_back_and_one_that_was_given_counts(
    spark: SparkSession, given: str, there: str, after: str
) -> None:
    name = "spark.sql.maxConcurrentOutputFileWriters"
    spark.conf.set(name, given)
    try:
        with suppress(ValueError), session.having(spark, name, "1", instead_of="0"):
            assert spark.conf.get(name) == there
            raise ValueError("odd")
        assert spark.conf.get(name) == after
    finally:
        spark.conf.unset(name)


@pytest.mark.skipif(not pyspark.__version__.startswith("4.2"), reason="conf/ names the Delta jar of pyspark 4.2")
def test_defaults_without_spark_submit_are_those_of_conf() -> None:
    lines = (ROOT / "conf" / "spark-defaults.conf").read_text().splitlines()
    in_file = dict(text.split(None, 1) for text in lines if text and not text.startswith("#"))
    assert session.defaults() == in_file


PLANNED = """
import sys
from contextlib import suppress
from pathlib import Path
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


BEGUN = """
import sys
from contextlib import suppress
from pathlib import Path
from mlspark import session
session.begin("begun")
from pyspark import SparkContext
for thread in session._begun:
    thread.join()
context = SparkContext._active_spark_context
print("before:", context and context.appName)
if context:
    spark = session.start("started", dict(setting.split("=") for setting in sys.argv[1:]))
    print("after:", spark.sparkContext is context, spark.conf.get("spark.sql.catalogImplementation"))
    print("rows:", spark.range(3).count())
"""


@pytest.mark.parametrize(
    ("options", "settings", "expected"),
    [
        ([], [], ["before: begun", "after: True in-memory", "rows: 3"]),
        # What a session must have from its start is only known when the settings are read.
        ([], ["spark.sql.catalogImplementation=hive"], ["before: begun", "after: False hive", "rows: 3"]),
        (
            ["--conf", "spark.sql.catalogImplementation=hive"],
            ["spark.sql.catalogImplementation=hive"],
            ["before: begun", "after: True hive", "rows: 3"],
        ),
        (["--master", "spark://127.0.0.1:9"], [], ["before: None"]),
        ([], ["--help"], ["before: None"]),
    ],
)
def test_spark_begins_beside_imports_on_this_machine_alone(
    tmp_path: Path, options: list[str], settings: list[str], expected: list[str]
) -> None:
    script = tmp_path / "begun.py"
    script.write_text(BEGUN)
    command = [str(Path(sys.executable).with_name("spark-submit")), *options, str(script), *settings]
    environment = {**os.environ, "SPARK_CONF_DIR": str(ROOT / "conf")}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=600, env=environment, cwd=tmp_path, check=False
    )
    told = [line for line in done.stdout.splitlines() if line.startswith(("before", "after", "rows"))]
    assert told == expected, done.stderr


def test_python_that_has_yet_to_start_java_begins_nothing() -> None:
    session.begin("anything")
    assert not session._begun


def test_spark_whose_texts_have_no_escapes_is_refused(spark: SparkSession) -> None:
    """Patterns and labels with a backslash or a quote would be others."""
    spark.conf.set("spark.sql.parser.escapedStringLiterals", "true")
    try:
        with pytest.raises(ConfigError, match=r"escapedStringLiterals is true.*leave it out"):
            session.start("anywhere")
    finally:
        spark.conf.unset("spark.sql.parser.escapedStringLiterals")


def test_stop_does_not_wait_for_the_thread_of_accumulators() -> None:
    """It looks once a second whether it is to end."""
    code = (
        "from pyspark.accumulators import AccumulatorTCPServer as tcp, AccumulatorUnixServer as unix\n"
        "from mlspark import session\n"
        "spark = session.start('stops')\n"
        "tcp.shutdown = unix.shutdown = lambda server: print('waits')\n"
        "session.stop(spark)\n"
        "print('stopped', spark.sparkContext._jsc)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=False)
    assert done.stdout == "stopped None\n", done.stderr
