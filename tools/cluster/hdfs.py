"""A real HDFS in one Java process: one NameNode, some DataNodes, WebHDFS."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from tools.cluster import jars
from tools.cluster.process import SHORT_LIVED_JAVA, SPARK_JARS, folder_for, java, started


@dataclass(frozen=True)
class Hdfs:
    """A running HDFS whose superuser is the user of this process."""

    url: str
    """hdfs://127.0.0.1:port"""
    web: str
    """The NameNode's page, http://127.0.0.1:port"""
    pid: int
    log: str


@contextmanager
def serve(*, datanodes: int = 2) -> Iterator[Hdfs]:
    """Yield an empty HDFS on ports that the system chooses; up in 6 to 18 s, about 300 MB.

    Raises:
        ClusterError: no Java, no jars, or it did not start.
    """
    with folder_for("hdfs") as folder:
        details, conf = folder / "details.json", folder / "conf.xml"
        # All on one class path: with --packages Hadoop's classes would come from two loaders (IllegalAccessError).
        class_path = os.pathsep.join([*map(str, jars.minicluster()), str(SPARK_JARS / "*")])
        command = [
            *(java(), *SHORT_LIVED_JAVA, "-Xmx512m", f"-Dtest.build.data={folder}/data", "-cp", class_path),
            *("org.apache.hadoop.test.MiniDFSClusterManager", "-format", "-datanodes", str(datanodes)),
            *("-writeConfig", str(conf), "-writeDetails", str(details)),
            *("-D", "dfs.replication=1", "-D", "dfs.namenode.fs-limits.min-block-size=0"),
        ]
        with started("hdfs", command, folder) as process:
            port = process.wait(lambda: _namenode_port(details))
            properties = {
                entry.findtext("name"): entry.findtext("value") or ""
                for entry in ElementTree.parse(conf).getroot()  # noqa: S314 (written by our own server)
            }
            web = properties["dfs.namenode.http-address"].replace("localhost", "127.0.0.1")
            yield Hdfs(f"hdfs://127.0.0.1:{port}", f"http://{web}", process.pid, str(process.log))


def _namenode_port(details: Path) -> int | None:
    """Return the port once the file is whole; it is written last, when the DataNodes have registered."""
    try:
        return int(json.loads(details.read_text())["namenode_port"])
    except (OSError, ValueError):
        return None
