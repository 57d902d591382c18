"""Small jobs start a Java that compiles less; what is large, elsewhere or in a database starts Java as ever."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlspark import session
from mlspark.commands import java_options
from mlspark.commands.java_options import FEW_BYTES, SMALL

from ..conftest import ROOT


def pipeline(folder: Path, num_bytes: int, **source: str) -> dict[str, object]:
    """Return settings of a pipeline with a sparse file of so many bytes to learn from."""
    with (folder / "rows.csv").open("wb") as file:
        file.truncate(num_bytes)
    return {"name": "tiny", "sources": {"root": str(folder), "learn": {"kind": "csv", "path": "rows.csv", **source}}}


@pytest.mark.parametrize(("num_bytes", "options"), [(0, SMALL), (FEW_BYTES, SMALL), (FEW_BYTES + 1, "")])
def test_bytes_of_the_source_decide(tmp_path: Path, num_bytes: int, options: str) -> None:
    settings = pipeline(tmp_path, num_bytes)
    assert java_options.of_stages(settings, ["prepare"]) == options
    assert java_options.of_stages(settings, ["prepare", "train", "promote", "score"]) == options


def test_feature_table_decides_for_training(tmp_path: Path) -> None:
    settings = pipeline(tmp_path, FEW_BYTES + 1) | {"storage": {"root": str(tmp_path / "home")}}
    assert java_options.of_stages(settings, ["train"]) == SMALL
    table = tmp_path / "home" / "tables" / "tiny_features"
    table.mkdir(parents=True)
    os.truncate(os.open(table / "part.parquet", os.O_CREAT | os.O_WRONLY), FEW_BYTES + 1)
    assert java_options.of_stages(settings, ["train"]) == ""


@pytest.mark.parametrize(
    "source", [{"kind": "parquet", "path": "s3://lake/rows"}, {"kind": "jdbc", "url": "jdbc:postgresql://db/rows"}]
)
def test_what_cannot_be_seen_is_not_small(source: dict[str, str]) -> None:
    settings = {"name": "far", "sources": {"learn": source}}
    assert java_options.of_stages(settings, ["prepare"]) == ""
    assert java_options.of_stages({"name": "scores"}, ["monitor"]) == ""


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (["jobs/prepare.py", "--config", "conf/census.yaml"], SMALL),
        (["--master", "local[4]", "jobs/prepare.py", "--config=conf/census.yaml", "--set", "name=census"], SMALL),
        (["jobs/prepare.py", "--config", "conf/census.yaml", "--set", "sources.learn.path=s3://lake/adult"], ""),
        (["jobs/prepare.py", "--config", "conf/absent.yaml"], ""),
        (["jobs/other.py", "--config", "conf/census.yaml"], ""),
        (["pyspark-shell"], ""),
    ],
)  # fmt: skip
def test_shell_of_spark_is_told_of_the_job(arguments: list[str], options: str) -> None:
    script = '. conf/spark-env.sh; echo "$SPARK_SUBMIT_OPTS"'
    names = {
        "SPARK_SUBMIT_OPTS": "-Duser=own",
        "MLSPARK_DATA": str(ROOT / "tests" / "data"),
        "MLSPARK_JAVA_ARCHIVE": "no",
    }
    done = subprocess.run(
        ["bash", "-c", script, "spark-class", "org.apache.spark.deploy.SparkSubmit", *arguments],
        cwd=ROOT, env=os.environ | names | {"PYSPARK_DRIVER_PYTHON": sys.executable},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout.split() == [*options.split(), "-Duser=own"]


def test_options_are_there_only_while_java_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPARK_SUBMIT_OPTS", raising=False)
    with session._java_options("-XX:Small"):
        assert os.environ["SPARK_SUBMIT_OPTS"] == "-XX:Small"
    assert "SPARK_SUBMIT_OPTS" not in os.environ
    monkeypatch.setenv("SPARK_SUBMIT_OPTS", "-Dmine=1")
    with session._java_options("-XX:Small"):
        assert os.environ["SPARK_SUBMIT_OPTS"] == "-XX:Small -Dmine=1"
    assert os.environ["SPARK_SUBMIT_OPTS"] == "-Dmine=1"
