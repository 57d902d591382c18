"""`mlspark demo` as a user sees it: the jobs' own lines and the summary, no word of the libraries beneath."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from mlspark.tracking import runs

from ..conftest import ROOT

EPOCH = r"epoch \d+/\d+(, step \d+ of \d+)?: .*"
LINES = (
    r"",
    r"data: the census files in .*",
    r"prepare|train|promote|score",
    r"  (learn|test|score): read [\d,]+ rows, kept [\d,]+, rejected .*",
    r"  encoder: fitted on [\d,]+ training rows, [0-9a-f]{12}",
    r"  features: wrote version \d+ of .* in [\d.]+ s",
    r"  training: run [0-9a-f]{32}, tabular, version \d+ of .*",
    rf"  {EPOCH}",
    r"  evaluation: evaluation\.html is kept with run [0-9a-f]{32}, in [\d.]+ s",
    r"  registered: version \d+ of model census in [\d.]+ s",
    r"  promotion: version 1 of model census is promoted: no version is alias champion yet",
    r"  scores: wrote version \d+ of .* in [\d.]+ s.*",
)
SUMMARY = ("raw rows", "features", "training", "test", "model", "champion", "scores", "log", "took")


@pytest.mark.slow
def test_demo_prints_its_own_lines_only(small_census: Path, tmp_path: Path) -> None:
    names = ("SPARK_HOME", "SPARK_CONF_DIR", "MLFLOW_TRACKING_URI")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    done = subprocess.run(
        [sys.executable, "-c", "from mlspark.commands.main import main; main()", "demo"],
        cwd=ROOT,
        env=environment | {"MLSPARK_DATA": str(small_census), "MLSPARK_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    assert done.stderr == ""
    assert "\x1b" not in done.stdout
    jobs, _, summary = done.stdout.partition("\nFrom raw rows to scores\n")
    unknown = [line for line in jobs.splitlines() if not any(re.fullmatch(known, line) for known in LINES)]
    assert unknown == []
    facts = [line[:10].strip() for line in summary.splitlines()[1:] if line[:10].strip()]
    assert [fact for fact in facts if fact in SUMMARY] == list(SUMMARY)
    assert "mlspark profile --config conf/census.yaml --html" in summary
    # As a user looks into the store: one run, ended, with the figures of the model.
    client = MlflowClient(runs.embedded_uri(str(tmp_path)))
    [run] = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert run.info.status == "FINISHED"
    assert {"train_loss", "validation_roc_auc", "test_accuracy"} <= run.data.metrics.keys()
    # Everything that the jobs said, those lines included: the libraries that cannot be silenced speak there.
    assert "registered: version 1 of model census" in (tmp_path / "demo.log").read_text()


@pytest.mark.slow
def test_demo_of_pictures_ends_with_the_commands_that_show_more(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("SPARK_HOME", "SPARK_CONF_DIR")}
    environment |= {"MLSPARK_DATA": str(tmp_path / "none"), "MLSPARK_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", "from mlspark.commands.main import main; main()", "demo", "pictures"],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    assert done.stderr == ""
    said = re.search(
        r"What the good rows hold, with samples of the pictures and those refused, as a page:\n  (.*)", done.stdout
    )
    assert said is not None, done.stdout
    # The very command: it needs nothing but what the demo left.
    shown = subprocess.run(
        shlex.split(said[1]), cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )  # fmt: skip
    assert shown.returncode == 0, shown.stdout + shown.stderr
    page = (tmp_path / "profile.html").read_text()
    assert "data:image/" in page
    assert str(tmp_path / "profile.html") in said[1]
