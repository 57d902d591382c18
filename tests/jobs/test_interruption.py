"""Ctrl-C in a job, as a terminal sends it: to every process of the foreground."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient
from pyspark.sql import SparkSession

from mlspark.stages.prepare import prepare
from mlspark.tracking import runs

from ..conftest import ROOT, SAMPLE, census_settings


@pytest.mark.slow
@pytest.mark.parametrize(
    ("starter", "number"),
    [
        ("python", signal.SIGINT),
        ("spark-submit", signal.SIGINT),
        ("python", signal.SIGTERM),
        ("mlspark run", signal.SIGINT),
    ],
)
def test_interrupted_training_says_so_in_one_line_and_goes_on(
    spark: SparkSession, tmp_path: Path, starter: str, number: signal.Signals
) -> None:
    home = tmp_path / "home"
    settings = census_settings(SAMPLE, home)
    prepare(spark, settings)
    whole = starter == "mlspark run"  # the stage is one of several, whose imports are made beside those before
    program = [
        str(Path(sys.executable).with_name(word)) if place == 0 else word for place, word in enumerate(starter.split())
    ]
    command = [
        *program, *(["conf/census.yaml"] if whole else ["jobs/train.py", "--config", "conf/census.yaml"]),
        *(f"--set={setting}" for setting in ("training.epochs=100", "training.global_batch_size=64", "model.hidden=[16]")),
    ]  # fmt: skip
    places = {"MLSPARK_HOME": str(home), "MLSPARK_DATA": str(SAMPLE)}
    environment = os.environ | places | ({"SPARK_CONF_DIR": "conf"} if starter == "spark-submit" else {})
    job = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )  # fmt: skip
    deadline = time.monotonic() + 180
    while not list(home.glob("runs/*/checkpoints/step-*/manifest.json")) and time.monotonic() < deadline:
        assert job.poll() is None, job.communicate()
        time.sleep(0.1)
    if number == signal.SIGINT:
        os.killpg(job.pid, number)
    else:
        job.send_signal(number)
    output, errors = job.communicate(timeout=120)
    assert job.returncode == 128 + number
    lines = [line for line in errors.splitlines() if line.startswith("train: interrupted")]
    assert len(lines) == 1, errors
    step = re.fullmatch(r"train: interrupted at step (\d+); the same command goes on", lines[0])
    assert step is not None, lines
    assert "Traceback" not in output + errors
    assert "\tat " not in output + errors  # Java's traces
    newest = max(path.parent.name for path in home.glob("runs/*/checkpoints/step-*/manifest.json"))
    assert newest == f"step-{int(step[1]):010d}"
    [run] = MlflowClient(runs.embedded_uri(str(home))).search_runs(["1"])
    assert run.info.status == "KILLED"
