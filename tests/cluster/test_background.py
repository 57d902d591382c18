"""`make cluster` and `make cluster-stop`, as far as their Python goes."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..conftest import is_alive, wait_until

ROOT = Path(__file__).parents[2]


def cluster(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return subprocess.run(
        [sys.executable, "-m", "tools.cluster", *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    cluster("stop", folder=tmp_path)


def state(folder: Path) -> dict[str, dict[str, str]]:
    content: dict[str, dict[str, str]] = json.loads((folder / ".mlspark/cluster/state.json").read_text())
    return content


def test_servers_run_until_they_are_stopped(folder: Path) -> None:
    assert cluster("stop", folder=folder).stdout == "cluster: not running\n"
    started = cluster("start", "s3", "postgres", folder=folder)
    assert started.returncode == 0, started.stderr
    assert started.stdout.startswith("cluster: running\n")
    servers = {name: server for name, server in state(folder).items() if server}
    assert set(servers) == {"s3", "postgres"}
    assert all(is_alive(int(server["pid"])) for server in servers.values())
    variables = (folder / ".mlspark/cluster/environment.sh").read_text().splitlines()
    for name, server in (("S3_URL", "s3"), ("POSTGRES_URL", "postgres")):  # which notebooks/receiving.py goes by
        assert f"export {name}={servers[server]['url']}" in variables
    again = cluster("start", folder=folder)
    assert again.stdout.splitlines()[0] == "cluster: already running; stop it first to start others"
    assert again.stdout.splitlines()[1:] == started.stdout.splitlines()[1:]
    assert cluster("stop", folder=folder).stdout == "cluster: stopped\n"
    assert not any(is_alive(int(server["pid"])) for server in servers.values())
    assert sorted(path.name for path in (folder / ".mlspark" / "cluster").iterdir()) == ["lock", "log.txt"]


def test_commands_it_prints_work(folder: Path) -> None:
    (folder / "raw").mkdir()
    (folder / "raw" / "people.csv").write_text("39\n")
    upload = next(
        line for line in cluster("start", "s3", folder=folder).stdout.splitlines() if line.startswith("python -m")
    )
    listing = "from mlspark import storage; print(storage.list_files('s3a://mlspark/raw'))"
    script = f'source .mlspark/cluster/environment.sh\n{upload}\npython -c "{listing}"\nls "$SPARK_CONF_DIR"'
    environment = os.environ | {"MLSPARK_DATA": "raw", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-euc", script], cwd=folder, env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.stdout == "['s3a://mlspark/raw/people.csv']\nspark-defaults.conf\n", done.stderr


def test_secrets_are_for_the_owner_only(folder: Path) -> None:
    cluster("start", "postgres", folder=folder)
    made = folder / ".mlspark" / "cluster"
    for name in ("state.json", "environment.sh", "conf/spark-defaults.conf"):
        assert (made / name).stat().st_mode & 0o077 == 0


def test_one_that_was_killed_does_not_stand_in_the_way(folder: Path) -> None:
    cluster("start", "s3", folder=folder)
    supervisor = int(state(folder)["s3"]["pid"])
    os.kill(int((folder / ".mlspark/cluster/lock").read_text()), signal.SIGKILL)
    wait_until(lambda: not is_alive(supervisor))
    assert cluster("stop", folder=folder).stdout == "cluster: not running\n"
    assert cluster("start", "s3", folder=folder).stdout.startswith("cluster: running\n")


def test_unknown_server_is_told_on_one_line(folder: Path) -> None:
    done = cluster("start", "hdfs", "hbase", folder=folder)
    assert done.returncode == 2
    assert done.stderr == "cluster: hbase: unknown; known servers: hdfs, s3, metastore, postgres, standalone\n"
