"""The census jobs as they are on a standalone cluster of two workers, and a run whose files are on HDFS and S3."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pyspark.sql import SparkSession

from mlspark.datasets import census_like
from mlspark.streaming.snapshot import Snapshot
from mlspark.training import checkpoint
from mlspark.training.events import AttemptFailed, EpochEnded, Event, Restarting
from mlspark.training.launcher import launch
from mlspark.training.settings import RecoverySettings
from tools.cluster import settings as cluster_settings
from tools.cluster.hdfs import Hdfs
from tools.cluster.s3 import S3
from tools.cluster.standalone import Standalone

from ..training.conftest import new_run, ranks_of, write_snapshot

ROOT = Path(__file__).parents[2]


def test_census_jobs_run_unchanged_on_a_cluster(standalone: Standalone, tmp_path: Path) -> None:
    census_like.write(tmp_path / "data", num_train=800, num_test=300, seed=2, bad_rows=0)
    conf = tmp_path / "conf"
    each_on_its_own = {"spark.executor.cores": "1", "spark.cores.max": "2"}
    cluster_settings.write_conf(conf, cluster_settings.spark_settings(standalone=standalone) | each_on_its_own)
    environment = os.environ | {"SPARK_CONF_DIR": str(conf), "PYTHONPATH": str(ROOT), "PYSPARK_PYTHON": sys.executable}
    places = [f"storage.root={tmp_path / 'home'}", f"sources.root={tmp_path / 'data'}", "training.epochs=2"]
    submit = [str(Path(sys.executable).parent / "spark-submit"), "--master", standalone.url]
    reports = {}
    for job in ("prepare", "train", "promote", "score"):
        command = [*submit, f"jobs/{job}.py", "--config", "conf/census.yaml", "--report", str(tmp_path / job)]
        command += [part for place in places for part in ("--set", place)]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        reports[job] = json.loads((tmp_path / job).read_text())
    assert reports["train"]["world_size"] == 2
    assert reports["promote"]["verdict"] == "promoted"
    assert reports["score"]["rows_scored"] == 300
    events = (tmp_path / "home" / "runs" / reports["train"]["run_id"] / "events.jsonl").read_text().splitlines()
    kinds = [json.loads(line)["event"] for line in events]
    assert kinds[0] == "started"
    assert kinds[-1] == "ended"


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    return write_snapshot(tmp_path_factory.mktemp("rows"))


@pytest.mark.parametrize("store", ["hdfs", "s3"])
def test_run_on_a_store_survives_a_killed_rank(
    cluster_spark: SparkSession, hdfs: Hdfs, s3: S3, rows: Snapshot, tmp_path: Path, store: str
) -> None:
    url = {"hdfs": hdfs.url, "s3": s3.url}[store]
    undisturbed = launch(cluster_spark, new_run(tmp_path, rows, dropout=0.2), lambda event: None)
    spec = new_run(f"{url}/training/run", rows, dropout=0.2, recovery=RecoverySettings(backoff_seconds=0.1))
    seen: list[Event] = []

    def kill_one(event: Event) -> None:
        if isinstance(event, EpochEnded) and not any(isinstance(earlier, AttemptFailed) for earlier in seen):
            os.kill(ranks_of(spec)[-1], signal.SIGKILL)
        seen.append(event)

    outcome = launch(cluster_spark, spec, kill_one)
    assert outcome.restarts == sum(isinstance(event, Restarting) for event in seen) == 1
    weights, expected = (checkpoint.load(each.checkpoint_uri).weights for each in (outcome, undisturbed))
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
