"""What needs no data is checked before Spark starts: by `mlspark check`, and by each job. No Java is at hand here."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mlspark.commands import main as cli
from mlspark.errors import ConfigError, ContractError, FeatureError, MlsparkError, SourceError, TableError
from mlspark.settings import loading
from mlspark.stages import check

from ..conftest import ROOT, SAMPLE, census_settings

CENSUS = str(ROOT / "conf" / "census.yaml")
NO_JAVA = {"PATH": "/nowhere", "JAVA_HOME": "/nowhere", "PYTHONPATH": str(ROOT), "HOME": "/tmp"}


def test_a_good_pipeline_is_said_to_be_good(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("MLSPARK_DATA", str(SAMPLE))
    done = CliRunner().invoke(cli.app, ["check", CENSUS])
    assert (done.exit_code, done.output) == (
        0,
        f"{CENSUS}: nothing wrong that can be seen without the data: contract census with 15 columns, 14 features, "
        f"binary task on income\n",
    )


@pytest.mark.parametrize(
    "command",
    [
        ["-c", "from mlspark.commands.main import main; main()", "check", CENSUS],
        ["jobs/prepare.py", "--config", CENSUS],
    ],
)
def test_mistakes_end_with_one_message_where_spark_could_not_even_start(tmp_path: Path, command: list[str]) -> None:
    contract = json.loads((ROOT / "schemas" / "census.json").read_text())
    contract["columns"][4]["type"] = "int64"
    (tmp_path / "census.json").write_text(json.dumps(contract, indent=1))
    done = subprocess.run(
        [sys.executable, *command, "--set", f"contract={tmp_path}/census.json"],
        cwd=ROOT, env={**os.environ, **NO_JAVA}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    [message] = done.stderr.splitlines()
    assert "columns.4.type: 'int64' is not a type of a column, did you mean bigint?" in message
    assert f"contract {tmp_path}/census.json: line " in message


@pytest.mark.parametrize(
    ("overrides", "exception", "message"),
    [
        (["contract=no/such.json"], ContractError, "contract no/such.json: cannot be read"),
        (["task.target=rich"], FeatureError, "task.target rich: not a column of contract census"),
        (["split.key=[who]"], ConfigError, "split.key: who: not a column of contract census"),
        (["sources.learn.path=adult/adult.dat"], SourceError, "adult.dat: no such file or folder; check sources.learn.path"),
        (["sources.test.path=none/*.csv"], None, ""),
        (["sources.test.path=hdfs://nowhere/x"], None, ""),
        (
            ["features.inputs=[{kind: number, columns: [education-num]}]"],
            FeatureError,
            "number education-num: education-num: not a column of contract census, did you mean education_num?",
        ),
    ],
)  # fmt: skip
def test_each_mistake_is_told_by_its_setting(
    tmp_path: Path, overrides: list[str], exception: type[MlsparkError] | None, message: str
) -> None:
    settings = census_settings(SAMPLE, tmp_path, *overrides)
    if exception is None:
        check.check_prepare(settings)
        return
    with pytest.raises(exception) as refused:
        check.check_prepare(settings)
    assert message in str(refused.value)
    assert len(str(refused.value)) < 500


def test_scoring_and_training_are_checked_too(tmp_path: Path) -> None:
    settings: Any = census_settings(SAMPLE, tmp_path, "scoring.source.path=nothing.csv")
    with pytest.raises(SourceError, match=r"nothing\.csv: no such file or folder; check scoring\.source\.path"):
        check.check_score(settings)
    bare = loading.override(settings, {"scoring.source": None}, source="test")
    with pytest.raises(ConfigError, match=r"scoring\.source: missing"):
        check.check_score(bare)
    with pytest.raises(TableError, match="prepare"):
        check.check_train(settings)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.augment={picture: [{kind: flip}]}", "training.augment names picture, .*; there are image"),
        (
            "training.augment={image: [{kind: flip}, {kind: resized_crop}]}",
            r"training\.augment\.image: resized_crop is number 2",
        ),
        (
            "training.augment={image: [{kind: flp}]}",
            r"training\.augment\.image\.0: kind: must be one of 'crop', 'resized_crop'",
        ),
        (
            "training.augment={image: [{kind: color_jitter, hue: 2}]}",
            r"training\.augment\.image\.0\.hue: input should be less than or equal to 0.5, got 2",
        ),
        (
            "features.inputs=[{kind: image, columns: [image], size: 0}]",
            r"features\.inputs\.0\.size: input should be greater than or equal to 1, got 0",
        ),
        ("features.inputs=[{kind: image, columns: [image], size: [28]}]", r"features\.inputs\.0\.size\.1: missing"),
    ],
)
def test_what_is_asked_of_pictures_is_checked_before_they_are_prepared(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, override: str, message: str
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("MLSPARK_DATA", str(tmp_path))
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (tmp_path / "mnist").mkdir(exist_ok=True)
        (tmp_path / "mnist" / f"{name}-ubyte.gz").touch()
    check.check_prepare(loading.load(["conf/mnist.yaml"]))
    with pytest.raises(ConfigError, match=message):
        check.check_prepare(loading.load(["conf/mnist.yaml"], [override]))
