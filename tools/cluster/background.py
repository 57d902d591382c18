"""Servers that run in the background until they are stopped, and a note for people of how to use them."""

import fcntl
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mlspark import storage
from tools.cluster import hdfs, metastore, postgres, s3, settings, standalone
from tools.cluster.hdfs import Hdfs
from tools.cluster.metastore import Metastore
from tools.cluster.postgres import Postgres
from tools.cluster.process import ClusterError
from tools.cluster.s3 import S3
from tools.cluster.standalone import Standalone

SERVERS = {"hdfs": hdfs, "s3": s3, "metastore": metastore, "postgres": postgres, "standalone": standalone}
_START_SECONDS = 300
_STOP_SECONDS = 120


@dataclass(frozen=True)
class Cluster:
    """The servers that run; None for those that were not asked for."""

    hdfs: Hdfs | None = None
    s3: S3 | None = None
    metastore: Metastore | None = None
    postgres: Postgres | None = None
    standalone: Standalone | None = None


@contextmanager
def serve(servers: Sequence[str] = tuple(SERVERS)) -> Iterator[Cluster]:
    """Yield the named servers, started one after the other.

    Raises:
        ClusterError: a name is unknown, or a server did not start.
    """
    unknown = sorted(set(servers) - set(SERVERS))
    if unknown:
        raise ClusterError(f"{', '.join(unknown)}: unknown; known servers: {', '.join(SERVERS)}")
    with ExitStack() as stack:
        running: dict[str, Any] = {name: stack.enter_context(SERVERS[name].serve()) for name in servers}
        yield Cluster(**running)


def start(folder: Path, servers: Sequence[str]) -> bool:
    """Start servers in the background and return when they answer; False when some already run.

    `folder` gets state.json, environment.sh (to be sourced), conf/ (a SPARK_CONF_DIR) and log.txt, for the owner only.

    Raises:
        ClusterError: a server did not start; none runs then.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if _holder(folder) is not None:
        _wait_for_state(folder)
        return False
    log = folder / "log.txt"
    command = [sys.executable, "-m", "tools.cluster", "run", *servers]
    with log.open("wb") as output:
        child = subprocess.Popen(  # noqa: S603 (ourselves)
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    try:
        _wait_for_state(folder, child)
    except BaseException:  # Ctrl-C, too
        child.terminate()
        child.wait()
        raise
    return True


def stop(folder: Path) -> bool:
    """Stop the servers and return when they are gone; False when none run."""
    holder = _holder(folder)
    if holder is None:
        return False
    os.kill(holder, signal.SIGTERM)
    end = time.monotonic() + _STOP_SECONDS
    while _holder(folder) is not None:
        if time.monotonic() > end:
            raise ClusterError(f"process {holder} did not stop within {_STOP_SECONDS} s; see {folder / 'log.txt'}")
        time.sleep(0.1)
    return True


def run(folder: Path, servers: Sequence[str]) -> None:
    """Run servers until SIGTERM.

    Raises:
        ClusterError: a server did not start, or some run already.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with (folder / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ClusterError("another start is under way") from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        _remove_files(folder)  # of one that was killed
        try:
            with serve(servers) as cluster:
                _write_files(folder, cluster)
                while True:
                    signal.pause()
        finally:
            _remove_files(folder)


def guide(folder: Path) -> str:
    """Return what runs where, and the commands that use it."""
    return _guide(folder, _load(folder))


def _load(folder: Path) -> Cluster:
    state: dict[str, dict[str, Any] | None] = json.loads((folder / "state.json").read_text())
    kinds = {"hdfs": Hdfs, "s3": S3, "metastore": Metastore, "postgres": Postgres, "standalone": Standalone}
    return Cluster(**{name: kinds[name](**fields) for name, fields in state.items() if fields is not None})


def _holder(folder: Path) -> int | None:
    """Return the process that runs the servers: it holds the lock for as long as it lives."""
    try:
        with (folder / "lock").open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return None
    except BlockingIOError:
        while not (text := (folder / "lock").read_text()):  # it writes its id right after it has got the lock
            time.sleep(0.01)
        return int(text)
    return None


def _wait_for_state(folder: Path, child: "subprocess.Popen[bytes] | None" = None) -> None:
    end = time.monotonic() + _START_SECONDS
    while not (folder / "state.json").exists():
        if (child.poll() is not None) if child else (_holder(folder) is None):
            lines = (folder / "log.txt").read_text(errors="replace").strip().splitlines()
            raise ClusterError("\n".join(lines[-30:]).removeprefix("cluster: ") or "ended before it was ready")
        if time.monotonic() > end:
            raise ClusterError(f"not ready within {_START_SECONDS} s; see {folder / 'log.txt'}")
        time.sleep(0.2)


def _write_files(folder: Path, cluster: Cluster) -> None:
    """Write what people need; state.json last, since it says that the servers answer."""
    spark = settings.spark_settings(
        hdfs=cluster.hdfs, s3=cluster.s3, metastore=cluster.metastore, standalone=cluster.standalone
    )
    # Jobs run here unless --master says otherwise.
    settings.write_conf(folder / "conf", spark | {"spark.master": "local[2]"})
    if Path("conf/log4j2.properties").exists():
        shutil.copy("conf/log4j2.properties", folder / "conf")
    variables = {"SPARK_CONF_DIR": str((folder / "conf").absolute()), "SPARK_LOCAL_IP": "127.0.0.1"}
    variables |= settings.environment(
        hdfs=cluster.hdfs, s3=cluster.s3, metastore=cluster.metastore, postgres=cluster.postgres
    )
    exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())
    _write_private(folder / "environment.sh", exports)
    _write_private(folder / "state.json", json.dumps(asdict(cluster), indent=1) + "\n")


