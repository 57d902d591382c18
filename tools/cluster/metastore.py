"""A Hive metastore over thrift, from the jars that pyspark brings, with an embedded Derby behind it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from tools.cluster.process import SHORT_LIVED_JAVA, folder_for, read_port, script, started


@dataclass(frozen=True)
class Metastore:
    """A running metastore."""

    url: str
    """thrift://127.0.0.1:port"""
    warehouse: str
    """URI of the folder where databases and managed tables are; removed with the server when it is a file: one."""
    pid: int
    log: str


@contextmanager
def serve(*, warehouse: str = "") -> Iterator[Metastore]:
    """Yield an empty metastore; up in about 10 s.

    Args:
        warehouse: URI of a folder that Spark and its executors reach, hdfs://...; empty: a folder of this machine.

    Raises:
        ClusterError: it did not start.
    """
    with folder_for("metastore") as folder:
        warehouse = warehouse or f"file:{folder}/warehouse"
        (folder / "conf").mkdir()
        _write_site(
            folder / "conf" / "hive-site.xml",
            {
                "javax.jdo.option.ConnectionURL": f"jdbc:derby:;databaseName={folder}/derby;create=true",
                "javax.jdo.option.ConnectionDriverName": "org.apache.derby.iapi.jdbc.AutoloadedDriver",
                "datanucleus.schema.autoCreateAll": "true",
                "datanucleus.connectionPoolingType": "HikariCP",  # the default, BoneCP, is not among pyspark's jars
                "hive.metastore.schema.verification": "false",
                "hive.metastore.warehouse.dir": warehouse,
                "hive.async.log.enabled": "false",  # else NoClassDefFoundError: com/lmax/disruptor/...
            },
        )
        port_file = folder / "port"
        java_options = " ".join(SHORT_LIVED_JAVA)
        environment = {
            "SPARK_CONF_DIR": str(folder / "conf"),
            "PYSPARK_SUBMIT_ARGS": f"--driver-memory 512m --driver-java-options '{java_options}' pyspark-shell",
        }
        command = [*script("metastore_server.py"), port_file]
        with started("metastore", command, folder, environment=environment) as process:
            port = process.wait(lambda: read_port(port_file))
            yield Metastore(f"thrift://127.0.0.1:{port}", warehouse, process.pid, str(process.log))


def _write_site(file: Path, properties: Mapping[str, str]) -> None:
    lines = [
        f"<property><name>{name}</name><value>{escape(value)}</value></property>" for name, value in properties.items()
    ]
    file.write_text("\n".join(["<configuration>", *lines, "</configuration>"]))
