"""The whole of Adult by the compiled pipeline, beside the stages as the jobs run them; and data that a stage refuses."""

from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from mlspark.kubeflow import local
from mlspark.stages.prepare import prepare
from mlspark.stages.promote import promote
from mlspark.stages.score import score
from mlspark.stages.train import train

from ..conftest import ROOT, census_settings

FAST = ("training.epochs=2", "model.hidden=[16]")


@pytest.mark.slow
def test_compiled_pipeline_does_what_the_jobs_do(
    spark: SparkSession, whole_adult: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPARK_CONF_DIR", str(ROOT / "conf"))
    pipeline = str(ROOT / "pipelines" / "mlspark.yaml")
    here = census_settings(whole_adult, tmp_path / "kubeflow", *FAST)
    summed = local.run(here.to_yaml(), file=pipeline)
    assert (summed["state"], summed["message"]) == ("succeeded", "")
    steps: dict[str, dict[str, Any]] = {name: record["report"] for name, record in summed["steps"].items()}
    assert list(steps) == ["prepare", "train", "evaluate", "promote", "score"]

    jobs = census_settings(whole_adult, tmp_path / "jobs", *FAST)
    prepared, trained = prepare(spark, jobs), train(spark, jobs)
    promoted, scored = promote(jobs), score(spark, jobs)
    for key in ("encoder_fingerprint", "version", "rows_read", "rows_good", "rows_quarantined", "reasons", "splits"):
        assert steps["prepare"][key] == prepared[key]
    for key in ("metrics", "steps", "model_version", "snapshot_version"):
        assert steps["train"][key] == trained[key]
    assert steps["evaluate"]["metrics"] == trained["metrics"]
    for key in ("verdict", "reasons"):
        assert steps["promote"][key] == promoted[key]
    for key in ("rows_read", "rows_scored", "rows_quarantined", "model_version"):
        assert steps["score"][key] == scored[key]
    print({key: steps["prepare"][key] for key in ("encoder_fingerprint", "version", "rows_good")})
    print(steps["train"]["metrics"]["test"], steps["promote"]["verdict"], steps["score"]["rows_scored"])
    print({name: record["seconds"] for name, record in summed["steps"].items()})

    # Again: every stage finds its work done, by its own identity.
    again = local.run(here.to_yaml(), ["promotion.mode=enabled"])
    assert again["state"] == "succeeded"
    assert all(again["steps"][name]["report"]["already_done"] for name in ("prepare", "train", "promote", "score"))
    assert DeltaTable(here.table("scores")).version() == DeltaTable(jobs.table("scores")).version()
    print({name: record["seconds"] for name, record in again["steps"].items()})


@pytest.mark.slow
def test_data_that_prepare_refuses_is_named_by_its_column(
    small_census: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPARK_CONF_DIR", str(ROOT / "conf"))
    (tmp_path / "adult").mkdir()
    for name in ("adult.data", "adult.test"):
        lines = (small_census / "adult" / name).read_text().splitlines()
        cut = ["twelve," + line.partition(",")[2] if "," in line else line for line in lines]
        (tmp_path / "adult" / name).write_text("\n".join(cut) + "\n")
    summed = local.run(census_settings(tmp_path, tmp_path / "home").to_yaml())
    assert (summed["state"], summed["failed_step"]) == ("failed", "prepare")
    assert "age" in summed["message"]
    assert list(summed["steps"]) == ["prepare"]
    print(summed["message"])
