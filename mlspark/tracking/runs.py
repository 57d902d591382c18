"""MLflow runs: a tracking server, or an embedded store below storage.root. Driver only."""

import logging
import os
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

# Each variable may be set otherwise by the user.
# MLflow's warnings are about its own files (no pip in the environment, a fresh store's migrations, no GPU to watch).
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
import mlflow
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from mlspark import storage
from mlspark.errors import ConfigError
from mlspark.section import flat
from mlspark.tracking.settings import TrackingSettings

# The signature comes from the contract, so MLflow needs no example to derive it from.
warnings.filterwarnings("ignore", message=".*An input example was not provided", category=UserWarning)

Client = MlflowClient
"""Client of an MLflow store; only this package and the registry call it."""

_SYSTEM_SECONDS = 5
"""Seconds between two samples of processor, memory, disk and GPU."""

_MAX_BATCH = 100
"""Most parameters, and most metrics, of one request; MLflow refuses more than 100 parameters."""


def connect(settings: TrackingSettings, root: str) -> Client:
    """Return a client of the configured store, made the default of this process; an embedded store is created.

    Raises:
        ConfigError: storage.root is remote and no tracking server is set.
    """
    for name in ("mlflow", "alembic"):  # MLflow reads the variable when it is imported, maybe before this module
        logging.getLogger(name).setLevel(os.environ["MLFLOW_LOGGING_LEVEL"].upper())
    uri = settings.uri or os.environ.get("MLFLOW_TRACKING_URI", "")
    if not uri:
        uri = embedded_uri(root)
    with _same_environment("MLFLOW_TRACKING_URI"):
        mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    client = MlflowClient()
    if client.get_experiment_by_name(settings.experiment) is None:
        artifacts = None if "://" in uri and not uri.startswith("sqlite:") else _artifact_root(root)
        client.create_experiment(settings.experiment, artifact_location=artifacts)
    mlflow.set_experiment(settings.experiment)
    return client


@contextmanager
def _same_environment(name: str) -> Iterator[None]:
    """Keep a variable as the user set it: MLflow copies the URI there, where the process's next pipeline would read it."""
    value = os.environ.get(name)
    try:
        yield
    finally:
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


def embedded_uri(root: str) -> str:
    """Return the URI of the store below storage.root.

    Raises:
        ConfigError: storage.root is not local.
    """
    if not storage.is_local(root):
        raise ConfigError(
            f"storage.root={root} is remote, where the embedded MLflow store cannot be; "
            f"set tracking.uri or MLFLOW_TRACKING_URI to a tracking server"
        )
    folder = Path(storage.local_path(root)) / "mlflow"
    folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{folder / 'mlflow.db'}"


def _artifact_root(root: str) -> str:
    return (Path(storage.local_path(root)) / "mlflow" / "artifacts").as_uri()


@dataclass(frozen=True)
class Run:
    """A run of the store, running. Any thread may write to it: nothing here depends on MLflow's active run.

    As a context manager it ends the run: FINISHED, KILLED on Ctrl-C or an exit, FAILED on any other exception.
    """

    client: Client
    run_id: str

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if kind is None:
            self.end("FINISHED")
        else:
            self.end("KILLED" if issubclass(kind, KeyboardInterrupt | SystemExit) else "FAILED")

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log settings; nested ones as section.key."""
        entries = [Param(key, str(value)) for key, value in flat(params)]
        for start in range(0, len(entries), _MAX_BATCH):
            self.client.log_batch(self.run_id, params=entries[start : start + _MAX_BATCH])

    def log_metrics(self, metrics: Mapping[str, float], *, step: int) -> None:
        """Log figures of a step."""
        now = int(time.time() * 1000)
        entries = [Metric(key, value, now, step) for key, value in metrics.items()]
        for start in range(0, len(entries), _MAX_BATCH):
            self.client.log_batch(self.run_id, metrics=entries[start : start + _MAX_BATCH])

    def log_text(self, text: str, name: str) -> None:
        """Keep `text` as file `name`, in place of an earlier one."""
        self.log_file(text.encode(), name)

    def log_file(self, content: bytes, name: str) -> None:
        """Keep `content` as file `name`, which may begin with folders, in place of an earlier one."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, Path(name).name)
            path.write_bytes(content)
            parent = str(Path(name).parent)
            self.client.log_artifact(self.run_id, str(path), None if parent == "." else parent)

    def set_tag(self, name: str, text: str) -> None:
        """Set a tag, in place of an earlier one of this name."""
        self.client.set_tag(self.run_id, name, text)

    def end(self, status: Literal["FINISHED", "FAILED", "KILLED"]) -> None:
        """Mark the run as ended."""
        self.client.set_terminated(self.run_id, status)

    @contextmanager
    def machine_metrics(self) -> Iterator[None]:
        """Log processor, memory, disk, network and GPU of this machine every 5 seconds, as system/NAME, meanwhile."""
        monitor = SystemMetricsMonitor(self.run_id, sampling_interval=_SYSTEM_SECONDS, resume_logging=True)  # type: ignore[no-untyped-call]
        monitor.start()  # type: ignore[no-untyped-call]
        try:
            yield
        finally:
            monitor.finish()  # type: ignore[no-untyped-call]

    @contextmanager
    def active(self) -> Iterator[None]:
        """Make this the active run of MLflow's own functions, in this thread only, meanwhile. The run goes on after it.

        For what MLflow offers for the active run only, such as `mlflow.pyfunc.log_model`.
        """
        mlflow.start_run(run_id=self.run_id, nested=True, log_system_metrics=False)
        try:
            yield
        finally:
            mlflow.end_run()
            self.client.update_run(self.run_id, status="RUNNING")  # end_run has ended it


def open_run(
    client: Client, settings: TrackingSettings, name: str, *, tags: Mapping[str, str], parent: Run | None = None
) -> Run:
    """Return a new run, below `parent` if there is one; the caller has to end it."""
    experiment = client.get_experiment_by_name(settings.experiment)
    assert experiment is not None, "connect has made it"
    parent_tag = {"mlflow.parentRunId": parent.run_id} if parent else {}
    created = client.create_run(experiment.experiment_id, run_name=name, tags={**tags, **parent_tag})
    return Run(client, created.info.run_id)


def reopen_run(client: Client, run_id: str) -> Run | None:
    """Return an ended or abandoned run as a running one; None when this store does not have it or it is deleted."""
    try:
        if client.get_run(run_id).info.lifecycle_stage != "active":
            return None
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
    client.update_run(run_id, status="RUNNING")
    return Run(client, run_id)
