"""MLflow runs: a tracking server, or an embedded store below storage.root. Driver only."""

import contextlib
import json
import logging
import os
import re
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
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
# Its own 7 retries take minutes, in which nobody is told anything; `answers` tries again, and says so.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
import mlflow
from mlflow import MlflowClient, entities
from mlflow.entities import DatasetInput, InputTag, Param
from mlflow.exceptions import MlflowException
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from mlspark import credentials, storage
from mlspark.errors import ConfigError, TrackingError
from mlspark.section import flat
from mlspark.tracking import stores
from mlspark.tracking.answers import answered, in_words
from mlspark.tracking.embedded import embedded_file
from mlspark.tracking.embedded import embedded_uri as embedded_uri
from mlspark.tracking.figures import Figures
from mlspark.tracking.settings import TrackingSettings

# The signature comes from the contract, so MLflow needs no example to derive it from.
warnings.filterwarnings("ignore", message=".*An input example was not provided", category=UserWarning)

logger = logging.getLogger(__name__)

Client = MlflowClient
"""Client of an MLflow store; only this package and the registry call it."""

_SYSTEM_SECONDS = 5
"""Seconds between two samples of processor, memory, disk and GPU."""

_NAME = re.compile(r"[\w.-]+")
_MAX_BATCH = 100
"""Most parameters, and most metrics, of one request; MLflow refuses more than 100 parameters."""


def connect(settings: TrackingSettings, root: str) -> Client:
    """Return a client of the configured store, made the default of this process; an embedded store is created.

    Raises:
        ConfigError: storage.root is remote and no tracking server is set.
        TrackingError: the server does not answer, or the database cannot be opened.
        StorageError: the embedded store cannot be made.
    """
    uri = settings.uri or os.environ.get("MLFLOW_TRACKING_URI", "")
    if not uri:
        uri = embedded_uri(root)
    client = _opened(uri, settings.retry_seconds)
    artifacts = None if "://" in uri and not uri.startswith("sqlite:") else _artifact_root(root)
    answered(
        "open the experiment", lambda: _open(client, settings.experiment, artifacts), seconds=settings.retry_seconds
    )
    return client


def connect_to_read(uri: str, root: str, *, retry_seconds: float = 60.0) -> Client:
    """Return a client of a store, made the default of this process; unlike `connect` it makes neither store nor experiment.

    Args:
        uri: of the store; empty: $MLFLOW_TRACKING_URI, else the embedded store below `root`.
        root: storage.root.
        retry_seconds: how long a store that does not answer is tried.

    Raises:
        ConfigError: the URI holds a password, or there is no store below `root`.
        TrackingError: the server does not answer, or the database cannot be opened.
    """
    credentials.refuse_in_uri(uri)
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI", "")
    if not uri and not (storage.is_local(root) and embedded_file(root).is_file()):
        raise ConfigError(
            f"{root}: holds no MLflow store; set MLSPARK_HOME to the storage.root that models were registered in, or "
            f"MLFLOW_TRACKING_URI to a tracking server"
        )
    return _opened(uri or embedded_uri(root), retry_seconds)


def _opened(uri: str, retry_seconds: float) -> Client:
    for name in ("mlflow", "alembic"):  # MLflow reads the variable when it is imported, maybe before this module
        logging.getLogger(name).setLevel(os.environ["MLFLOW_LOGGING_LEVEL"].upper())
    with _same_environment("MLFLOW_TRACKING_URI"):
        mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    return answered("open its store", lambda: stores.opened(uri), seconds=retry_seconds)


def _open(client: Client, experiment: str, artifacts: str | None) -> None:
    if client.get_experiment_by_name(experiment) is None:
        try:
            client.create_experiment(experiment, artifact_location=artifacts)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another job was faster
                raise
    mlflow.set_experiment(experiment)


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


def _artifact_root(root: str) -> str:
    return (Path(storage.local_path(root)) / "mlflow" / "artifacts").as_uri()


@dataclass(frozen=True)
class Dataset:
    """Rows that a run learnt from, as MLflow shows them."""

    name: str
    digest: str
    """Hash by which other rows have another one; MLflow shows 36 characters at most."""
    context: str
    """What they are to the run: training, validation, test, source."""
    source_type: Literal["delta_table", "spark"]
    source: Mapping[str, Any]
    """Where they are, in MLflow's words for the type: {"path", "delta_table_version"}, {"path"}."""
    profile: Mapping[str, Any]
    """Figures about them: {"num_rows": 1000}."""


