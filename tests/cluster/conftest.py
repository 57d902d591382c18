"""Real servers, each started once when the first test asks for it.

`pytest` alone does not collect this folder (norecursedirs in pyproject.toml); `pytest tests/cluster` does, and so
does `make test-cluster`. A process of its own, because a JVM cannot change spark.jars.packages once it runs, and the
`spark` of the other tests has no S3, no PostgreSQL and no Hive.
"""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from pyspark.sql import SparkSession

from tools.cluster import hdfs as hdfs_server
from tools.cluster import metastore as metastore_server
from tools.cluster import postgres as postgres_server
from tools.cluster import s3 as s3_server
from tools.cluster import settings
from tools.cluster import standalone as standalone_server
from tools.cluster.hdfs import Hdfs
from tools.cluster.metastore import Metastore
from tools.cluster.postgres import Postgres
from tools.cluster.process import SHORT_LIVED_JAVA, NotInstalledError
from tools.cluster.s3 import S3
from tools.cluster.standalone import Standalone


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "cluster" in item.path.parts:
            item.add_marker(pytest.mark.spark_cluster)


@pytest.fixture(scope="session")
def hdfs() -> Iterator[Hdfs]:
    with hdfs_server.serve() as running:
        yield running


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    """The server; its address and keys are in this process's environment, too."""
    with s3_server.serve() as running, pytest.MonkeyPatch.context() as patch:
        for name, value in running.environment.items():
            patch.setenv(name, value)
        yield running


@pytest.fixture(scope="session")
def metastore() -> Iterator[Metastore]:
    with metastore_server.serve() as running:
        yield running


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """The server; user and password are in this process's environment, too."""
    with ExitStack() as stack:
        try:
            running = stack.enter_context(postgres_server.serve())
        except NotInstalledError as missing:
            pytest.skip(str(missing))
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in running.environment.items():
            patch.setenv(name, value)
        yield running


@pytest.fixture(scope="session")
def standalone() -> Iterator[Standalone]:
    with standalone_server.serve() as running:
        yield running


@pytest.fixture(scope="session")
def cluster_spark(hdfs: Hdfs, s3: S3, metastore: Metastore, standalone: Standalone) -> Iterator[SparkSession]:
    """A session on the standalone cluster that reaches all servers: one executor with 2 of the 8 task slots."""
    assert SparkSession.getActiveSession() is None, "run tests/cluster in a process of its own: pytest tests/cluster"
    together = settings.spark_settings(hdfs=hdfs, s3=s3, metastore=metastore, standalone=standalone) | {
        "spark.sql.shuffle.partitions": "2",
        "spark.log.level": "ERROR",
        # One executor, and JVMs that do not optimise for hours to come: half the time on two cores.
        "spark.executor.cores": "2",
        "spark.executor.extraJavaOptions": " ".join(SHORT_LIVED_JAVA),
        "spark.driver.extraJavaOptions": " ".join(SHORT_LIVED_JAVA),
    }
    started = SparkSession.builder.appName("tests/cluster").config(map=together).getOrCreate()
    yield started
    started.stop()
