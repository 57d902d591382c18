"""A submitted job on a standalone cluster: stages that end well, and one that is cancelled in the middle of its work."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from mlspark.datasets import census_like
from mlspark.queue import left_processes
from mlspark.queue.job import OPEN
from mlspark.queue.places import Places
from mlspark.queue.store import Store
from tools.cluster import settings as cluster_settings
from tools.cluster.standalone import Standalone

from ..conftest import wait_until

ROOT = Path(__file__).parents[2]


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Places]:
    """A queue whose jobs do not outlive the test."""
    made = Places(tmp_path / "queue")
    yield made
    with contextlib.closing(Store(made.database)) as store:
        for job in store.jobs(states=OPEN):
            store.cancel(job.id)
        wait_until(lambda: not store.has_work() or not made.has_worker())


def test_jobs_run_on_a_cluster_and_leave_it_when_they_are_cancelled(
    standalone: Standalone, queue: Places, tmp_path: Path
) -> None:
    census_like.write(tmp_path / "data", num_train=800, num_test=300, seed=2, bad_rows=0)
    each_on_its_own = {"spark.executor.cores": "1", "spark.cores.max": "2"}
    conf = cluster_settings.spark_settings(standalone=standalone) | each_on_its_own
    del conf["spark.master"]  # that is what the target says
    cluster_settings.write_conf(tmp_path / "conf", conf)
    shutil.copy(ROOT / "conf" / "log4j2.properties", tmp_path / "conf")
    environment = os.environ | {
        "MLSPARK_QUEUE": str(queue.folder), "MLSPARK_HOME": str(tmp_path / "home"), "MLSPARK_DATA": str(tmp_path / "data"),
        "SPARK_CONF_DIR": str(tmp_path / "conf"), "PYTHONPATH": str(ROOT),
    }  # fmt: skip

    def mlspark(*arguments: str, status: int = 0) -> str:
        command = [sys.executable, "-c", "from mlspark.commands.main import main; main()", *arguments]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout.strip()

    others = _applications(standalone)  # that of the other tests' session
    on_cluster = ("--target", "standalone", "--master", standalone.url)
    job = mlspark("submit", "conf/census.yaml:prepare,train", *on_cluster, "--set", "training.epochs=2")
    assert mlspark("wait", job) == f"{job}: succeeded"
    report = json.loads((queue.folder / "jobs" / job / "train.json").read_text())
    assert (report["world_size"], report["model_version"]) == (2, 1)

    before = set((tmp_path / "home").glob("runs/*"))
    endless = mlspark("submit", "conf/census.yaml:train", *on_cluster, "--set", "training.epochs=10000")
    with contextlib.closing(Store(queue.database)) as store:
        wait_until(lambda: _has_checkpoint(set((tmp_path / "home").glob("runs/*")) - before), 300.0)
        [attempt] = store.attempts(store.job(endless))
        folder = queue.attempt(store.job(endless), attempt)
        assert left_processes.of(folder)
        assert mlspark("cancel", endless) == f"{endless}: cancelled"
        assert left_processes.of(folder) == []
        assert "train: interrupted at step" in (folder / "log").read_text()
    # The master has its slots back.
    wait_until(lambda: _applications(standalone) <= others)


def _applications(standalone: Standalone) -> set[str]:
    """Return the ids of the applications that the master knows and that have not ended."""
    with urlopen(f"{standalone.web}/json/", timeout=60) as answer:
        return {application["id"] for application in json.load(answer)["activeapps"]}


def _has_checkpoint(runs: set[Path]) -> bool:
    return any(list(run.glob("checkpoints/step-*/manifest.json")) for run in runs)
