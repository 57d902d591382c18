"""How long a version takes for rows, from encoded ones on. Runs anywhere; needs no Spark."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlspark.engines.engine import Engine
from mlspark.tasks.task import Task

BATCH_ROWS = 256
_LEAST, _SECONDS = 5, 1.0


@dataclass(frozen=True)
class Latency:
    """Medians of milliseconds in this process."""

    raw_row_milliseconds: float | None
    """Of one raw row alone: checked, encoded and predicted; None where the version has no example of a row."""
    row_milliseconds: float
    """Of one encoded row alone, to its prediction."""
    batch_rows: int
    """Rows of the batch: BATCH_ROWS, or what the split has."""
    batch_milliseconds: float
    """Of the whole batch of encoded rows, to its predictions."""


def measure(
    task: Task, engine: Engine, tensors: Mapping[str, NDArray[Any]], *, raw_row_milliseconds: float | None
) -> Latency:
    """Return how long the engine and the task's predictions take; each about a second, at least 5 times.

    Args:
        task: says what outputs mean.
        engine: ready to run.
        tensors: rows, each (n, ...); the first BATCH_ROWS are taken.
        raw_row_milliseconds: of one raw row, measured by whoever can check and encode it.
    """
    batch = {name: np.ascontiguousarray(values[:BATCH_ROWS]) for name, values in tensors.items()}
    one = {name: values[:1] for name, values in batch.items()}
    rows = len(next(iter(batch.values())))
    return Latency(raw_row_milliseconds, _median(task, engine, one), rows, _median(task, engine, batch))


def _median(task: Task, engine: Engine, tensors: Mapping[str, NDArray[Any]]) -> float:
    task.predictions(engine.run(tensors))  # the first call makes what later ones use
    times: list[float] = []
    while len(times) < _LEAST or (sum(times) < _SECONDS and len(times) < 1000):
        started = time.perf_counter()
        task.predictions(engine.run(tensors))
        times.append(time.perf_counter() - started)
    return float(np.median(times)) * 1000
