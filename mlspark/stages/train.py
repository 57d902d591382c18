"""The train stage: a version of the feature table becomes a registered version of a model. Driver."""

import dataclasses
import logging
import os
import socket
import time
from typing import Any

import psutil
from pyspark.sql import SparkSession

from mlspark import storage
from mlspark.errors import ConfigError
from mlspark.features import prepared as preparations
from mlspark.features.prepared import Prepared
from mlspark.registry import provenance, versions
from mlspark.registry.package import Package
from mlspark.settings.pipeline import Settings
from mlspark.stages.training_events import following
from mlspark.streaming import delta_files
from mlspark.tasks.task import Task
from mlspark.tracking import runs
from mlspark.tracking.runs import Client, Run
from mlspark.training import learner
from mlspark.training.learned_model import LearnedModel
from mlspark.training.spec import TrainingSpec

logger = logging.getLogger(__name__)


def train(spark: SparkSession, settings: Settings) -> dict[str, Any]:
    """Train on the newest prepared table, register the best epoch's model as a version and return the report.

    A run that was begun with the same settings on the same table version, and not ended, goes on where it was.

    Raises:
        TableError: nothing was prepared yet.
        ConfigError: settings that the model, the task or this Spark cannot meet, or no place for the embedded MLflow store.
        TrainingFailed: it could not be trained; names the rank. The MLflow run is marked FAILED and nothing is registered.
    """
    started = time.monotonic()
    prepared = preparations.latest(settings.table("features"))
    client = runs.connect(settings.tracking, settings.root)
    snapshot = delta_files.take(prepared.table, version=prepared.version)
    task = settings.task.on_table(prepared.task, prepared.table)
    spec = TrainingSpec(
        run_uri="",
        tensors=prepared.encoder.tensors(task),
        task=task,
        model=settings.model,
        training=settings.training,
        streaming=settings.streaming,
    )
    digest = spec.digest(snapshot.fingerprint)
    mark = storage.join(settings.root, "runs", "unfinished", f"{settings.name}-{digest}.json")
    unfinished = _unfinished(client, mark, settings)
    run = unfinished or _new_run(client, settings, prepared)
    with run, run.machine_metrics():
        spec = dataclasses.replace(spec, run_uri=storage.join(settings.root, "runs", run.run_id))
        if unfinished is None:
            snapshot.save(spec.snapshot_uri)
            storage.write_bytes(storage.join(spec.run_uri, "config.yaml"), settings.to_yaml().encode())
            run.log_text(settings.to_yaml(), "config.yaml")
            run.log_params({"training": settings.training.model_dump(), "model": settings.model.model_dump()})
        storage.write_json(mark, {"run_id": run.run_id, "host": socket.gethostname(), "process": os.getpid()})
        logger.info(
            "training: run %s%s, %s, version %d of %s",
            run.run_id, " goes on" if unfinished else "", settings.model.kind, prepared.version, prepared.table,
        )  # fmt: skip
        with following(settings.tracking, spec, run) as on_event:
            learned = learner.learn(spark, spec, on_event)
        for name, content in learned.artifacts.items():
            run.log_file(content, name)
        version = versions.register(
            client,
            _package(prepared, task, learned, run.run_id),
            run_id=run.run_id,
            name=settings.registry.model_name,
            alias=settings.registry.alias,
        )
        storage.delete(mark)
    seconds = time.monotonic() - started
    logger.info("registered: version %d of model %s in %.1f s", version, settings.registry.model_name, seconds)
    return {
        "run_id": run.run_id,
        "snapshot_version": prepared.version,
        **learned.report,
        "metrics": {split: measured.to_json() for split, measured in learned.metrics.items()},
        "predictions": dict(learned.predictions),
        "model_name": settings.registry.model_name,
        "model_version": version,
        "alias": settings.registry.alias,
        "train_seconds": round(learned.train_seconds, 3),
        "seconds": round(seconds, 3),
    }


def _new_run(client: Client, settings: Settings, prepared: Prepared) -> Run:
    tags = {"mlspark.table": prepared.table, "mlspark.table_version": str(prepared.version)}
    return runs.open_run(client, settings.tracking, f"{settings.name} v{prepared.version}", tags=tags)


def _unfinished(client: Client, mark: str, settings: Settings) -> Run | None:
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
    return runs.reopen_run(client, str(begun["run_id"]))


def _package(prepared: Prepared, task: Task, learned: LearnedModel, run_id: str) -> Package:
    return Package.pack(
        model=learned.files,
        encoder=prepared.encoder,
        contract=prepared.contract,
        task=task,
        provenance=provenance.describe(
            run_id=run_id,
            table=prepared.table,
            table_version=prepared.version,
            metrics=learned.metrics,
            train_seconds=learned.train_seconds,
            prepare_id=prepared.metadata["id"],
            encoder=prepared.encoder.fingerprint,
            **learned.report,
        ),
    )
