"""The train stage: a version of the feature table becomes a registered version of a model. Driver."""

import logging
import time
import uuid
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from pyspark.sql import SparkSession

from mlspark import storage
from mlspark.features import prepared as preparations
from mlspark.features.prepared import Prepared
from mlspark.registry import provenance, training_inputs
from mlspark.settings.pipeline import Settings
from mlspark.stages import evaluation, places, registration, training_mark, training_record
from mlspark.stages.check import trainable_tensors
from mlspark.stages.spending import Spending
from mlspark.stages.training_events import following
from mlspark.stages.training_mark import Mark
from mlspark.streaming import delta_files
from mlspark.tracking import runs
from mlspark.tracking.runs import Client, Run
from mlspark.training import learner
from mlspark.training.learned_model import LearnedModel
from mlspark.training.spec import TrainingSpec

logger = logging.getLogger(__name__)

_MARKS = "runs/unfinished"
"""Folder of the marks of trainings, below the root."""


def train(spark: SparkSession, settings: Settings) -> dict[str, Any]:
    """Train on the newest prepared table, register the best epoch's model as a version and return the report.

    A training of the same settings on the same table version that was finished is not done again, and one that was begun
    and not finished goes on where it was, unless training.recovery.resume is false. Of two at the same time one trains.

    Raises:
        TableError: nothing was prepared yet.
        ConfigError: settings that the model, the task or this Spark cannot meet; no place for the embedded MLflow store; or
            the same is being trained at this moment.
        StorageError: storage.root is full, read-only or another's; found before a rank is started where it is so then.
        TrackingError: MLflow does not answer; run again to go on.
        BudgetSpent: cost.budget would not last to the next checkpoint; with a larger one, it goes on from the last one.
        TrainingFailed: it could not be trained; names the rank. The MLflow run is marked FAILED and nothing is registered.
    """
    started = time.monotonic()
    prepared = preparations.latest(settings.table("features"))
    client = runs.connect(settings.tracking, settings.root)
    snapshot = delta_files.take(prepared.table, version=prepared.version)
    task = settings.task.on_table(prepared.task, prepared.table)
    spec = TrainingSpec(
        run_uri="",
        tensors=trainable_tensors(settings, prepared, task),
        task=task,
        model=settings.model,
        training=settings.training,
        streaming=settings.streaming,
    )
    spec, inputs = training_inputs.resolve(client, spec, prepared, retry_seconds=settings.tracking.retry_seconds)
    name = f"{settings.name}-{training_record.digest(spec, prepared, snapshot)}"
    is_new = not settings.training.recovery.resume
    mark_name = f"{name}-{uuid.uuid4().hex}" if is_new else name
    with places.writing(settings, folder=_MARKS), _marked(client, settings, mark_name) as mark:
        done = None if is_new else training_record.finished(client, settings, name)
        if done is not None:
            mark.finish()
            return done
        weights = training_inputs.fitted(spec, inputs)
        earlier = (
            runs.reopen_run(client, mark.run_id, retry_seconds=settings.tracking.retry_seconds) if mark.run_id else None
        )
        run = earlier or _new_run(client, settings, prepared, name)
        with run, run.machine_metrics():
            mark.set_run(run.run_id)
            spec = spec.at(storage.join(settings.root, "runs", run.run_id))
            training_inputs.keep(spec, inputs, weights)
            if earlier is None:
                training_record.describe(run, spec, settings, prepared, snapshot)
            logger.info(
                "training: run %s%s, %s, version %d of %s",
                run.run_id, " goes on" if earlier else "", settings.model.kind, prepared.version, prepared.table,
            )  # fmt: skip
            spending = Spending(settings, spec.run_uri, started=started)
            with following(settings.tracking, spec, run) as on_event:
                learned = learner.learn(spark, spec, spending.followed_by(on_event))
            mark.check()
            report = _report(prepared, learned, settings, run.run_id)
            spent = spending.save()
            version = registration.register(client, settings, prepared, task, learned, run, snapshot, spent)
            report |= {"model_version": version}
            evaluation.keep(settings, spec, learned, run, snapshot, report["model_version"])
            report |= {"seconds": round(time.monotonic() - started, 3)}
            training_record.keep(settings, name, report)
            mark.finish()
    logger.info(
        "registered: version %d of model %s in %.1f s",
        report["model_version"], settings.registry.model_name, report["seconds"],
    )  # fmt: skip
    return report


def _marked(client: Client, settings: Settings, name: str) -> AbstractContextManager[Mark]:
    """Return the mark of a training, to be held; runs of drivers that have died have ended then."""
    marks = storage.join(settings.root, _MARKS)
    for run_id in training_mark.abandoned(marks, f"{settings.name}-"):
        runs.end_abandoned(client, run_id)
    return training_mark.held(marks, name)


def _new_run(client: Client, settings: Settings, prepared: Prepared, name: str) -> Run:
    revision = provenance.revision(registration.pipeline_folder(settings))
    tags = {
        "mlspark.table": prepared.table,
        "mlspark.table_version": str(prepared.version),
        "mlspark.training": name,
        "mlflow.source.type": "JOB",
        "mlflow.source.name": f"train {settings.name}",
        "mlflow.source.git.commit": revision.commit,
        "mlspark.git_is_changed": str(revision.is_changed),
    }
    digest = name.rpartition("-")[2][:8]
    return runs.open_run(
        client,
        settings.tracking,
        f"{settings.name} v{prepared.version} {settings.model.kind} {digest}",
        tags={key: value for key, value in tags.items() if value},
    )


def _report(prepared: Prepared, learned: LearnedModel, settings: Settings, run_id: str) -> dict[str, Any]:
    metrics: Mapping[str, Any] = {split: measured.to_json() for split, measured in learned.metrics.items()}
    return {
        "run_id": run_id,
        "snapshot_version": prepared.version,
        **learned.report,
        "metrics": metrics,
        "predictions": dict(learned.predictions),
        "model_name": settings.registry.model_name,
        "alias": settings.registry.alias,
        "train_seconds": round(learned.train_seconds, 3),
        "already_done": False,
    }
