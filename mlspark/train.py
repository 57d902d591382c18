"""The train stage: a version of the feature table becomes a registered model version. Driver."""

import dataclasses
import logging
import os
import platform
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
from pyspark.sql import SparkSession

from mlspark import __version__, storage, tracking
from mlspark.config import Settings
from mlspark.errors import ConfigError
from mlspark.preparation import prepared as preparations
from mlspark.preparation.prepared import Prepared
from mlspark.registry import versions
from mlspark.registry.bundle import Bundle
from mlspark.streaming import snapshot as snapshots
from mlspark.training import checkpoint, launcher, watching
from mlspark.training.launcher import TrainingOutcome
from mlspark.training.spec import TrainingSpec
from mlspark.training.watching import EventFile, TensorBoard

logger = logging.getLogger(__name__)

_LIBRARIES = ("torch", "pyspark", "delta-spark", "petastorm", "pyarrow", "numpy", "mlflow")


def train(spark: SparkSession, settings: Settings) -> dict[str, Any]:
    """Train on the newest prepared table, register the best checkpoint as a model version and return the report.

    A run that was begun with the same settings on the same version, and not ended, goes on where it was.

    Raises:
        TableError: nothing was prepared yet.
        ConfigError: too few task slots, or no place for the embedded MLflow store.
        TrainingFailed: a rank failed; names it. The MLflow run is marked FAILED and nothing is registered.
    """
    started = time.monotonic()
    prepared = preparations.latest(settings)
    client = tracking.connect(settings)
    snapshot = snapshots.take(prepared.table, version=prepared.version)
    spec = TrainingSpec(
        run_uri="",
        layout=prepared.encoder.layout,
        model=settings.model,
        training=settings.training,
        streaming=settings.streaming,
    )
    mark = storage.join(
        settings.root, "runs", "unfinished", f"{settings.name}-{spec.digest(snapshot.fingerprint)}.json"
    )
    unfinished = _unfinished(mark, settings)
    tags = {"mlspark.table": prepared.table, "mlspark.table_version": str(prepared.version)}
    with tracking.run(f"{settings.name} v{prepared.version}", tags=tags, run_id=unfinished) as run_id:
        spec = dataclasses.replace(spec, run_uri=storage.join(settings.root, "runs", run_id))
        if unfinished is None:
            snapshot.save(spec.snapshot_uri)
            storage.write_bytes(storage.join(spec.run_uri, "config.yaml"), settings.to_yaml().encode())
            tracking.log_text(settings.to_yaml(), "config.yaml")
            tracking.log_params({"training": settings.training.model_dump(), "model": settings.model.model_dump()})
        storage.write_json(mark, {"run_id": run_id, "host": socket.gethostname(), "process": os.getpid()})
        logger.info(
            "training: run %s%s, %d ranks, version %d of %s",
            run_id, " goes on" if unfinished else "", settings.training.num_processes, prepared.version, prepared.table,
        )  # fmt: skip
        with _following(settings, spec, run_id) as on_event:
            outcome = launcher.launch(spark, spec, on_event)
        metrics = {split: measured.to_json() for split, measured in outcome.metrics.items()}
        _log_pictures(spec, outcome)
        bundle = _bundle(prepared, spec, outcome, run_id, metrics)
        version = versions.register(
            client, bundle, run_id=run_id, name=settings.registry.model_name, alias=settings.registry.alias
        )
        storage.delete(mark)
    seconds = time.monotonic() - started
    logger.info("registered: version %d of model %s in %.1f s", version, settings.registry.model_name, seconds)
    return {
        "run_id": run_id,
        "snapshot_version": prepared.version,
        "world_size": outcome.world_size,
        "steps": outcome.steps,
        "rows_per_epoch": outcome.rows_per_epoch,
        "epochs": len(outcome.epochs),
        "restarts": outcome.restarts,
        "rows_per_second": round(outcome.rows_per_second),
        "metrics": metrics,
        "best_epoch": outcome.best_epoch,
        "model_name": settings.registry.model_name,
        "model_version": version,
        "alias": settings.registry.alias,
        "data_wait_fraction": round(outcome.data_wait_fraction, 4),
        "train_seconds": round(outcome.train_seconds, 3),
        "seconds": round(seconds, 3),
    }


