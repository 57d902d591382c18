"""Small jobs start a Java that compiles less; what is large, elsewhere or in a database starts Java as ever."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlspark import session
from mlspark.commands import java_options
from mlspark.commands.java_options import COLLECTOR, FEW_BYTES, SMALL

from ..conftest import ROOT, imported_by


def pipeline(folder: Path, num_bytes: int, **source: str) -> dict[str, object]:
    """Return settings of a pipeline with a sparse file of so many bytes to learn from."""
    with (folder / "rows.csv").open("wb") as file:
        file.truncate(num_bytes)
    return {"name": "tiny", "sources": {"root": str(folder), "learn": {"kind": "csv", "path": "rows.csv", **source}}}


@pytest.fixture(autouse=True)
def _nobody_has_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in java_options._JAVA_READS:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(("num_bytes", "is_small"), [(0, True), (FEW_BYTES, True), (FEW_BYTES + 1, False)])
def test_bytes_of_the_source_decide(tmp_path: Path, num_bytes: int, is_small: bool) -> None:
    settings = pipeline(tmp_path, num_bytes)
    assert java_options.are_small(settings, ["prepare"]) == is_small
    assert java_options.are_small(settings, ["prepare", "train", "promote", "score"]) == is_small


def test_feature_table_decides_for_training(tmp_path: Path) -> None:
    settings = pipeline(tmp_path, FEW_BYTES + 1) | {"storage": {"root": str(tmp_path / "home")}}
    assert java_options.are_small(settings, ["train"])
    table = tmp_path / "home" / "tables" / "tiny_features"
    table.mkdir(parents=True)
    os.truncate(os.open(table / "part.parquet", os.O_CREAT | os.O_WRONLY), FEW_BYTES + 1)
    assert not java_options.are_small(settings, ["train"])


@pytest.mark.parametrize(
    "source", [{"kind": "parquet", "path": "s3://lake/rows"}, {"kind": "jdbc", "url": "jdbc:postgresql://db/rows"}]
)
def test_what_cannot_be_seen_is_not_small(source: dict[str, str]) -> None:
    settings = {"name": "far", "sources": {"learn": source}}
    assert not java_options.are_small(settings, ["prepare"])
    assert not java_options.are_small({"name": "scores"}, ["monitor"])


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (["jobs/prepare.py", "--config", "conf/census.yaml"], f"{SMALL} {COLLECTOR}"),
        (
            ["--master", "local[4]", "jobs/prepare.py", "--config=conf/census.yaml", "--set", "name=census"],
            f"{SMALL} {COLLECTOR}",
        ),
        (["--driver-java-options", "-XX:+UseG1GC", "jobs/prepare.py", "--config", "conf/census.yaml"], SMALL),
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


@pytest.mark.parametrize(
    "where", ["environment", "spark-defaults.conf", "spark-env.sh", "properties file", "Spark's own"]
)
def test_collector_that_somebody_has_chosen_is_the_only_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    (tmp_path / "conf").mkdir()
    monkeypatch.setenv("SPARK_CONF_DIR", str(tmp_path / "conf"))
    (tmp_path / "conf" / "spark-env.sh").mkdir()  # no file
    assert java_options.small() == f"{SMALL} {COLLECTOR}"
    (tmp_path / "conf" / "spark-env.sh").rmdir()
    arguments: list[str] = []
    chosen = "spark.driver.extraJavaOptions -Dfile.encoding=UTF-8 -XX:+UseParallelGC\n"
    match where:
        case "environment":
            monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-XX:+UseZGC -Da=1")
        case "properties file":
            (tmp_path / "own.conf").write_text(chosen)
            arguments = ["--properties-file", str(tmp_path / "own.conf"), "jobs/prepare.py"]
        case "Spark's own":
            monkeypatch.delenv("SPARK_CONF_DIR")
            monkeypatch.setenv("SPARK_HOME", str(tmp_path))
            (tmp_path / "conf" / "spark-defaults.conf").write_text(chosen)
        case file:
            (tmp_path / "conf" / file).write_text(chosen)
    assert java_options.small(arguments) == SMALL


def test_java_starts_with_these_options_and_a_chosen_collector() -> None:
    java = ["java", *SMALL.split(), *COLLECTOR.split(), "-Xmx64m"]
    assert subprocess.run([*java, "-version"], capture_output=True, timeout=60, check=False).returncode == 0
    refused = subprocess.run([*java, "-XX:+UseG1GC", "-version"], capture_output=True, timeout=60, check=False)
    assert refused.returncode != 0  # else the choice need not be looked for


def test_options_are_found_without_what_takes_long_to_import() -> None:
    imported = imported_by("mlspark.commands.java_options")
    assert "yaml" in imported
    assert not {"pydantic", "pyspark", "pandas", "numpy", "typer"} & imported


def test_options_are_there_only_while_java_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPARK_SUBMIT_OPTS", raising=False)
    with session._java_options("-XX:Small"):
        assert os.environ["SPARK_SUBMIT_OPTS"] == "-XX:Small"
    assert "SPARK_SUBMIT_OPTS" not in os.environ
    monkeypatch.setenv("SPARK_SUBMIT_OPTS", "-Dmine=1")
    with session._java_options("-XX:Small"):
        assert os.environ["SPARK_SUBMIT_OPTS"] == "-XX:Small -Dmine=1"
    assert os.environ["SPARK_SUBMIT_OPTS"] == "-Dmine=1"
