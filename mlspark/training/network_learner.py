"""Networks: learnt by the ranks that the launcher starts. Driver."""

import logging
import tempfile
from pathlib import Path

from pyspark.sql import SparkSession

from mlspark import storage
from mlspark.engines import eager, source_code
from mlspark.evaluation import predictions
from mlspark.models.custom import CustomSettings
from mlspark.training import checkpoint, launcher, progress_display
from mlspark.training.events import OnEvent
from mlspark.training.learned_model import LearnedModel, LearnedSnapshot
from mlspark.training.outcome import TrainingOutcome
from mlspark.training.spec import Functions, TrainingSpec

logger = logging.getLogger(__name__)


def learn(spark: SparkSession, spec: TrainingSpec, on_event: OnEvent, *, functions: Functions) -> LearnedModel:
    """See `learner.learn`."""
    for remark in [] if functions.model else spec.model.remarks(spec.tensors):
        logger.info("model: %s", remark)
    factory = functions.model or (spec.model.factory if isinstance(spec.model, CustomSettings) else None)
    code = None if factory is None else source_code.capture(factory)  # before it is trained: it may be edited meanwhile
    outcome = launcher.launch(spark, spec, on_event, functions=functions)

    def packed(uri: str) -> dict[str, bytes]:
        return eager.pack(spec.model, spec.tensors, spec.task.num_outputs, checkpoint.load(uri).weights, code)

    return LearnedModel(
        files=packed(outcome.checkpoint_uri),
        engine="eager",
        metrics=outcome.metrics,
        predictions=outcome.predictions,
        train_seconds=outcome.train_seconds,
        report={
            "world_size": outcome.world_size,
            "steps": outcome.steps,
            "rows_per_epoch": outcome.rows_per_epoch,
            "epochs": len(outcome.epochs),
            "best_epoch": outcome.best_epoch,
            "restarts": outcome.restarts,
            "rows_per_second": round(outcome.rows_per_second),
            "data_wait_fraction": round(outcome.data_wait_fraction, 4),
            **_initial(spec),
        },
        artifacts=_artifacts(spec, outcome),
        snapshots=tuple(
            LearnedSnapshot(packed(uri), {split: predictions.uri_of(uri, split) for split in outcome.metrics})
            for uri in spec.snapshot_uris
        ),
        epochs=[epoch.to_json() for epoch in outcome.epochs],
    )


def _initial(spec: TrainingSpec) -> dict[str, dict[str, str]]:
    """Return what the training began with, where it did not begin at random."""
    initial = spec.model.initial
    return {} if initial is None else {"initial_weights": {"place": initial.place, "sha256": initial.sha256}}


def _artifacts(spec: TrainingSpec, outcome: TrainingOutcome) -> dict[str, bytes]:
    """Return the curves of the run, and the trace of its steps if it has one."""
    with tempfile.TemporaryDirectory() as folder:
        curves = Path(folder) / "training.png"
        progress_display.draw(outcome.epochs, spec.task, curves, best_epoch=outcome.best_epoch)
        artifacts = {"training.png": curves.read_bytes()}
    trace = storage.join(spec.run_uri, "profile", "trace.json.gz")
    if storage.exists(trace):
        artifacts["profile/trace.json.gz"] = storage.read_bytes(trace)
    return artifacts