class Run:
    """A run of the store, running. Any thread may write to it: nothing here depends on MLflow's active run.

    As a context manager it ends the run: FINISHED, KILLED on Ctrl-C or an exit, FAILED on any other exception.
    """

    def __init__(self, client: Client, run_id: str, *, retry_seconds: float = 60.0) -> None:
        self.client, self.run_id = client, run_id
        self._retry_seconds = retry_seconds
        self._figures = Figures(client, run_id)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if kind is None:
            self.end("FINISHED")
        else:
            self.end("KILLED" if issubclass(kind, KeyboardInterrupt | SystemExit) else "FAILED")

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log settings; nested ones as section.key, lists of sections as section.0.key.

        A mapping whose keys are values of the data is one setting: MLflow takes no "<=50K" in a name.
        """
        entries = [Param(key, str(value)) for key, value in flat(_named(params))]
        for start in range(0, len(entries), _MAX_BATCH):
            batch = entries[start : start + _MAX_BATCH]
            self._ask("keep settings", lambda batch=batch: self.client.log_batch(self.run_id, params=batch))  # type: ignore[misc]

    def log_metrics(self, metrics: Mapping[str, float], *, step: int) -> None:
        """Have figures of a step sent; they wait while MLflow does not answer."""
        self._figures.add(metrics, step=step)

    def log_datasets(self, datasets: Sequence[Dataset]) -> None:
        """Log what the run learnt from; again, it changes nothing."""
        inputs = [
            DatasetInput(
                entities.Dataset(
                    each.name,
                    each.digest[:36],
                    each.source_type,
                    json.dumps(each.source),
                    profile=json.dumps(each.profile),
                ),
                [InputTag("mlflow.data.context", each.context)],
            )
            for each in datasets
        ]
        self._ask("keep the data sets", lambda: self.client.log_inputs(self.run_id, inputs))

    def log_text(self, text: str, name: str) -> None:
        """Keep `text` as file `name`, in place of an earlier one."""
        self.log_file(text.encode(), name)

    def log_file(self, content: bytes, name: str) -> None:
        """Keep `content` as file `name`, which may begin with folders, in place of an earlier one."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, Path(name).name)
            path.write_bytes(content)
            parent = str(Path(name).parent)
            place = None if parent == "." else parent
            self._ask(f"keep {name}", lambda: self.client.log_artifact(self.run_id, str(path), place))

    def set_tag(self, name: str, text: str) -> None:
        """Set a tag, in place of an earlier one of this name."""
        self._ask(f"keep tag {name}", lambda: self.client.set_tag(self.run_id, name, text))

    def flush(self) -> None:
        """Return when all figures are sent, or MLflow has not answered for as long as the settings say."""
        self._figures.flush(self._retry_seconds)

    def end(self, status: Literal["FINISHED", "FAILED", "KILLED"]) -> None:
        """Mark the run as ended, after the figures that wait; a server that does not answer is a warning."""
        self._figures.close(self._retry_seconds)
        try:
            self._ask(f"end run {self.run_id}", lambda: self.client.set_terminated(self.run_id, status))
        except TrackingError as error:
            logger.warning("%s", error)

    def _ask(self, what: str, call: Callable[[], Any]) -> None:
        answered(what, call, seconds=self._retry_seconds)

    @contextmanager
    def machine_metrics(self) -> Iterator[None]:
        """Log processor, memory, disk, network and GPU of this machine every 5 seconds, as system/NAME, meanwhile."""
        is_over = threading.Event()
        sampler = threading.Thread(target=self._sample, args=(is_over,), name="machine", daemon=True)
        sampler.start()
        try:
            yield
        finally:
            is_over.set()
            sampler.join(_SYSTEM_SECONDS)

    def _sample(self, is_over: threading.Event) -> None:
        try:
            # For its gauges; its own thread ends at the first call that MLflow does not answer.
            of_mlflow: Any = SystemMetricsMonitor(self.run_id, resume_logging=True)  # type: ignore[no-untyped-call]
            step = of_mlflow._logging_step
            while True:
                of_mlflow.collect_metrics()
                if is_over.wait(_SYSTEM_SECONDS):
                    return
                self.log_metrics(
                    {f"system/{name}": value for name, value in of_mlflow.aggregate_metrics().items()}, step=step
                )
                for gauge in of_mlflow.monitors:
                    gauge.clear_metrics()
                step += 1
        except Exception as error:  # whatever the machine or MLflow does not give
            logger.warning("the load of this machine is not logged: %s", in_words(error))

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


def _named(value: Any) -> Any:
    """Return settings with those mappings as JSON that have keys which are no names of MLflow's."""
    if isinstance(value, list | tuple):
        return [_named(entry) for entry in value]
    if not isinstance(value, Mapping):
        return value
    if all(_NAME.fullmatch(str(key)) for key in value):
        return {key: _named(entry) for key, entry in value.items()}
    return json.dumps(value, ensure_ascii=False)


def open_run(
    client: Client, settings: TrackingSettings, name: str, *, tags: Mapping[str, str], parent: Run | None = None
) -> Run:
    """Return a new run, below `parent` if there is one; the caller has to end it."""
    experiment = answered(
        "name its experiments",
        lambda: client.get_experiment_by_name(settings.experiment),
        seconds=settings.retry_seconds,
    )
    assert experiment is not None, "connect has made it"
    parent_tag = {"mlflow.parentRunId": parent.run_id} if parent else {}
    created = answered(
        "begin a run",
        lambda: client.create_run(experiment.experiment_id, run_name=name, tags={**tags, **parent_tag}),
        seconds=settings.retry_seconds,
    )
    return Run(client, created.info.run_id, retry_seconds=settings.retry_seconds)


def reopen_run(client: Client, run_id: str, *, retry_seconds: float = 60.0) -> Run | None:
    """Return an ended or abandoned run as a running one; None when this store does not have it or it is deleted."""

    def is_there() -> bool:
        try:
            return bool(client.get_run(run_id).info.lifecycle_stage == "active")
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise

    if not answered("find a run", is_there, seconds=retry_seconds):
        return None
    answered("go on with a run", lambda: client.update_run(run_id, status="RUNNING"), seconds=retry_seconds)
    return Run(client, run_id, retry_seconds=retry_seconds)


def started(client: Client, run_id: str, *, retry_seconds: float = 60.0) -> int:
    """Return when a run began, in milliseconds since 1970.

    Raises:
        TrackingError: there is no such run, or MLflow does not answer.
    """
    return int(answered("find a run", lambda: client.get_run(run_id).info.start_time, seconds=retry_seconds))


def end_abandoned(client: Client, run_id: str) -> None:
    """Mark a run as KILLED whose driver was killed, and could not do it; one that has ended is left as it is."""
    with contextlib.suppress(MlflowException):  # it is gone, or the next job does it
        if client.get_run(run_id).info.status == "RUNNING":
            client.set_terminated(run_id, "KILLED")
