"""Runs in the store as a user reads it: all figures on one run, every run ended, whichever thread wrote."""

import json
import os
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run as StoredRun

from mlspark.errors import TrackingError
from mlspark.settings.pipeline import Settings
from mlspark.tracking import runs
from mlspark.tracking.runs import Dataset, Run
from mlspark.tracking.settings import TrackingSettings

from ..conftest import census_settings, wait_until


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
    assert "machine" not in [thread.name for thread in threading.enumerate()]


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


class Server:
    """MLflow's REST interface as far as figures need it, on loopback, with faults of its own."""

    def __init__(self) -> None:
        self.received: list[tuple[str, int]] = []
        self.delay_seconds, self.fails = 0.0, False
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                time.sleep(server.delay_seconds)
                if not server.fails:
                    server.received += [(one["key"], one["step"]) for one in json.loads(content).get("metrics", ())]
                self.send_response(500 if server.fails else 200)
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.client = MlflowClient(f"http://127.0.0.1:{self.http.server_address[1]}")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    running = Server()
    yield running
    running.http.shutdown()
    running.http.server_close()


FIGURES = [("train_loss", step) for step in range(1, 8)]


def log_all(run: Run) -> float:
    """Log FIGURES, and return how long that took."""
    started = time.monotonic()
    for name, step in FIGURES:
        run.log_metrics({name: 1.0}, step=step)
    return time.monotonic() - started


def test_slow_server_is_not_waited_for(server: Server) -> None:
    server.delay_seconds = 1.0
    run = Run(server.client, "0" * 32)
    assert log_all(run) < 0.5
    server.delay_seconds = 0.0
    run.flush()
    assert server.received == FIGURES


def test_figures_wait_for_a_server_that_fails(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    server.fails = True
    run = Run(server.client, "0" * 32)
    assert log_all(run) < 0.5
    wait_until(lambda: "MLflow does not answer; figures wait and are sent later" in caplog.text)
    server.fails = False
    run.flush()
    assert server.received == FIGURES
    assert caplog.text.count("does not answer") == 1


def test_server_that_fails_to_the_end_is_a_warning(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    server.fails = True
    with Run(server.client, "0" * 32, retry_seconds=0.3) as run:
        log_all(run)
    assert "7 figures of run 00000000000000000000000000000000 could not be sent to MLflow" in caplog.text
    assert "MLflow did not end run" in caplog.text


def test_server_that_does_not_answer_is_named_before_a_job_begins(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    tracking = TrackingSettings(uri=f"http://127.0.0.1:{port}", experiment="census", retry_seconds=0.1)
    stores = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    try:
        with pytest.raises(TrackingError, match=r"MLflow did not open the experiment for 0\.1 s: .*tracking\.uri"):
            runs.connect(tracking, str(tmp_path))
    finally:
        mlflow.set_tracking_uri(stores[0])
        mlflow.set_registry_uri(stores[1])


def test_locked_store_is_waited_for(settings: Settings) -> None:
    run = opened(settings)
    with sqlite3.connect(runs.embedded_uri(settings.root).removeprefix("sqlite:///"), isolation_level=None) as store:
        store.execute("BEGIN EXCLUSIVE")
        assert log_all(run) < 0.5
        time.sleep(6.0)  # SQLAlchemy waits for 5
        store.execute("COMMIT")
    store.close()
    run.end("FINISHED")
    history = MlflowClient(runs.embedded_uri(settings.root)).get_metric_history(run.run_id, "train_loss")
    assert [("train_loss", figure.step) for figure in history] == FIGURES


def test_refused_figures_do_not_hold_up_others(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    with opened(settings) as run:
        run.log_metrics({"no/such?name": 1.0}, step=1)
        run.flush()
        run.log_metrics({"train_loss": 1.0}, step=1)
    [read] = stored(settings).values()
    assert read.data.metrics == {"train_loss": 1.0}
    assert "MLflow refuses 1 figures" in caplog.text


def test_data_sets_are_shown_with_source_and_digest(settings: Settings) -> None:
    place = {"path": "/tables/census", "delta_table_version": 3}
    rows = Dataset("census training", "ab" * 32, "training", "delta_table", place, {"num_rows": 10})
    with opened(settings) as run:
        for _ in range(2):
            run.log_datasets([rows])
    [read] = stored(settings).values()
    [shown] = read.inputs.dataset_inputs
    assert (shown.dataset.name, shown.dataset.digest) == ("census training", "ab" * 18)
    assert [(tag.key, tag.value) for tag in shown.tags] == [("mlflow.data.context", "training")]
    source: Any = mlflow.data.get_source(shown.dataset)
    assert (source.path, source.delta_table_version) == ("/tables/census", 3)


def test_lists_of_sections_are_settings_of_their_own(settings: Settings) -> None:
    with opened(settings) as run:
        run.log_params({"joins": [{"name": "a", "on": ["x", "y"]}, {"name": "b"}], "empty": []})
    [read] = stored(settings).values()
    assert read.data.params == {"joins.0.name": "a", "joins.0.on": "['x', 'y']", "joins.1.name": "b", "empty": "[]"}


def test_values_of_the_data_are_no_names_of_settings(settings: Settings) -> None:
    with opened(settings) as run:
        run.log_params({"task": {"aliases": {"<=50K.": "<=50K"}, "class_weights": {"1": 2.0}}})
    [read] = stored(settings).values()
    assert read.data.params == {"task.aliases": '{"<=50K.": "<=50K"}', "task.class_weights.1": "2.0"}


def test_run_of_a_killed_driver_is_ended_and_others_stay_as_they_are(settings: Settings) -> None:
    running, finished = opened(settings), opened(settings)
    finished.end("FINISHED")
    client = MlflowClient(runs.embedded_uri(settings.root))
    for run_id in (running.run_id, finished.run_id, "0" * 32):
        runs.end_abandoned(client, run_id)
    statuses = {run_id: read.info.status for run_id, read in stored(settings).items()}
    assert statuses == {running.run_id: "KILLED", finished.run_id: "FINISHED"}
