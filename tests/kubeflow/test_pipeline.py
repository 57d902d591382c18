"""The pipeline of Kubeflow as it is compiled, and what its local runner makes of a step that fails. No Spark, no cluster."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlspark.commands import kubeflow
from mlspark.errors import ConfigError
from mlspark.kubeflow import components, local, records, steps
from mlspark.kubeflow.pipeline import compiled

from ..conftest import ROOT, SAMPLE, census_settings

PIPELINE = ROOT / "pipelines" / "mlspark.yaml"


@pytest.fixture(scope="module")
def spec() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(PIPELINE.read_text())
    return loaded


def test_compiled_pipeline_is_that_of_the_sources() -> None:
    assert PIPELINE.read_text() == compiled(), "pipelines/mlspark.yaml is behind: mlspark kubeflow compile"


def test_image_of_all_components_is_the_one_asked_for() -> None:
    executors = yaml.safe_load(compiled("registry.example/mlspark:1.2"))["deploymentSpec"]["executors"]
    assert len(executors) == 7
    assert {executor["container"]["image"] for executor in executors.values()} == {"registry.example/mlspark:1.2"}


def test_components_install_nothing_and_only_call_a_step(spec: dict[str, Any]) -> None:
    for executor in spec["deploymentSpec"]["executors"].values():
        command = "\n".join(executor["container"]["command"])
        assert "pip install" not in command
        assert command.count("from mlspark.kubeflow import steps") == 1


def test_parameters_are_settings_as_text(spec: dict[str, Any]) -> None:
    inputs = spec["root"]["inputDefinitions"]["parameters"]
    assert {name: each["parameterType"] for name, each in inputs.items()} == {"settings": "STRING", "overrides": "LIST"}
    for component in (components.prepare, components.train, components.evaluate, components.promote, components.score):
        assert list(component.component_spec.inputs)[:3] == ["settings", "overrides", "run"]
        assert {each.type for each in component.component_spec.inputs.values()} <= {"String", "List[String]", "Integer"}


def test_no_task_is_cached_by_kubeflow_and_promotion_depends_on_its_mode(spec: dict[str, Any]) -> None:
    dags = [spec["root"]["dag"], *(each["dag"] for each in spec["components"].values() if "dag" in each)]
    tasks = {name: task for dag in dags for name, task in dag["tasks"].items()}
    leaves = {
        name: task for name, task in tasks.items() if "dag" not in spec["components"][task["componentRef"]["name"]]
    }
    assert set(leaves) == {"sum-up", "prepare", "train", "evaluate", "promote", "score", "score-2"}
    assert not any(task["cachingOptions"].get("enableCache") for task in leaves.values())
    assert leaves["train"]["dependentTasks"] == ["prepare"]
    assert leaves["score"]["dependentTasks"] == ["promote"]
    triggers = [task["triggerPolicy"] for task in tasks.values() if "triggerPolicy" in task]
    conditions = [trigger["condition"] for trigger in triggers if "condition" in trigger]
    assert len(conditions) == 2
    assert all("'disabled'" in condition for condition in conditions)


def test_report_of_a_failing_stage_names_step_and_column(tmp_path: Path) -> None:
    settings = census_settings(SAMPLE, tmp_path, "task.target=income")
    summed = local.run(settings.to_yaml(), ["task.target=incom"], file=str(PIPELINE), root=str(tmp_path / "root"))
    assert (summed["state"], summed["failed_step"], list(summed["steps"])) == ("failed", "prepare", ["prepare"])
    message = (
        "prepare: pipeline census: features: task.target incom: not a column of contract census, did you mean income?"
    )
    assert summed["message"] == message
    kept = tmp_path / "kubeflow" / summed["run"] / "report.json"
    assert json.loads(kept.read_text()) == summed
    with pytest.raises(local.PipelineFailed, match=r"task\.target incom: not a column"):
        local.check(summed)
    with pytest.raises(ConfigError, match="is not empty; give a folder of its own"):
        local.run(settings.to_yaml(), root=str(tmp_path / "root"))


def test_report_says_what_is_wrong_with_settings_that_cannot_be_loaded(tmp_path: Path) -> None:
    settings = census_settings(SAMPLE, tmp_path).to_yaml()
    report = tmp_path / "report"
    summed = steps.sum_up(settings, ["training.epoch=3"], "7", "FAILED", "Task exit-handler-1 failed.", str(report))
    assert json.loads(report.read_text()) == summed
    assert summed["state"] == "failed"
    assert "training.epoch: unknown key, did you mean epochs?" in summed["message"]


def test_summary_without_a_record_has_the_words_of_kubeflow(tmp_path: Path) -> None:
    settings = census_settings(SAMPLE, tmp_path)
    records.keep(settings, "7", "prepare", {"state": "succeeded", "report": {}, "seconds": 1.0})
    killed = records.summary(settings, "7", "FAILED", "train: OOMKilled")
    assert (killed["state"], killed["failed_step"], killed["message"]) == ("failed", "", "train: OOMKilled")
    assert records.summary(settings, "7", "SUCCEEDED", "")["state"] == "succeeded"


def test_reports_of_steps_have_their_cost_and_an_unknown_tier_is_refused_before_the_work(tmp_path: Path) -> None:
    report = tmp_path / "report"
    settings = census_settings(SAMPLE, tmp_path, "scoring.source=null", f"cost.machines={ROOT}/conf/machines.yaml")
    steps.score(settings.to_yaml(), ["cost.tier=m7g.large"], "7", str(report))
    cost = json.loads(report.read_text())["cost"]
    assert (cost["tier"], cost["count"]) == ("m7g.large", 1)
    assert cost["amount"] == pytest.approx(cost["seconds"] / 3600 * cost["price_per_hour"], abs=1e-6)
    assert records.summary(settings, "7", "SUCCEEDED", "")["steps"]["score"]["report"]["cost"] == cost
    with pytest.raises(ConfigError, match=r"cost\.tier=m7g\.larg: not in"):
        steps.score(settings.to_yaml(), ["cost.tier=m7g.larg"], "8", str(report))


def test_endpoints_that_are_none_are_refused(tmp_path: Path) -> None:
    config = [str(ROOT / "conf" / "census.yaml")]
    with pytest.raises(ConfigError, match="--endpoint kubeflow: expected the form https://HOST/pipeline"):
        kubeflow.run(config, endpoint="kubeflow")
    with pytest.raises(ConfigError, match="belong to runs on this machine"):
        kubeflow.run(config, endpoint="http://127.0.0.1:1", root=str(tmp_path))
