"""Trees: learnt in the driver's process from rows in memory, or on Spark's executors where they are too many. Driver."""

import hashlib
import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from pyspark.sql import SparkSession

from mlspark import storage
from mlspark.engines import trees as engine
from mlspark.errors import ConfigError
from mlspark.features.tensors import Tensors
from mlspark.models import trees
from mlspark.models.trees import Rows, TreesSettings
from mlspark.streaming.snapshot import Snapshot
from mlspark.training import held_out, spark_trees
from mlspark.training.data import splits_of
from mlspark.training.events import Evaluated, Grown, OnEvent, Started
from mlspark.training.learned_model import LearnedModel
from mlspark.training.spec import NO_FUNCTIONS, Functions, TrainingSpec

if TYPE_CHECKING:
    from xgboost import Booster

logger = logging.getLogger(__name__)

_PROGRESS_SECONDS = 1.0
_TREES, _ABOUT = "trees.ubj", "trees.json"
"""Files of a run that hold its trees, and what they are."""


def learn(spark: SparkSession, spec: TrainingSpec, on_event: OnEvent, *, functions: Functions) -> LearnedModel:
    """See `learner.learn`. Trees that are whole are kept with the run; of fewer nothing is: they are grown anew."""
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
    grown = _kept(spec, snapshot)
    if grown is None:
        started = time.perf_counter()
        if is_in_memory:
            booster = _grown_here(spec, settings, splits, on_event)
        else:
            booster = spark_trees.grow(spark, spec, settings, snapshot)
        grown = booster, time.perf_counter() - started
        _keep(spec, snapshot, *grown)
    booster, seconds = grown
    files = engine.pack(settings, spec.tensors, spec.task.num_outputs, booster)
    rounds = booster.num_boosted_rounds()
    metrics, uris = held_out.evaluate(spec, splits, engine.load(files))
    if "test" in metrics:
        on_event(Evaluated("test", rounds, metrics["test"].to_json()))
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


def _keep(spec: TrainingSpec, snapshot: Snapshot, booster: "Booster", seconds: float) -> None:
    """Keep whole trees with the run: evaluation, or the members of an ensemble after it, may yet be cut short."""
    content = bytes(booster.save_raw("ubj"))
    storage.write_bytes(storage.join(spec.run_uri, _TREES), content)
    about = {"identity": spec.digest(snapshot.fingerprint), "trees": hashlib.sha256(content).hexdigest()}
    storage.write_sealed(storage.join(spec.run_uri, _ABOUT), {**about, "seconds": seconds})


def _kept(spec: TrainingSpec, snapshot: Snapshot) -> "tuple[Booster, float] | None":
    """Return the trees that the run has grown already, and the seconds that it took; None without such."""
    import xgboost

    if not storage.exists(storage.join(spec.run_uri, _ABOUT)):
        return None
    about = storage.read_sealed(storage.join(spec.run_uri, _ABOUT))
    content = storage.read_bytes(storage.join(spec.run_uri, _TREES))
    if about["identity"] != spec.digest(snapshot.fingerprint) or about["trees"] != hashlib.sha256(content).hexdigest():
        return None
    logger.info("%s: its trees are grown already", spec.run_uri)
    return xgboost.Booster(model_file=bytearray(content)), float(about["seconds"])


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


def _rows(spec: TrainingSpec, split: Snapshot) -> Rows:
    """Return all rows of a split."""
    batches = list(held_out.batches(spec, split))
    columns = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    inputs = {tensor.name: columns[tensor.name] for tensor in spec.tensors.specs}
    weight = columns["weight"].astype(np.float64) if "weight" in columns else None
    return Rows(inputs, columns["target"], weight)
