"""`mlspark run`: what the jobs would do one after the other, in one session."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from mlspark import storage, tables
from mlspark.registry import versions
from mlspark.stages.prepare import prepare
from mlspark.stages.promote import promote
from mlspark.stages.score import score
from mlspark.stages.train import train
from mlspark.tracking import runs

from ..conftest import ROOT, census_settings

FAST = ("training.epochs=2", "training.global_batch_size=64", "model.hidden=[16]")


def run(pipeline: str, *arguments: str, home: Path, data: Path) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does, from the repository's root."""
    environment = os.environ | {"MLSPARK_HOME": str(home), "MLSPARK_DATA": str(data)}
    return subprocess.run(
        [sys.executable, "-c", "from mlspark.commands.main import main; main()", "run", pipeline, *arguments],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip


def rows(spark: SparkSession, table: str, *own: str) -> list[Any]:
    """Return all rows, without the columns that name the run that wrote them."""
    frame = tables.read(spark, table)
    return sorted(map(str, frame.drop(*own).collect()))


@pytest.mark.slow
def test_run_does_what_the_jobs_do_and_nothing_when_it_is_done(
    spark: SparkSession, small_census: Path, tmp_path: Path
) -> None:
    overrides = [f"--set={setting}" for setting in FAST]
    reports = tmp_path / "reports"
    done = run("conf/census.yaml", *overrides, "--reports", str(reports), home=tmp_path / "one", data=small_census)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    said = [line for line in done.stdout.splitlines() if line in ("prepare", "train", "promote", "score")]
    assert said == ["prepare", "train", "promote", "score"]
    told = {name: json.loads((reports / f"{name}.json").read_text()) for name in said}

    settings = census_settings(small_census, tmp_path / "each", *FAST)
    each: dict[str, Any] = {"prepare": prepare(spark, settings), "train": train(spark, settings)}
    each |= {"promote": promote(settings), "score": score(spark, settings)}
    for name, report in each.items():
        assert told[name].keys() == report.keys()
    for key in ("encoder_fingerprint", "rows_good", "reasons", "splits"):
        assert told["prepare"][key] == each["prepare"][key]
    assert told["train"]["metrics"] == each["train"]["metrics"]
    assert told["promote"]["verdict"] == each["promote"]["verdict"] == "promoted"
    assert told["score"]["rows_scored"] == each["score"]["rows_scored"]
    for kind, own in (("features", ()), ("scores", ("score_id",)), ("quarantine", ("job_id",))):
        tables_of = [storage.join(str(tmp_path / home), "tables", f"census_{kind}") for home in ("one", "each")]
        assert rows(spark, tables_of[0], *own) == rows(spark, tables_of[1], *own), kind
    weights = []
    for home in ("one", "each"):
        client = runs.connect(settings.tracking, str(tmp_path / home))
        files = versions.find(client, "census", 1, retry_seconds=1.0).package.files
        weights.append({name: digest for name, digest in files.items() if name.endswith(".safetensors")})
    assert weights[0] == weights[1] != {}

    again = run("conf/census.yaml", *overrides, "--reports", str(reports), home=tmp_path / "one", data=small_census)
    assert again.returncode == 0, again.stderr
    told = {name: json.loads((reports / f"{name}.json").read_text()) for name in said}
    assert [told[name]["already_done"] for name in said] == [True] * 4


@pytest.mark.slow
def test_stage_that_fails_names_itself_and_the_rest_is_not_run(small_census: Path, tmp_path: Path) -> None:
    reports = tmp_path / "reports"
    arguments = ("--set", "registry.model_name=none", "--reports", str(reports))
    done = run("conf/census.yaml:prepare,promote,score", *arguments, home=tmp_path, data=small_census)
    assert done.returncode == 2
    assert done.stderr.startswith("promote: ")
    assert "Traceback" not in done.stdout + done.stderr
    assert [file.name for file in reports.iterdir()] == ["prepare.json"]


@pytest.mark.parametrize(
    ("pipeline", "arguments", "message"),
    [
        ("conf/absent.yaml", (), "run: conf/absent.yaml: cannot be read"),
        ("conf/census.yaml:prepare,tran", (), "run: conf/census.yaml:prepare,tran: 'tran' is no stage"),
        (
            "conf/census.yaml:score,monitor",
            (),
            "run: conf/census.yaml:score,monitor: monitor looks at scores that stand",
        ),
        (
            "conf/census.yaml",
            ("--set", "scoring.source.path=gone.csv"),
            "score: {data}/gone.csv: no such file or folder",
        ),
    ],
)
def test_what_is_wrong_is_said_before_spark_starts(
    small_census: Path, tmp_path: Path, pipeline: str, arguments: tuple[str, ...], message: str
) -> None:
    done = run(pipeline, *arguments, home=tmp_path, data=small_census)
    assert done.returncode == 2
    assert done.stderr.startswith(message.format(data=small_census)), done.stderr
    assert list(tmp_path.iterdir()) == []
