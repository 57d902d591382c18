"""MLflow runs: a tracking server, or an embedded store below storage.root. Driver only."""

import logging
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
import mlflow
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException

from mlspark import config, storage
from mlspark.config import Settings
from mlspark.errors import ConfigError

_SYSTEM_SECONDS = 5
"""Between two looks at processor, memory, disk and GPU."""


def connect(settings: Settings) -> MlflowClient:
    """Return a client of the configured store, made the default of this process; an embedded store is created.

    Raises:
        ConfigError: storage.root is remote and no tracking server is set.
    """
    logging.getLogger("alembic").setLevel(logging.ERROR)  # one line per migration of a fresh store
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    uri = settings.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI", "")
    if not uri:
        uri = embedded_uri(settings)
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    client = MlflowClient()
    if client.get_experiment_by_name(settings.tracking.experiment) is None:
        artifacts = None if "://" in uri and not uri.startswith("sqlite:") else _artifact_root(settings)
        client.create_experiment(settings.tracking.experiment, artifact_location=artifacts)
    mlflow.set_experiment(settings.tracking.experiment)
    return client


def embedded_uri(settings: Settings) -> str:
    """Return the URI of the store below storage.root.

    Raises:
        ConfigError: storage.root is not local.
    """
    if not storage.is_local(settings.root):
        raise ConfigError(
            f"storage.root={settings.storage.root} is remote, where the embedded MLflow store cannot be; "
            f"set tracking.uri or MLFLOW_TRACKING_URI to a tracking server"
        )
    folder = Path(storage.local_path(settings.root)) / "mlflow"
    folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{folder / 'mlflow.db'}"


def _artifact_root(settings: Settings) -> str:
    return (Path(storage.local_path(settings.root)) / "mlflow" / "artifacts").as_uri()


@contextmanager
def run(name: str, *, tags: Mapping[str, str], run_id: str | None = None) -> Iterator[str]:
    """Give the id of a run, which ends as FINISHED or, when the body raises, as FAILED. Logs the machine's load, too.

    Args:
        name: of a new run.
        tags: of the run.
        run_id: a run that goes on; None: a new one.
    """
    mlflow.set_system_metrics_sampling_interval(_SYSTEM_SECONDS)  # type: ignore[no-untyped-call]
    logging.getLogger("mlflow.system_metrics").setLevel(logging.ERROR)  # says at each start that there is no GPU
    new = None if run_id else name
    with mlflow.start_run(run_id=run_id, run_name=new, tags=dict(tags), log_system_metrics=True) as active:
        yield active.info.run_id


def knows(run_id: str) -> bool:
    """Return whether the store has this run, not deleted."""
    try:
        return bool(MlflowClient().get_run(run_id).info.lifecycle_stage == "active")
    except MlflowException:
        return False


def log_params(params: Mapping[str, Any]) -> None:
    """Log settings of the active run; nested ones as section.key."""
    mlflow.log_params(dict(config.flat(params)))


def log_metrics(metrics: Mapping[str, float], *, step: int) -> None:
    """Log figures of the active run."""
    mlflow.log_metrics(dict(metrics), step=step)


def log_text(text: str, name: str) -> None:
    """Keep `text` as a file of the active run."""
    mlflow.log_text(text, name)


def log_file(file: str, folder: str = "") -> None:
    """Keep a copy of a local file in the active run."""
    mlflow.log_artifact(file, folder or None)


@dataclass(frozen=True)
class Run:
    """A run that any thread may write to; the functions above mean the one active run of their thread."""

    client: MlflowClient
    run_id: str

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log settings; nested ones as section.key."""
        named = [Param(key, str(value)) for key, value in config.flat(params)]
        self.client.log_batch(self.run_id, params=named)

    def log_metrics(self, metrics: Mapping[str, float], *, step: int) -> None:
        """Log figures."""
        now = int(time.time() * 1000)
        self.client.log_batch(self.run_id, [Metric(key, value, now, step) for key, value in metrics.items()])

    def log_file(self, content: bytes, name: str) -> None:
        """Keep `content` as file `name`, in place of an earlier one."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, name)
            path.write_bytes(content)
            self.client.log_artifact(self.run_id, str(path))

    def set_tag(self, name: str, text: str) -> None:
        self.client.set_tag(self.run_id, name, text)

    def end(self, status: Literal["FINISHED", "FAILED", "KILLED"]) -> None:
        self.client.set_terminated(self.run_id, status)


def open_run(
    client: MlflowClient, settings: Settings, name: str, *, tags: Mapping[str, str], parent: Run | None = None
) -> Run:
    """Return a new run, below `parent` if there is one, that somebody has to end."""
    experiment = client.get_experiment_by_name(settings.tracking.experiment)
    assert experiment is not None, "connect has made it"
    more = {"mlflow.parentRunId": parent.run_id} if parent else {}
    made = client.create_run(experiment.experiment_id, run_name=name, tags={**tags, **more})
    return Run(client, made.info.run_id)


def reopen_run(client: MlflowClient, run_id: str) -> Run | None:
    """Return an ended or abandoned run as a running one; None when this store does not have it."""
    try:
        client.update_run(run_id, status="RUNNING")
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
    return Run(client, run_id)
