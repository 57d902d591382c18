"""Each server works with this project's Spark, is closed to the network, and leaves nothing behind."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil
import pytest
from pyspark.sql import SparkSession
from pyspark.testing import assertDataFrameEqual

from tools.cluster import loading, process, settings
from tools.cluster import postgres as postgres_server
from tools.cluster.hdfs import Hdfs
from tools.cluster.metastore import Metastore
from tools.cluster.postgres import Postgres
from tools.cluster.process import ClusterError, NotInstalledError, folder_for, started
from tools.cluster.s3 import S3
from tools.cluster.standalone import Standalone

from ..conftest import is_alive, wait_until

ROOT = Path(__file__).parents[2]
ROWS = [(1, "Zürich", 0.5, "a"), (2, None, None, "b"), (3, "x, 'y' | \"z\"\n", -1e300, "b/c:d")]
SCHEMA = "id int, name string, share double, part string"


def test_table_comes_back_from_hdfs(cluster_spark: SparkSession, hdfs: Hdfs) -> None:
    rows = cluster_spark.createDataFrame(ROWS, SCHEMA)
    rows.write.format("delta").partitionBy("part").save(f"{hdfs.url}/backends/table")
    assertDataFrameEqual(cluster_spark.read.format("delta").load(f"{hdfs.url}/backends/table"), rows)


def test_table_comes_back_from_s3(cluster_spark: SparkSession, s3: S3) -> None:
    rows = cluster_spark.createDataFrame(ROWS, SCHEMA)
    rows.write.format("delta").partitionBy("part").save(f"{s3.url}/backends/table")
    assertDataFrameEqual(cluster_spark.read.format("delta").load(f"{s3.url}/backends/table"), rows)


def test_partitioned_hive_table_comes_back(cluster_spark: SparkSession, metastore: Metastore) -> None:
    rows = cluster_spark.createDataFrame(ROWS, SCHEMA)
    loading.to_hive(rows, "backends.people", partition_by=["part"])
    described = cluster_spark.sql("DESCRIBE FORMATTED backends.people").where("col_name IN ('Provider', 'Location')")
    assert {row.data_type for row in described.collect()} == {"hive", f"{metastore.warehouse}/backends.db/people"}
    partitions = cluster_spark.sql("SHOW PARTITIONS backends.people").collect()
    assert [row.partition for row in partitions] == ["part=a", "part=b", "part=b%2Fc%3Ad"]
    assertDataFrameEqual(cluster_spark.table("backends.people"), rows)


def test_delta_table_is_found_by_its_name_in_the_metastore(cluster_spark: SparkSession) -> None:
    rows = cluster_spark.createDataFrame(ROWS, SCHEMA)
    cluster_spark.sql("CREATE DATABASE IF NOT EXISTS backends")
    rows.write.format("delta").saveAsTable("backends.versions")
    rows.write.format("delta").mode("append").saveAsTable("backends.versions")
    assert cluster_spark.table("backends.versions").count() == 6
    assertDataFrameEqual(cluster_spark.sql("SELECT * FROM backends.versions VERSION AS OF 0"), rows)


def test_table_comes_back_from_postgres(cluster_spark: SparkSession, postgres: Postgres) -> None:
    rows = cluster_spark.createDataFrame(ROWS, SCHEMA)
    loading.to_postgres(rows, postgres, "people")
    assert postgres.execute("SELECT count(*), count(name), min(share) FROM people") == "3|2|-1e+300\n"
    read = cluster_spark.read.format("jdbc").options(**postgres.options).option("dbtable", "people").load()
    assertDataFrameEqual(read, rows)


def test_postgres_says_what_is_wrong(postgres: Postgres) -> None:
    with pytest.raises(ClusterError, match='relation "nobody" does not exist'):
        postgres.execute("CREATE TABLE half (id int); SELECT * FROM nobody")
    assert postgres.execute("SELECT to_regclass('half') IS NULL") == "t\n"


def test_missing_postgres_is_told_with_the_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(postgres_server, "_DEBIAN_PROGRAMS", tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotInstalledError, match="apt-get install postgresql"), postgres_server.serve():
        pass


def test_tasks_run_on_executors_of_the_workers(cluster_spark: SparkSession, standalone: Standalone) -> None:
    parents = cluster_spark.sparkContext.parallelize(range(2), 2).map(lambda _: os.getppid()).distinct().collect()
    executors = [psutil.Process(parent).parent() for parent in parents]  # task -> Python's daemon -> executor
    workers = {child.pid for pid in standalone.worker_pids for child in psutil.Process(pid).children(recursive=True)}
    assert {executor.pid for executor in executors if executor} <= workers


def test_standalone_cluster_refuses_who_does_not_know_the_secret(standalone: Standalone, tmp_path: Path) -> None:
    stranger = settings.spark_settings(standalone=standalone) | {"spark.authenticate.secret": "guess"}
    settings.write_conf(
        tmp_path, {name: value for name, value in stranger.items() if "sql" not in name and "jars" not in name}
    )
    log = tmp_path / "log"
    with log.open("wb") as output:
        submitted = subprocess.Popen(
            [process.SPARK_HOME / "bin" / "spark-submit", ROOT / "scripts" / "check_spark.py"],
            env=os.environ | {"SPARK_CONF_DIR": str(tmp_path)},
            cwd=tmp_path, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    try:  # it would try for a minute
        wait_until(lambda: "Mismatched response" in log.read_text(), 60)
    finally:
        os.killpg(submitted.pid, signal.SIGKILL)
        submitted.wait()
    assert "Registering app setup" not in Path(standalone.log).read_text()


def listened(server: psutil.Process) -> list[Any]:
    with contextlib.suppress(psutil.NoSuchProcess):  # PostgreSQL's workers come and go
        return [each.laddr for each in server.net_connections("inet") if each.status == psutil.CONN_LISTEN]
    return []


def test_everything_listens_on_loopback_only(
    cluster_spark: SparkSession, hdfs: Hdfs, s3: S3, metastore: Metastore, postgres: Postgres, standalone: Standalone
) -> None:
    pids = [server.pid for server in (hdfs, s3, metastore, postgres)]
    pids += [standalone.master_pid, *standalone.worker_pids]
    trees = [[*psutil.Process(pid).children(recursive=True)] for pid in pids]
    listening = [[address for child in tree for address in listened(child)] for tree in trees]
    assert all(listening)
    assert {address.ip for tree in listening for address in tree} <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}
    # Chosen by the system, none of the well-known ones: 5432, 6066, 7077, 8020, 9083.
    assert min(address.port for tree in listening for address in tree) > 10_000


# A server with a child of its own, and what a test run does with it.
SERVER = (
    "import subprocess, time; child = subprocess.Popen(['sleep', '300']); print(child.pid, flush=True); time.sleep(300)"
)
PARENT = """
import sys, time
from tools.cluster.process import folder_for, started
with folder_for("test") as folder, started("server", [sys.executable, "-c", sys.argv[1]], folder) as server:
    child = server.wait(lambda: server.log_text().strip() or None)
    print(server.pid, child, folder, flush=True)
    time.sleep(300)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_is_left_when_the_parent_is_killed(how: signal.Signals) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, SERVER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert parent.stdout
    supervisor, child, folder = parent.stdout.readline().split()
    parent.send_signal(how)
    parent.wait(30)
    parent.stdout.close()
    wait_until(lambda: not (is_alive(int(supervisor)) or is_alive(int(child)) or Path(folder).exists()))