def _unfinished(mark: str, settings: Settings) -> str | None:
    """Return the run that a driver began with these settings and this table, and did not end; None: begin a new one.

    Raises:
        ConfigError: it is being trained at this moment, on this machine.
    """
    if not settings.training.recovery.resume or not storage.exists(mark):
        return None
    begun = storage.read_json(mark)
    process = begun["process"]
    if begun["host"] == socket.gethostname() and process != os.getpid() and psutil.pid_exists(process):
        raise ConfigError(
            f"run {begun['run_id']} of the same settings and table version is being trained by process {process}; wait "
            f"for it, or set training.recovery.resume=false to train another one"
        )
    return str(begun["run_id"]) if tracking.knows(begun["run_id"]) else None


@contextmanager
def _following(settings: Settings, spec: TrainingSpec, run_id: str) -> Iterator[launcher.OnEvent]:
    """Give what shows and logs events, while the ranks run."""
    file = settings.tracking.events
    if not file and storage.is_local(spec.run_uri):
        file = storage.local_path(storage.join(spec.run_uri, "events.jsonl"))
    board = TensorBoard(settings.tracking.tensorboard, run_id)
    log = EventFile(file)

    def follow(event: dict[str, Any]) -> None:
        log.write(event)
        board.write(event)
        watching.tell(event)
        found = watching.numbers(event)
        match event["event"]:
            case "epoch":
                tracking.log_metrics(found, step=event["epoch"])
            case "progress":
                tracking.log_metrics({f"step_{name}": value for name, value in found.items()}, step=event["step"])
            case "evaluation":
                tracking.log_metrics(
                    {f"{event['split']}_{key}": value for key, value in found.items()}, step=event["step"]
                )

    try:
        yield follow
    except BaseException as error:
        log.write({"event": "ended", "is_finished": False, "message": str(error)})
        raise
    else:
        log.write({"event": "ended", "is_finished": True})
    finally:
        log.close()
        board.close()


def _log_pictures(spec: TrainingSpec, outcome: TrainingOutcome) -> None:
    """Keep the curves of the run, and the trace of its steps if it has one, with the run."""
    with tempfile.TemporaryDirectory() as folder:
        curves = Path(folder) / "training.png"
        watching.draw(outcome.epochs, curves, best_epoch=outcome.best_epoch)
        tracking.log_file(str(curves))
        trace = storage.join(spec.run_uri, "profile", "trace.json.gz")
        if storage.exists(trace):
            file = Path(folder) / "trace.json.gz"
            file.write_bytes(storage.read_bytes(trace))
            tracking.log_file(str(file), "profile")


def _bundle(
    prepared: Prepared, spec: TrainingSpec, outcome: TrainingOutcome, run_id: str, metrics: dict[str, Any]
) -> Bundle:
    return Bundle.pack(
        model=spec.model,
        layout=spec.layout,
        weights=checkpoint.load(outcome.checkpoint_uri).weights,
        encoder=prepared.encoder,
        contract=prepared.contract.without_label(),
        provenance={
            "run_id": run_id,
            "table": prepared.table,
            "table_version": prepared.version,
            "prepare_id": prepared.metadata["id"],
            "encoder": prepared.encoder.fingerprint,
            "git_commit": _git_commit(),
            "metrics": metrics,
            "train_seconds": outcome.train_seconds,
            "world_size": outcome.world_size,
            "libraries": {
                "mlspark": __version__,
                "python": platform.python_version(),
                **{name: metadata.version(name) for name in _LIBRARIES},
            },
        },
    )


def _git_commit() -> str:
    """Return the commit of the code that trains, or "" outside a checkout."""
    found = subprocess.run(
        ["git", "rev-parse", "HEAD"],  # noqa: S607
        cwd=Path(__file__).parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return found.stdout.strip() if found.returncode == 0 else ""
