"""Runs in the store as a user reads it: all figures on one run, every run ended, whichever thread wrote."""

import os
import threading
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run as StoredRun

from mlspark.settings.pipeline import Settings
from mlspark.tracking import runs
from mlspark.tracking.runs import Run

from ..conftest import census_settings


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One store for all tests, as a new one takes seconds; each test has an experiment of its own."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def settings(home: Path, request: pytest.FixtureRequest) -> Settings:
    return census_settings(Path("unused"), home, f"tracking.experiment='{request.node.name}'")


def stored(settings: Settings) -> dict[str, StoredRun]:
    """All runs of the experiment and of MLflow's default one, by a client that knows the address only."""
    client = MlflowClient(runs.embedded_uri(settings.root))
    experiments = [client.get_experiment_by_name(name) for name in (settings.tracking.experiment, "Default")]
    found = client.search_runs([experiment.experiment_id for experiment in experiments if experiment])
    return {run.info.run_id: run for run in found}


def opened(settings: Settings, name: str = "census v0") -> Run:
    return runs.open_run(
        runs.connect(settings.tracking, settings.root), settings.tracking, name, tags={"mlspark.table_version": "0"}
    )


def in_thread(work: Any) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def test_figures_of_another_thread_are_on_the_run_and_no_other_run_is_made(settings: Settings) -> None:
    run = opened(settings)

    def handle() -> None:
        for epoch in (1, 2):
            run.log_metrics({"train_loss": 1 / epoch, "validation_log_loss": 2 / epoch}, step=epoch)

    with run:
        run.log_metrics({"step_rows_per_second": 10.0}, step=1)
        in_thread(handle)
    [(run_id, read)] = stored(settings).items()
    assert (run_id, read.info.status, read.info.run_name) == (run.run_id, "FINISHED", "census v0")
    assert read.data.metrics == {"step_rows_per_second": 10.0, "train_loss": 0.5, "validation_log_loss": 1.0}
    history = MlflowClient(runs.embedded_uri(settings.root)).get_metric_history(run_id, "train_loss")
    assert [(figure.step, figure.value) for figure in history] == [(1, 1.0), (2, 0.5)]


@pytest.mark.parametrize(
    ("error", "status"),
    [(None, "FINISHED"), (ValueError("no"), "FAILED"), (KeyboardInterrupt(), "KILLED"), (SystemExit(2), "KILLED")],
)
def test_run_ends_as_its_body_does(settings: Settings, error: BaseException | None, status: str) -> None:
    run = opened(settings)
    if error is None:
        with run:
            pass
    else:
        with pytest.raises(type(error)), run:
            raise error
    assert [read.info.status for read in stored(settings).values()] == [status]


def test_machine_is_measured_until_the_body_ends(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "_SYSTEM_SECONDS", 0.05)
    run, is_measured = opened(settings), threading.Event()
    log_batch = MlflowClient(runs.embedded_uri(settings.root))
    with run, run.machine_metrics():
        for _ in range(200):
            if any(name.startswith("system/") for name in log_batch.get_run(run.run_id).data.metrics):
                break
            is_measured.wait(0.05)
    [read] = stored(settings).values()
    assert read.info.status == "FINISHED"
    assert {"system/cpu_utilization_percentage", "system/system_memory_usage_percentage"} <= read.data.metrics.keys()
    assert "SystemMetricsMonitor" not in [thread.name for thread in threading.enumerate()]


def test_active_run_is_that_of_one_thread_and_goes_on_afterwards(settings: Settings) -> None:
    run = opened(settings)
    elsewhere: list[object] = []
    with run:
        with run.active():
            active = mlflow.active_run()
            assert active is not None
            assert active.info.run_id == run.run_id
            in_thread(lambda: elsewhere.append(mlflow.active_run()))
        assert mlflow.active_run() is None
        assert stored(settings)[run.run_id].info.status == "RUNNING"
        with pytest.raises(ValueError, match="no"), run.active():
            raise ValueError("no")
        assert mlflow.active_run() is None
    assert elsewhere == [None]
    assert [read.info.status for read in stored(settings).values()] == ["FINISHED"]


def test_each_pipeline_of_a_process_has_the_store_of_its_settings(settings: Settings, tmp_path: Path) -> None:
    other = census_settings(Path("unused"), tmp_path)
    both = [opened(settings), opened(other)]
    for run in both:
        run.end("FINISHED")
    assert [list(stored(each)) for each in (settings, other)] == [[run.run_id] for run in both]
    assert "MLFLOW_TRACKING_URI" not in os.environ


def test_a_new_store_says_nothing_though_mlflow_was_imported_first(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    runs.connect(census_settings(Path("unused"), tmp_path).tracking, str(tmp_path))
    assert capfd.readouterr() == ("", "")


def test_settings_texts_and_files_are_kept(settings: Settings) -> None:
    with opened(settings) as run:
        run.log_params({"training": {f"setting_{place}": place for place in range(150)}})
        run.log_text("a: 1\n", "config.yaml")
        run.log_file(b"\x00old", "profile/trace.json.gz")
        run.log_file(b"\x00new", "profile/trace.json.gz")
        run.set_tag("mlspark.message", "told")
    [read] = stored(settings).values()
    assert read.data.params == {f"training.setting_{place}": str(place) for place in range(150)}
    assert read.data.tags["mlspark.message"] == "told"
    assert read.data.tags["mlspark.table_version"] == "0"
    files = Path(settings.root, "mlflow", "artifacts", run.run_id, "artifacts")
    assert {str(path.relative_to(files)): path.read_bytes() for path in files.rglob("*") if path.is_file()} == {
        "config.yaml": b"a: 1\n",
        "profile/trace.json.gz": b"\x00new",
    }


def test_run_of_the_store_is_reopened_and_an_unknown_or_deleted_one_is_not(settings: Settings) -> None:
    client = runs.connect(settings.tracking, settings.root)
    with opened(settings) as run:
        pass
    again = runs.reopen_run(client, run.run_id)
    assert again is not None
    assert again.run_id == run.run_id
    assert stored(settings)[run.run_id].info.status == "RUNNING"
    again.end("KILLED")
    client.delete_run(run.run_id)
    assert runs.reopen_run(client, run.run_id) is None
    assert runs.reopen_run(client, "0" * 32) is None