def test_server_that_does_not_start_shows_its_log() -> None:
    command = [sys.executable, "-c", "raise OSError('no space')"]
    with (
        folder_for("test") as folder,
        started("broken", command, folder) as server,
        pytest.raises(ClusterError) as failed,
    ):
        server.wait(lambda: None)
    assert str(failed.value).startswith("broken ended before it was ready; its log:\nTraceback")
    assert str(failed.value).endswith("OSError: no space")
    assert not folder.exists()


def test_port_that_somebody_takes_first_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL cannot choose one itself, so it is told one that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ports = iter([port, process.free_port()])
        monkeypatch.setattr(postgres_server, "free_port", lambda: next(ports))
        try:
            with postgres_server.serve() as running:
                assert running.port != port
                assert running.execute("SELECT 1").strip() == "1"
        except NotInstalledError:
            pytest.skip("no PostgreSQL")
        monkeypatch.setattr(postgres_server, "free_port", lambda: port)
        with pytest.raises(ClusterError, match="Address already in use"), postgres_server.serve():
            pass


def test_server_that_is_late_is_stopped() -> None:
    late = started("late", ["sleep", "300"], folder := Path(tempfile.mkdtemp()))
    with late as server, pytest.raises(ClusterError, match="late was not ready within 0 s"):
        server.wait(lambda: None, seconds=0.3)
    assert not is_alive(server.pid)
    assert not folder.exists()
