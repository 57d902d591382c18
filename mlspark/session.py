"""The SparkSession of a job. Driver only."""

import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from threading import Thread
from typing import Concatenate, ParamSpec, TypeVar

import pyspark
from pyspark import SparkConf, SparkContext
from pyspark.find_spark_home import _find_spark_home
from pyspark.logger import PySparkLogger
from pyspark.sql import SparkSession

from mlspark.errors import ConfigError

logger = logging.getLogger(__name__)

# The jar's name carries the Spark version since Delta 4.1.
_DELTA_JARS = {
    "4.0": "io.delta:delta-spark_2.13:4.0.1",
    "4.2": "io.delta:delta-spark_4.2_2.13:4.4.0",
}
# What Delta drags in and pyspark already has, in the same or a newer version.
_JARS_OF_PYSPARK = ",".join(
    f"{group}:*"
    for group in (
        "com.fasterxml.jackson.*", "com.github.luben", "io.airlift", "org.apache.hadoop", "org.apache.logging.log4j",
        "org.apache.parquet", "org.locationtech.jts", "org.slf4j", "org.xerial.snappy", "commons-pool",
        "com.google.code.findbugs", "org.roaringbitmap",
    )
)  # fmt: skip
_CONF = Path(__file__).parent / "spark_conf"
"""What Spark's shell and log read where the user has no folder of settings."""
_ADAPTIVE, _PARTITIONS = "spark.sql.adaptive.enabled", "spark.sql.shuffle.partitions"
_TIME_ZONE = "spark.sql.session.timeZone"
_NO_ESCAPES = "spark.sql.parser.escapedStringLiterals"
Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
_DELTA_EXTENSION = "io.delta.sql.DeltaSparkSessionExtension"


def defaults() -> dict[str, str]:
    """Return the settings of conf/spark-defaults.conf, for runs without spark-submit, with this Spark's Delta jar.

    Raises:
        ConfigError: no Delta jar is known for the installed pyspark.
    """
    version = ".".join(pyspark.__version__.split(".")[:2])
    if version not in _DELTA_JARS:
        raise ConfigError(f"pyspark {pyspark.__version__} is installed; supported: {', '.join(_DELTA_JARS)}")
    return {
        "spark.master": "local[2]",
        "spark.driver.memory": "2g",
        "spark.jars.packages": _DELTA_JARS[version],
        "spark.jars.excludes": _JARS_OF_PYSPARK,
        "spark.sql.extensions": _DELTA_EXTENSION,
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.sql.codegen.hugeMethodLimit": "8000",
        "spark.hadoop.parquet.block.row.count.limit": "50000",
        "spark.sql.parquet.compression.codec": "lz4_raw",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        "spark.sql.execution.arrow.maxBytesPerBatch": "64m",
        "spark.python.sql.dataFrameDebugging.enabled": "false",
        "spark.databricks.delta.snapshotPartitions": "2",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
    }


_begun: list[Thread] = []


def begin(app_name: str) -> None:
    """Begin what `start` ends, beside a thread that has seconds of imports to do; where spark-submit runs a job here.

    What a cluster is asked for waits until the settings were read and checked. What fails here fails again in `start`. The
    context has the settings of spark-submit, and its name from here.

    Args:
        app_name: what Spark's lists call the job.
    """
    if "PYSPARK_GATEWAY_PORT" not in os.environ or not {"-h", "--help"}.isdisjoint(sys.argv):
        return
    import pandas  # noqa: F401  # Spark does so before it calls Java, in twice the time beside a thread that imports

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)

    def begin_context() -> None:
        with suppress(Exception):
            SparkContext._ensure_initialized()  # else SparkConf knows no setting
            conf = SparkConf().setAppName(app_name)
            if str(conf.get("spark.master")).startswith("local"):
                SparkContext.getOrCreate(conf)

    _begun.append(Thread(target=begin_context, name="start of Spark"))
    _begun[-1].start()


def start(app_name: str, spark_settings: Mapping[str, str] | None = None, *, java_options: str = "") -> SparkSession:
    """Return the session of this job; settings come from spark-submit or SPARK_CONF_DIR, else from `defaults`.

    Args:
        app_name: what Spark's lists call the job.
        spark_settings: Spark settings that this job cannot do without, over all others.
        java_options: of Java, where it is started here; `spark.driver.extraJavaOptions` counts over them.

    Raises:
        ConfigError: the settings in force have no Delta, or another SQL.
    """
    # Workers must run this very Python, or they do not find the packages that the driver found.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.appName(app_name)
    is_submitted = "PYSPARK_GATEWAY_PORT" in os.environ
    if not is_submitted and "SPARK_CONF_DIR" not in os.environ:
        builder = builder.config(map=dict(defaults()))
    needed = spark_settings or {}
    while _begun:
        _begun.pop().join()
        context = SparkContext._active_spark_context
        if context and any(context.getConf().get(name) != value for name, value in needed.items()):
            context.stop()  # begun without what must be there from its start
    with _quiet_start(), _java_options(java_options):
        spark = builder.config(map=dict(needed)).getOrCreate()
    if _DELTA_EXTENSION not in (spark.conf.get("spark.sql.extensions", "") or ""):
        raise ConfigError(
            f"spark.sql.extensions lacks {_DELTA_EXTENSION}; start with SPARK_CONF_DIR=conf, "
            f"or copy conf/spark-defaults.conf into {os.environ.get('SPARK_CONF_DIR', 'your Spark conf folder')}"
        )
    if spark.conf.get(_NO_ESCAPES) == "true":
        raise ConfigError(
            f"{_NO_ESCAPES} is true, as Spark 1 was: texts in the SQL of mlspark have escapes; leave it out"
        )
    spark.conf.set(_TIME_ZONE, "UTC")  # whatever conf or command line say: see `computed_in_utc`
    return spark


