"""A Spark standalone cluster: one master, some workers."""

import re
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from tools.cluster.process import SHORT_LIVED_JAVA, SPARK_HOME, Process, folder_for, started

_LOG = """\
rootLogger.level = info
rootLogger.appenderRef.stdout.ref = console
appender.console.type = Console
appender.console.name = console
appender.console.target = SYSTEM_OUT
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{HH:mm:ss} %p %c{1}: %m%n%ex
"""


@dataclass(frozen=True)
class Standalone:
    """A running cluster."""

    url: str
    """spark://127.0.0.1:port"""
    web: str
    """The master's page, http://127.0.0.1:port"""
    secret: str
    """For spark.authenticate.secret: anyone who can submit an application runs code as the user of this process."""
    master_pid: int
    worker_pids: tuple[int, ...]
    log: str


@contextmanager
def serve(*, workers: int = 2, cores: int = 4, memory: str = "4g") -> Iterator[Standalone]:
    """Yield a cluster whose workers have registered; up in about 10 s.

    Args:
        workers: worker processes.
        cores: task slots of each worker, whatever the machine has: applications side by side must not wait for ever.
        memory: memory that each worker gives to executors.

    Raises:
        ClusterError: it did not start.
    """
    secret = secrets.token_hex(16)
    with ExitStack() as stack:
        folder = stack.enter_context(folder_for("spark-master"))
        conf = folder / "conf"
        conf.mkdir()
        (conf / "log4j2.properties").write_text(_LOG)
        settings = {
            "spark.authenticate": "true",
            "spark.authenticate.secret": secret,
            "spark.master.rest.enabled": "false",  # takes submissions without the secret, always on port 6066
            "spark.ui.killEnabled": "false",
        }
        (conf / "spark-defaults.conf").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
        environment = {
            "SPARK_HOME": str(SPARK_HOME),
            "SPARK_CONF_DIR": str(conf),
            "SPARK_LOCAL_IP": "127.0.0.1",
            "SPARK_DAEMON_MEMORY": "256m",
            "SPARK_DAEMON_JAVA_OPTS": " ".join(SHORT_LIVED_JAVA),
        }
        spark_class = SPARK_HOME / "bin" / "spark-class"
        address = ("--host", "127.0.0.1", "--port", "0", "--webui-port", "0")
        command = [spark_class, "org.apache.spark.deploy.master.Master", *address]
        master = stack.enter_context(started("spark-master", command, folder, environment=environment))
        url = master.wait(lambda: _find(r"Starting Spark master at (spark://\S+)", master))
        web = master.wait(lambda: _find(r"MasterWebUI .*started at (http://\S+)", master))
        web = web.replace("localhost", "127.0.0.1")
        worker_pids = []
        for _ in range(workers):
            work = stack.enter_context(folder_for("spark-worker"))
            size = ("--cores", str(cores), "--memory", memory, "--work-dir", str(work))
            command = [spark_class, "org.apache.spark.deploy.worker.Worker", *address, *size, url]
            worker = stack.enter_context(started("spark-worker", command, work, environment=environment))
            worker_pids.append(worker.pid)
        master.wait(lambda: True if master.log_text().count("Registering worker") == workers else None)
        yield Standalone(url, web, secret, master.pid, tuple(worker_pids), str(master.log))


def _find(pattern: str, master: Process) -> str | None:
    match = re.search(pattern, master.log_text())
    return match.group(1) if match else None
