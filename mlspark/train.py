"""The train stage: a version of the feature table becomes a registered model version. Driver."""

import logging
import platform
import subprocess
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from mlspark import __version__, storage, tracking
from mlspark.config import Settings
from mlspark.preparation import prepared as preparations
from mlspark.preparation.prepared import Prepared
from mlspark.registry import versions
from mlspark.registry.bundle import Bundle
from mlspark.streaming import snapshot as snapshots
from mlspark.training import checkpoint, launcher
from mlspark.training.launcher import TrainingOutcome
from mlspark.training.spec import TrainingSpec

logger = logging.getLogger(__name__)

_LIBRARIES = ("torch", "pyspark", "delta-spark", "petastorm", "pyarrow", "numpy", "mlflow")


def train(spark: SparkSession, settings: Settings) -> dict[str, Any]:
    """Train on the newest prepared table, register the best checkpoint as a model version and return the report.

    Raises:
        ContractError: nothing was prepared yet.
        ConfigError: too few task slots, or no place for the embedded MLflow store.
        TrainingFailed: a rank failed; names it. The MLflow run is marked FAILED and nothing is registered.
    """
    started = time.monotonic()
    prepared = preparations.latest(settings)
    client = tracking.connect(settings)
    tags = {"mlspark.table": prepared.table, "mlspark.table_version": str(prepared.version)}
    with tracking.run(f"{settings.name} v{prepared.version}", tags=tags) as run_id:
        snapshot = snapshots.take(prepared.table, version=prepared.version)
        spec = TrainingSpec(
            run_uri=storage.join(settings.root, "runs", run_id),
            layout=prepared.encoder.layout,
            model=settings.model,
            training=settings.training,
            streaming=settings.streaming,
        )
        snapshot.save(spec.snapshot_uri)
        storage.write_bytes(storage.join(spec.run_uri, "config.yaml"), settings.to_yaml().encode())
        tracking.log_text(settings.to_yaml(), "config.yaml")
        tracking.log_params({"training": settings.training.model_dump(), "model": settings.model.model_dump()})
        logger.info(
            "training: run %s, %d ranks, version %d of %s",
            run_id, settings.training.num_processes, prepared.version, prepared.table,
        )  # fmt: skip
        outcome = launcher.launch(spark, spec, _follow)
        metrics = {split: measured.to_json() for split, measured in outcome.metrics.items()}
        bundle = _bundle(prepared, spec, outcome, run_id, metrics)
        version = versions.register(
            client, bundle, run_id=run_id, name=settings.registry.model_name, alias=settings.registry.alias
        )
    seconds = time.monotonic() - started
    logger.info("registered: version %d of model %s in %.1f s", version, settings.registry.model_name, seconds)
    return {
        "run_id": run_id,
        "snapshot_version": prepared.version,
        "world_size": outcome.world_size,
        "steps": outcome.steps,
        "rows_per_epoch": outcome.rows_per_epoch,
        "rows_seen_per_rank": list(outcome.rows_seen_per_rank),
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


def _follow(event: dict[str, Any]) -> None:
    """Show and log one event of rank 0, while the ranks run."""
    numbers = {key: value for key, value in event.items() if isinstance(value, float)}
    if event["event"] == "epoch":
        tracking.log_metrics(numbers, step=event["epoch"])
        logger.info(
            "epoch %d/%d: step %d, loss %.4f, validation loss %.4f, accuracy %.4f, AUC %.4f, %s rows/s, waited %.0f %%",
            event["epoch"], event["epochs"], event["step"], event["train_loss"],
            *(event.get(f"validation_{name}", float("nan")) for name in ("log_loss", "accuracy", "roc_auc")),
            f"{event['rows_per_second']:,.0f}", 100 * event["data_wait_fraction"],
        )  # fmt: skip
    elif event["event"] == "evaluation":
        tracking.log_metrics({f"{event['split']}_{key}": value for key, value in numbers.items()}, step=event["step"])


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