def stop(spark: SparkSession) -> None:
    """Stop Spark at the end of a command: without the wait for pyspark's thread of accumulators, of up to 1.5 seconds.

    It looks once a second whether it is to end, and ends with the process.
    """
    spark.sparkContext._accumulatorServer = None  # type: ignore[assignment]
    spark.stop()


@contextmanager
def _quiet_start() -> Iterator[None]:
    """Have Java, should it be started meanwhile, leave standard error to the job; see `spark_conf/`.

    Not where somebody has given Spark a folder of settings: those count.
    """
    has_own = "SPARK_CONF_DIR" in os.environ or Path(_find_spark_home(), "conf").exists()
    if has_own or " " in str(_CONF):  # Spark's shell does not quote its name
        yield
        return
    os.environ["SPARK_CONF_DIR"] = str(_CONF)
    try:
        yield
    finally:
        del os.environ["SPARK_CONF_DIR"]  # a later start asks whether it is the user's


@contextmanager
def _java_options(options: str) -> Iterator[None]:
    """Have Java, should it be started meanwhile, be started with `options` before the user's own."""
    own = os.environ.get("SPARK_SUBMIT_OPTS")
    if not options:
        yield
        return
    os.environ["SPARK_SUBMIT_OPTS"] = f"{options} {own or ''}".strip()
    try:
        yield
    finally:
        if own is None:
            del os.environ["SPARK_SUBMIT_OPTS"]
        else:
            os.environ["SPARK_SUBMIT_OPTS"] = own


def plan_ahead(spark: SparkSession) -> None:
    """Have Spark plan each query of a session on few rows once, as a whole, with a task for each core. In local mode only.

    By itself Spark plans anew after each stage of a query, by what has come of it, and so joins 200 small tasks into one:
    a tenth of what preparing 100,000 rows of 41 columns takes. Neither has a say in which rows come out, in which order
    feature tables have them, or in what encoders are fitted to. Settings of the user's own count.
    """
    context = spark.sparkContext
    if not str(context.master).startswith("local") or any(map(context.getConf().contains, (_ADAPTIVE, _PARTITIONS))):
        return
    spark.conf.set(_ADAPTIVE, "false")
    spark.conf.set(_PARTITIONS, str(context.defaultParallelism))


@contextmanager
def having(spark: SparkSession, name: str, value: str, *, instead_of: str) -> Iterator[None]:
    """Have a session a value of a setting while the context lasts, in place of Spark's own: one that it was given counts."""
    if spark.conf.get(name) != instead_of:
        yield
        return
    spark.conf.set(name, value)
    try:
        yield
    finally:
        spark.conf.set(name, instead_of)


def computed_in_utc(
    work: Callable[Concatenate[SparkSession, Parameters], Result],
) -> Callable[Concatenate[SparkSession, Parameters], Result]:
    """Return a function that runs with its session's time zone at UTC, and puts the session's own back.

    Moments are UTC everywhere: hours, days, the split by time and the ids of rows must not depend on a setting of Spark's.
    """

    @wraps(work)
    def in_utc(spark: SparkSession, /, *arguments: Parameters.args, **named: Parameters.kwargs) -> Result:
        zone = str(spark.conf.get(_TIME_ZONE))
        if zone == "UTC":
            return work(spark, *arguments, **named)
        logger.warning("%s is %s: %s computes in UTC, as always", _TIME_ZONE, zone, work.__name__)
        spark.conf.set(_TIME_ZONE, "UTC")
        try:
            return work(spark, *arguments, **named)
        finally:
            spark.conf.set(_TIME_ZONE, zone)

    return in_utc


def task_cores(spark: SparkSession) -> int:
    """Return the cores that a task has to itself; what computes in it would else take all of the machine."""
    return int(spark.sparkContext.getConf().get("spark.task.cpus", "1") or 1)


@contextmanager
def unlogged() -> Iterator[None]:
    """Keep Spark from writing a failure with its Java stack to standard error when it raises it, too."""
    # Asked for by its own class: Spark passes these loggers arguments that others do not take.
    loggers = [PySparkLogger.getLogger(f"{kind}QueryContextLogger") for kind in ("DataFrame", "SQL")]
    were_disabled = [logger.disabled for logger in loggers]
    for logger in loggers:
        logger.disabled = True
    try:
        yield
    finally:
        for logger, was_disabled in zip(loggers, were_disabled, strict=True):
            logger.disabled = was_disabled
