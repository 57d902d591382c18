"""Studies with real training: what comes out, what is kept, and what goes on after a break."""

import os
import re
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient
from pyspark.sql import SparkSession

from mlspark import storage
from mlspark.commands import tune as tune_command
from mlspark.errors import ConfigError, TrainingFailed
from mlspark.settings import loading
from mlspark.streaming.snapshot import Snapshot
from mlspark.tracking import runs
from mlspark.training.events import Event, Resumed
from mlspark.training.spec import TrainingSpec
from mlspark.tuning import study as studies
from mlspark.tuning import trials
from mlspark.tuning.trials import Tuned

from ..conftest import ROOT
from ..training.conftest import TASK, TENSORS, write_snapshot
from ..training.test_tasks import MULTICLASS, REGRESSION, of_classes, of_numbers
from .conftest import RATE, SPACE, options_of, search_of, train_here, tune_here, tuning_settings

TRIALS = 13  # three more than the sampler draws at random
OnEvent = Callable[[Event], None]


def facts(tuned: Tuned) -> list[tuple[Any, ...]]:
    """All but the names of MLflow's runs."""
    return [(each.number, each.state, each.objective, each.values) for each in tuned.tried]


def connected(home: Path) -> MlflowClient:
    """A client of the store below `home`."""
    settings = tuning_settings(home)
    return runs.connect(settings.tracking, settings.root)


def runs_by_id(home: Path) -> dict[str, Any]:
    """MLflow's runs by id."""
    client = connected(home)
    experiment = client.get_experiment_by_name("census")
    return {run.info.run_id: run for run in client.search_runs([experiment.experiment_id])}