def _remove_files(folder: Path) -> None:
    for name in ("state.json", "environment.sh"):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / "conf", ignore_errors=True)


def _write_private(file: Path, text: str) -> None:
    partial = file.with_suffix(".partial")
    partial.touch(mode=0o600)
    partial.write_text(text)
    partial.rename(file)


def _guide(folder: Path, cluster: Cluster) -> str:
    """Return addresses, then commands that can be pasted; capitals and MLSPARK_DATA are the reader's to fill in."""
    addresses, commands = [], ["# in each shell: SPARK_CONF_DIR (jars and addresses), keys, passwords"]
    commands.append(f"source .venv/bin/activate; source {folder}/environment.sh")
    prepare = "jobs/prepare.py --config conf/census.yaml"
    if cluster.hdfs:
        addresses.append(f"HDFS        {cluster.hdfs.url}  (page {cluster.hdfs.web})")
        commands += ["# HDFS: raw data and tables", *_on(cluster.hdfs.url, prepare)]
    if cluster.s3:
        addresses.append(f"S3          {cluster.s3.url}  (at {cluster.s3.endpoint})")
        commands += ["# S3: raw data and tables", *_on(cluster.s3.url, prepare)]
    if cluster.metastore:
        addresses.append(f"metastore   {cluster.metastore.url}  (warehouse {cluster.metastore.warehouse})")
        source = f"{{kind: hive, table: DATABASE.TABLE, metastore: '{cluster.metastore.url}'}}"
        commands += ["# Hive: a table of it", f'spark-submit {prepare} --set "sources.learn={source}"']
    if cluster.postgres:
        addresses.append(f"PostgreSQL  {cluster.postgres.url}  (user and password in {folder}/environment.sh)")
        source = f"{{kind: jdbc, url: '{cluster.postgres.url}', query: TABLE}}"
        commands += ["# PostgreSQL: a table of it", f'spark-submit {prepare} --set "sources.learn={source}"']
    if cluster.standalone:
        addresses.append(f"Spark       {cluster.standalone.url}  (page {cluster.standalone.web})")
        commands += ["# Spark: executors of its workers", f"spark-submit --master {cluster.standalone.url} {prepare}"]
    return "\n".join([*(f"  {line}" for line in addresses), "", *commands])


def _on(store: str, prepare: str) -> list[str]:
    raw, home = storage.join(store, "raw"), storage.join(store, "mlspark")
    return [
        f'python -m tools.cluster upload "$MLSPARK_DATA" {raw}',
        f"spark-submit {prepare} --set sources.root={raw} --set storage.root={home}",
    ]
