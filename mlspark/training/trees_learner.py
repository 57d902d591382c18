"""Trees: learnt in the driver's process from rows in memory, or on Spark's executors where they are too many. Driver."""

import logging
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pyspark.sql import SparkSession

from mlspark.engines import trees as engine
from mlspark.engines.trees import Trees
from mlspark.errors import ConfigError, TrainingFailed
from mlspark.evaluation import predictions
from mlspark.evaluation.predictions import Predictions
from mlspark.features.tensors import Tensors
from mlspark.models import trees
from mlspark.models.trees import Rows, TreesSettings
from mlspark.streaming.feature_table import open_feature_table
from mlspark.streaming.snapshot import Snapshot
from mlspark.tasks.metrics import Metrics
from mlspark.training import spark_trees
from mlspark.training.data import splits_of
from mlspark.training.events import Evaluated, Grown, OnEvent, Started
from mlspark.training.learned_model import LearnedModel
from mlspark.training.spec import NO_FUNCTIONS, Functions, TrainingSpec

if TYPE_CHECKING:
    from xgboost import Booster

logger = logging.getLogger(__name__)

_BATCH_ROWS = 65_536
_PROGRESS_SECONDS = 1.0


def learn(spark: SparkSession, spec: TrainingSpec, on_event: OnEvent, *, functions: Functions) -> LearnedModel:
    """See `learner.learn`. Nothing is kept of a run that did not end: it begins again."""
    settings = spec.model
    assert isinstance(settings, TreesSettings), settings
    if functions != NO_FUNCTIONS:
        raise ConfigError("model.kind=trees takes no model or loss function; use a network")
    snapshot = Snapshot.load(spec.snapshot_uri)
    splits = splits_of(snapshot)
    is_in_memory = memory_bytes(spec.tensors, splits) <= settings.memory_bytes
    world_size = 1 if is_in_memory else spec.training.num_processes
    spec.save()
    on_event(Started(spec.attempt, world_size, spec.run_uri))
    started = time.perf_counter()
    if is_in_memory:
        booster = _grown_here(spec, settings, splits, on_event)
    else:
        booster = spark_trees.grow(spark, spec, settings, snapshot)
    seconds = time.perf_counter() - started
    files = engine.pack(settings, spec.tensors, spec.task.num_outputs, booster)
    rounds = booster.num_boosted_rounds()
    metrics, uris = _evaluate(spec, splits, engine.load(files), on_event, rounds)
    num_rows = splits["train"].num_rows
    return LearnedModel(
        files=files,
        engine="trees",
        metrics=metrics,
        predictions=uris,
        train_seconds=seconds,
        report={
            "world_size": world_size,
            "rounds": rounds,
            "rows": num_rows,
            "rows_per_second": round(num_rows * rounds / seconds),
        },
    )


def _grown_here(
    spec: TrainingSpec, settings: TreesSettings, splits: Mapping[str, Snapshot], on_event: OnEvent
) -> "Booster":
    """Return the trees, grown in this process."""
    rounds, told = 0, time.monotonic()

    def follow(so_far: int) -> None:
        nonlocal rounds, told
        rounds = so_far
        if time.monotonic() - told >= _PROGRESS_SECONDS:
            told = time.monotonic()
            on_event(Grown(rounds, settings.num_rounds))

    try:
        return trees.grow(
            settings,
            spec.task,
            spec.tensors,
            train=_rows(spec, splits["train"]),
            validation=_rows(spec, splits["validation"]) if splits["validation"].num_rows else None,
            seed=spec.training.seed,
            on_round=follow,
        )
    except KeyboardInterrupt as interruption:
        interruption.args = (f"after round {rounds}; the same command grows the trees anew",)
        raise


def memory_bytes(tensors: Tensors, splits: Mapping[str, Snapshot]) -> int:
    """Return how much memory the rows to learn from and to watch need in one process."""
    num_rows = splits["train"].num_rows + splits["validation"].num_rows
    num_dense, num_ids = tensors.num_dense, len(tensors.cardinalities)
    # As read, side by side as float32, and as XGBoost's bins; target, row id, weight.
    return num_rows * (num_dense * (4 + 4 + 2) + num_ids * (8 + 4 + 2) + 3 * 8)


def _batches(spec: TrainingSpec, split: Snapshot) -> Iterator[dict[str, NDArray[Any]]]:
    """Yield the rows of a split in batches of numpy arrays, in the table's order."""
    with open_feature_table(
        split,
        spec.tensors,
        spec.streaming.model_copy(update={"remainder": "keep"}),
        rank=0,
        world_size=1,
        global_batch_size=min(_BATCH_ROWS, max(1, split.num_rows)),
        seed=spec.training.seed,
        shuffle=False,
    ) as stream:
        for batch in stream:
            yield {name: tensor.numpy() for name, tensor in batch.items() if name != "is_padding"}  # none: one rank


def _rows(spec: TrainingSpec, split: Snapshot) -> Rows:
    """Return all rows of a split."""
    batches = list(_batches(spec, split))
    columns = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    inputs = {tensor.name: columns[tensor.name] for tensor in spec.tensors.specs}
    weight = columns["weight"].astype(np.float64) if "weight" in columns else None
    return Rows(inputs, columns["target"], weight)


def _evaluate(
    spec: TrainingSpec, splits: Mapping[str, Snapshot], model: Trees, on_event: OnEvent, rounds: int
) -> tuple[dict[str, Metrics], dict[str, str]]:
    """Return the metrics and the URIs of the predictions of validation and test rows, in batches of rows."""
    metrics: dict[str, Metrics] = {}
    uris: dict[str, str] = {}
    for name in ("validation", "test"):
        if not splits[name].num_rows:
            continue
        parts: dict[str, list[NDArray[Any]]] = {}
        for batch in _batches(spec, splits[name]):
            outputs = model.run({tensor.name: batch[tensor.name] for tensor in spec.tensors.specs})
            for column, values in {**batch, "outputs": outputs}.items():
                parts.setdefault(column, []).append(values)
        columns = {
            column: np.concatenate(parts[column])
            for column in ("row_id", "target", "outputs", "weight")
            if column in parts
        }
        if len(columns["row_id"]) != splits[name].num_rows:
            raise TrainingFailed(
                f"split={name}: {len(columns['row_id'])} rows of {splits[name].num_rows} were evaluated"
            )
        of_split = Predictions.of(**columns)
        uris[name] = predictions.uri_of(spec.run_uri, name)
        predictions.write(uris[name], of_split)
        metrics[name] = of_split.metrics(spec.task)
    if "test" in metrics:
        on_event(Evaluated("test", rounds, metrics["test"].to_json()))
    return metrics, uris