@pytest.fixture(scope="module")
def whole(spark: SparkSession, snapshot: Snapshot, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A study that was not interrupted."""
    home = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trials.learner, "learn", train_here)
        return SimpleNamespace(home=home, tuned=tune_here(spark, snapshot, home, TRIALS))


def test_best_trial_has_the_lowest_validation_log_loss_of_the_complete_ones(whole: Any) -> None:
    tuned: Tuned = whole.tuned
    assert [each.number for each in tuned.tried] == list(range(1, TRIALS + 1))
    objectives = [each.objective for each in tuned.tried if each.state == "complete"]
    assert tuned.ranked[0].objective == min(objectives)
    assert tuned.ranked[0].values[RATE] > 1e-3  # no rate learns worse than 1.0e-7
    history = connected(whole.home).get_metric_history(tuned.ranked[0].run_id, "validation_log_loss")
    assert [measured.step for measured in history] == [1, 2, 3]
    assert tuned.ranked[0].objective == min(measured.value for measured in history)


def test_pruned_trials_end_early_and_are_not_ranked(whole: Any) -> None:
    pruned = [each for each in whole.tuned.tried if each.state == "pruned"]
    assert pruned
    assert min(each.number for each in pruned) > 4  # the first four are what the others are compared with
    client = connected(whole.home)
    for each in pruned:
        assert each not in whole.tuned.ranked
        assert len(client.get_metric_history(each.run_id, "validation_log_loss")) == 2  # never after the first


def test_mlflow_has_a_run_for_the_study_and_below_it_one_for_each_trial(whole: Any) -> None:
    found, tuned = runs_by_id(whole.home), whole.tuned
    parent = found.pop(tuned.run_id)
    assert (parent.info.run_name, parent.info.status) == ("tune small", "FINISHED")
    assert parent.data.metrics["best_log_loss"] == tuned.ranked[0].objective
    assert found.keys() == {each.run_id for each in tuned.tried}
    for each in tuned.tried:
        run = found[each.run_id]
        assert run.data.tags["mlflow.parentRunId"] == tuned.run_id
        assert run.data.params == {key: str(value) for key, value in each.values.items()}
        assert run.info.status == ("FINISHED" if each.state == "complete" else "KILLED")
        assert {"validation_log_loss", "validation_roc_auc", "train_loss"} <= run.data.metrics.keys()
        assert not [name for name in run.data.metrics if "test" in name]
    kept = {file.path for file in connected(whole.home).list_artifacts(tuned.run_id)}
    assert kept == {"tuning.png", "tuned.yaml"}
    assert storage.read_bytes(tuned.plot_uri).startswith(b"\x89PNG")


def test_study_goes_on_after_a_break_as_if_there_had_been_none(
    spark: SparkSession, snapshot: Snapshot, whole: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    num_launched = 0

    def break_down(spark: SparkSession, spec: TrainingSpec, on_event: OnEvent) -> Any:
        nonlocal num_launched
        num_launched += 1
        if num_launched == 8:
            raise RuntimeError("no fault of the trial")
        return train_here(spark, spec, on_event)

    monkeypatch.setattr(trials.learner, "learn", break_down)
    assert facts(tune_here(spark, snapshot, tmp_path, 6)) == facts(whole.tuned)[:6]
    with pytest.raises(RuntimeError, match="no fault of the trial"):
        tune_here(spark, snapshot, tmp_path, TRIALS)
    again = tune_here(spark, snapshot, tmp_path, TRIALS)
    assert facts(again) == facts(whole.tuned)
    assert num_launched == TRIALS + 1
    found = runs_by_id(tmp_path)
    assert len(found) == 1 + TRIALS + 1  # one of them interrupted, with the parameters of its repetition
    [interrupted] = found.keys() - {again.run_id, *(each.run_id for each in again.tried)}
    assert found[interrupted].info.status == "KILLED"
    assert found[interrupted].data.params == found[again.tried[7].run_id].data.params

    assert facts(tune_here(spark, snapshot, tmp_path, TRIALS)) == facts(again)  # nothing left to do
    assert num_launched == TRIALS + 1


def test_killed_driver_leaves_trials_that_are_run_again(
    spark: SparkSession, snapshot: Snapshot, whole: Any, tmp_path: Path, in_process: None
) -> None:
    settings = tuning_settings(tmp_path)
    search, options = search_of(tmp_path, settings), options_of(2)
    with studies.open_storage(settings, options) as store:
        study = studies.open_study(store, options, studies.identity(settings, search, options, snapshot))
        assert studies.ask(study, search, seed=0)[0] == 0
        study.ask(search.distributions())  # killed before it had a number
    assert facts(tune_here(spark, snapshot, tmp_path, 2)) == facts(whole.tuned)[:2]


def test_ctrl_c_ends_the_running_trials_and_keeps_the_study(
    spark: SparkSession, snapshot: Snapshot, whole: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both_train = threading.Barrier(2)

    def train_forever(spark: SparkSession, spec: TrainingSpec, on_event: OnEvent) -> Any:
        if both_train.wait(timeout=240) == 0:
            os.kill(os.getpid(), signal.SIGINT)
        while True:
            on_event(Resumed(1, 1))

    with monkeypatch.context() as patch:
        patch.setattr(trials.learner, "learn", train_forever)
        with pytest.raises(KeyboardInterrupt):
            tune_here(spark, snapshot, tmp_path, 2, parallel=2)
    assert [run.info.status for run in runs_by_id(tmp_path).values()] == ["KILLED"] * 3
    monkeypatch.setattr(trials.learner, "learn", train_here)
    assert facts(tune_here(spark, snapshot, tmp_path, 2)) == facts(whole.tuned)[:2]


def test_failed_trial_is_recorded_and_the_search_goes_on(
    spark: SparkSession, snapshot: Snapshot, tmp_path: Path, in_process: None, caplog: pytest.LogCaptureFixture
) -> None:
    space = f"{RATE}: {{choices: [2.0e-2, 1.0e+30]}}\n"
    with caplog.at_level("INFO", "mlspark"):
        tuned = tune_here(spark, snapshot, tmp_path, 5, space=space)
    failed = [each for each in tuned.tried if each.values[RATE] == 1e30]
    assert 0 < len(failed) < 5
    assert {each.state for each in failed} == {"failed"}
    run = runs_by_id(tmp_path)[failed[0].run_id]
    assert run.info.status == "FAILED"
    assert "the training loss is not finite" in run.data.tags["mlspark.message"]
    lines = [record.message for record in caplog.records if record.message.startswith("trial ")]
    assert any(f"trial {failed[0].number}: epoch 1, step 2: the training loss is not finite" in line for line in lines)
    assert any(f"trial {failed[0].number}/5: " in line and "failed, " in line for line in lines)
    good = tuned.ranked[0]
    objective = f"validation log loss {good.objective:.4f} (best {good.objective:.4f}, trial {good.number})"
    [told] = [line for line in lines if line.startswith(f"trial {good.number}/5: {objective}, 3 of 3 epochs, ")]
    assert told.endswith(" s; learning_rate=0.02")


def test_three_failed_trials_end_the_search(
    spark: SparkSession, snapshot: Snapshot, tmp_path: Path, in_process: None
) -> None:
    with pytest.raises(TrainingFailed, match=r"the first 3 trials all failed, the last of them: .*loss is not finite"):
        tune_here(spark, snapshot, tmp_path, 9, space=f"{RATE}: {{choices: [1.0e+30, 2.0e+30]}}\n")


def test_settings_that_do_not_go_together_fail_the_trial_only(
    spark: SparkSession, snapshot: Snapshot, tmp_path: Path, in_process: None
) -> None:
    space = "training.num_processes: {choices: [1, 2]}\nstreaming.lanes: {choices: [1, 8]}\n"
    tuned = tune_here(spark, snapshot, tmp_path, 4, space=space, seed=1)
    unfit = [each.values for each in tuned.tried if each.state == "failed"]
    assert unfit
    assert all(values == {"training.num_processes": 2, "streaming.lanes": 1} for values in unfit)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metric": "roc_auc"}, r"metric \(was log_loss, is roc_auc\)"),
        ({"seed": 1}, r"seed \(was 0, is 1\)"),
        ({"space": SPACE + "training.epochs: {low: 2, high: 4}\n"}, r"search of training\.epochs \(was absent, is "),
    ],
)
def test_study_of_another_search_is_refused(
    spark: SparkSession, snapshot: Snapshot, whole: Any, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=f"study small is of another search: .*{message}.*; change it back, or give"):
        tune_here(spark, snapshot, whole.home, TRIALS, **change)


def test_study_of_another_table_or_setting_is_refused(
    spark: SparkSession, snapshot: Snapshot, whole: Any, tmp_path: Path
) -> None:
    settings = tuning_settings(whole.home, "training.epochs=4")
    newer = Snapshot(snapshot.table, 1, {}, snapshot.files)
    options = options_of(TRIALS)
    with pytest.raises(
        ConfigError, match=r"table \(was .* version 0 .*, is .* version 1 .*training\.epochs \(was 3, is 4\)"
    ):
        trials.tune(spark, settings, search_of(tmp_path, settings), options, tensors=TENSORS, task=TASK, snapshot=newer)


@pytest.mark.parametrize("database", ["", "sqlite:///{}/studies.db"])
def test_study_is_run_by_one_process_at_a_time(
    spark: SparkSession, snapshot: Snapshot, tmp_path: Path, database: str
) -> None:
    url = database.format(tmp_path)
    settings, options = tuning_settings(tmp_path), options_of(1, storage_url=url)
    with (
        studies.open_storage(settings, options),
        pytest.raises(ConfigError, match="study small: another process runs it"),
    ):
        tune_here(spark, snapshot, tmp_path, 1, storage_url=url)


def test_study_may_be_in_a_database(spark: SparkSession, snapshot: Snapshot, tmp_path: Path, in_process: None) -> None:
    url = f"sqlite:///{tmp_path}/studies.db"
    first = tune_here(spark, snapshot, tmp_path, 1, storage_url=url)
    assert facts(tune_here(spark, snapshot, tmp_path, 2, storage_url=url))[:1] == facts(first)
    with pytest.raises(ConfigError, match="--storage: no database to be opened there"):
        tune_here(spark, snapshot, tmp_path, 1, storage_url="nowhere")


def test_remote_root_needs_a_database(tmp_path: Path) -> None:
    settings = loading.override(tuning_settings(tmp_path), {"storage.root": "s3://bucket/x"}, source="test")
    with (
        pytest.raises(ConfigError, match=r"storage\.root=s3://bucket/x is remote, .*; give --storage the URL"),
        studies.open_storage(settings, options_of(1)),
    ):
        pass


def test_trials_that_do_not_fit_the_slots_are_refused(spark: SparkSession, snapshot: Snapshot, tmp_path: Path) -> None:
    message = (
        r"--parallel 3 x training\.num_processes=1 needs .*, but local\[2\] has 2; lower one of them or start Spark"
    )
    with pytest.raises(ConfigError, match=message):
        tune_here(spark, snapshot, tmp_path, 3, parallel=3)


def test_table_without_validation_rows_is_refused(spark: SparkSession, snapshot: Snapshot, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no validation rows to compare trials by; set split\.validation_share"):
        tune_here(spark, snapshot.where(split="train"), tmp_path, 3)


@pytest.mark.parametrize(
    ("task", "change", "metric", "title"),
    [
        (MULTICLASS, of_classes, "log_loss", "validation log loss"),
        (MULTICLASS, of_classes, "f1_c", "validation F1 of c"),
        (REGRESSION, of_numbers, "rmse", "validation RMSE"),
        (REGRESSION, of_numbers, "r2", "validation R2"),
    ],
)
def test_other_tasks_are_tuned_by_their_metrics(
    spark: SparkSession, tmp_path: Path, in_process: None, caplog: pytest.LogCaptureFixture,
    task: Any, change: Any, metric: str, title: str,
) -> None:  # fmt: skip
    table = write_snapshot(tmp_path / "table", change)
    with caplog.at_level("INFO", "mlspark"):
        tuned = tune_here(
            spark,
            table,
            tmp_path,
            2,
            task=task,
            metric=metric,
            space=f"{RATE}: {{choices: [2.0e-2, 1.0e-7]}}\n",
            seed=1,
        )
    objectives = [each.objective for each in tuned.tried]
    assert {each.values[RATE] for each in tuned.tried} == {2e-2, 1e-7}  # one of them learns
    assert tuned.ranked[0].values[RATE] == 2e-2
    best = min(objectives) if metric in ("log_loss", "rmse") else max(objectives)
    assert tuned.ranked[0].objective == best
    assert f"trial 1/2: {title} {objectives[0]:.4f}" in caplog.text
    assert runs_by_id(tmp_path)[tuned.run_id].data.metrics[f"best_{metric}"] == best


def test_trees_are_tuned(
    spark: SparkSession, snapshot: Snapshot, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = loading.override(
        tuning_settings(tmp_path), {"model": {"kind": "trees", "num_rounds": 30, "learning_rate": 0.3}}, source="test"
    )
    with caplog.at_level("INFO", "mlspark"):
        tuned = tune_here(
            spark, snapshot, tmp_path, 2, settings=settings, metric="roc_auc",
            space="model.max_depth: {choices: [1, 3]}\nmodel.num_rounds: {low: 20, high: 30}\n",
        )  # fmt: skip
    assert [each.state for each in tuned.tried] == ["complete", "complete"]
    assert tuned.ranked[0].objective == max(each.objective for each in tuned.tried if each.objective)
    run = runs_by_id(tmp_path)[tuned.ranked[0].run_id]
    assert run.data.metrics["validation_roc_auc"] == tuned.ranked[0].objective
    assert re.search(r"trial 1/2: validation ROC AUC 0\.\d{4} \(best .*\), \d+ rounds, \d+ s; max_depth=", caplog.text)
    assert "epochs" not in caplog.text


@pytest.mark.parametrize(
    ("task", "metric", "remedy"),
    [(TASK, "roc_auc", "log_loss"), (REGRESSION, "r2", "rmse"), (MULTICLASS, "f1_c", "log")],
)
def test_metric_that_the_validation_rows_do_not_give_ends_the_search(
    spark: SparkSession, tmp_path: Path, in_process: None, task: Any, metric: str, remedy: str
) -> None:
    def of_one_value(split: str, table: dict[str, Any]) -> None:
        if task is MULTICLASS:
            of_classes(split, table)
        table["label"] = np.zeros_like(table["label"])

    table = write_snapshot(tmp_path / "table", of_one_value)
    with pytest.raises(ConfigError, match=rf"--metric {metric}: cannot be computed .*; choose another, like {remedy}"):
        tune_here(spark, table, tmp_path, 1, task=task, metric=metric)


@pytest.mark.slow
def test_command_trains_two_trials_at_a_time_and_writes_the_best(
    spark: SparkSession, snapshot: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """With the real launcher: two Spark stages, one rank each, at the same time."""
    settings, out = tuning_settings(tmp_path), tmp_path / "tuned.yaml"
    search_of(tmp_path, settings)
    (tmp_path / "settings.yaml").write_text(settings.to_yaml())
    encoder = SimpleNamespace(tensors=lambda task: TENSORS)
    prepared = SimpleNamespace(table=snapshot.table, version=0, encoder=encoder, task=settings.task)
    monkeypatch.setattr(tune_command.preparations, "latest", lambda _: prepared)
    monkeypatch.setattr(tune_command.delta_files, "take", lambda table, *, version: snapshot)
    monkeypatch.setattr(tune_command.session, "start", lambda *_: spark)
    monkeypatch.setattr(spark, "stop", lambda: None)
    tune_command.run(
        [str(tmp_path / "settings.yaml")], overrides=(), search_file=str(tmp_path / "search.yaml"), trials=2, parallel=2,
        study=None, metric="roc_auc", seed=0, storage_url="", out=str(out),
    )  # fmt: skip
    told = capsys.readouterr().out
    assert "validation ROC AUC" in told
    assert "2 trials: 2 complete, 0 pruned, 0 failed" in told
    assert out.read_text().startswith("# Trial ")
    best = loading.load([str(ROOT / "conf" / "census.yaml"), str(out)])
    assert list(best.model.hidden) in ([8], [16, 8])
    trained = [run for run in runs_by_id(tmp_path).values() if run.info.run_name.startswith("trial")]
    assert max(run.info.start_time for run in trained) < min(run.info.end_time for run in trained)


@pytest.mark.parametrize(
    ("metric", "best", "message"),
    [
        (
            "rmse",
            "",
            "--metric=rmse: a multiclass task has no such metric; choose one of accuracy, roc_auc, log_loss, ",
        ),
        ("f1_x", "", "--metric=f1_x: .* or leave it empty for log_loss"),
        ("", "f1_x", r"training\.best=f1_x: .*, recall_a, f1_a, precision_b, "),
    ],
)
def test_wrong_metric_is_refused_before_spark_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metric: str, best: str, message: str
) -> None:
    task = {"kind": "multiclass", "target": "label"}  # its classes are known from the table only
    settings = loading.override(tuning_settings(tmp_path), {"task": task, "training.best": best}, source="test")
    search_of(tmp_path, settings)
    (tmp_path / "settings.yaml").write_text(settings.to_yaml())
    prepared = SimpleNamespace(table="features", version=0, task=MULTICLASS)
    monkeypatch.setattr(tune_command.preparations, "latest", lambda _: prepared)
    monkeypatch.setattr(tune_command.session, "start", lambda *_: pytest.fail("Spark was started"))
    with pytest.raises(ConfigError, match=message):
        tune_command.run(
            [str(tmp_path / "settings.yaml")], overrides=(), search_file=str(tmp_path / "search.yaml"), trials=1,
            parallel=1, study=None, metric=metric, seed=0, storage_url="", out=None,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"out": "no/such/tuned.yaml"}, "--out no/such/tuned.yaml: the folder does not exist"),
        ({"study": "../x"}, r"--study \.\./x: expected letters"),
        ({"search_file": "none.yaml"}, "none.yaml: cannot be read"),
    ],
)
def test_wrong_option_is_refused_before_anything_starts(options: dict[str, Any], message: str) -> None:
    right: dict[str, Any] = {
        "overrides": (), "search_file": str(ROOT / "conf" / "census.search.yaml"), "trials": 1, "parallel": 1,
        "study": None, "metric": "", "seed": 0, "storage_url": "", "out": None,
    }  # fmt: skip
    with pytest.raises(ConfigError, match=message):
        tune_command.run([str(ROOT / "conf" / "census.yaml")], **(right | options))
