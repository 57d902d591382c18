"""Rows of a split in one process, and the evaluation of an engine on those that it has not learnt from. Driver."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlspark.engines.engine import Engine
from mlspark.errors import TrainingFailed
from mlspark.evaluation import predictions
from mlspark.evaluation.predictions import Predictions
from mlspark.streaming.feature_table import open_feature_table
from mlspark.streaming.snapshot import Snapshot
from mlspark.tasks.metrics import Metrics
from mlspark.training.spec import TrainingSpec

_BATCH_ROWS = 65_536
_PICTURE_ROWS = 1024


def batches(spec: TrainingSpec, split: Snapshot) -> Iterator[dict[str, NDArray[Any]]]:
    """Yield the rows of a split in batches of numpy arrays, in the table's order."""
    at_once = _PICTURE_ROWS if spec.tensors.pictures else _BATCH_ROWS
    with open_feature_table(
        split,
        spec.tensors,
        spec.streaming.model_copy(update={"remainder": "keep"}),
        rank=0,
        world_size=1,
        global_batch_size=min(at_once, max(1, split.num_rows)),
        seed=spec.training.seed,
        shuffle=False,
    ) as stream:
        for batch in stream:
            yield {name: tensor.numpy() for name, tensor in batch.items() if name != "is_padding"}  # none: one rank


def evaluate(
    spec: TrainingSpec, splits: Mapping[str, Snapshot], engine: Engine
) -> tuple[dict[str, Metrics], dict[str, str]]:
    """Return the metrics and the URIs of the predictions of validation and test rows, in batches of rows.

    Raises:
        TrainingFailed: rows were lost.
    """
    metrics: dict[str, Metrics] = {}
    uris: dict[str, str] = {}
    for name in ("validation", "test"):
        if not splits[name].num_rows:
            continue
        parts: dict[str, list[NDArray[Any]]] = {}
        for batch in batches(spec, splits[name]):
            outputs = engine.run({tensor.name: batch[tensor.name] for tensor in spec.tensors.specs})
            for column in ("row_id", "target", "weight"):
                if column in batch:
                    parts.setdefault(column, []).append(batch[column])
            parts.setdefault("outputs", []).append(outputs)
        columns = {column: np.concatenate(values) for column, values in parts.items()}
        if len(columns["row_id"]) != splits[name].num_rows:
            raise TrainingFailed(
                f"split={name}: {len(columns['row_id'])} rows of {splits[name].num_rows} were evaluated"
            )
        of_split = Predictions.of(**columns)
        uris[name] = predictions.uri_of(spec.run_uri, name)
        predictions.write(uris[name], of_split)
        metrics[name] = of_split.metrics(spec.task)
    return metrics, uris
