"""What raw columns are worth to a model: how much worse a metric is when their values are shuffled. Runs anywhere.

Permutation importance (Breiman 2001; Fisher, Rudin and Dominici 2019) of rows that the model has not learnt from. Columns of
which a feature is made together are shuffled together.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlspark.errors import MlsparkError
from mlspark.evaluation.resampled_metrics import by_weight
from mlspark.features.encoder import Encoder
from mlspark.features.raw_columns import groups, inputs_of
from mlspark.features.tensors import Tensors
from mlspark.tasks.intervals import Floats, Interval
from mlspark.tasks.task import Task

REPEATS = 5
_PARTS = 20
"""Parts of the rows, each of which is left out once for the interval."""
_T = 2.093024054408263
"""0.975 quantile of Student's t with 19 degrees of freedom."""

Arrays = Mapping[str, NDArray[Any]]
Run = Callable[[Arrays], NDArray[Any]]
"""Function from tensors to outputs, as `Engine.run`."""


class ImportanceError(MlsparkError):
    """The importance of columns cannot be computed."""


@dataclass(frozen=True)
class Importance:
    """How much worse the metric is without what these columns say."""

    columns: tuple[str, ...]
    """One column, or several that are shuffled together."""
    value: float
    """Mean over the repeats, in the metric's unit; above 0 where the model is worse without them."""
    interval: Interval
    """Of 95 %, for other rows and other shuffles."""
    repeats: tuple[float, ...]
    """Of each shuffle."""


@dataclass(frozen=True)
class Rows:
    """Rows of a split as a model reads them."""

    tensors: Arrays
    """Each (n, ...)."""
    target: NDArray[Any]
    weight: NDArray[Any] | None = None


def shuffled(num_rows: int, *, seed: int, group: int, repeat: int) -> NDArray[np.int64]:
    """Return the order (n,) in which a group's values stand in a repeat; the same for the same numbers."""
    return np.random.default_rng([seed, group, repeat]).permutation(num_rows)


def importances(
    task: Task,
    run: Run,
    encoder: Encoder,
    tensors: Tensors,
    rows: Rows,
    *,
    metric: str,
    repeats: int = REPEATS,
    seed: int = 0,
    on_group: Callable[[tuple[str, ...]], None] = lambda columns: None,
) -> tuple[float, list[Importance]]:
    """Return the metric of the rows as they are, and the importance of each group of raw columns, the greatest first.

    The interval is a jackknife's over 20 parts of the rows, each left out once with all its shuffled values.

    Args:
        task: resolved.
        run: of the engine.
        encoder: of the version.
        tensors: that the model reads.
        rows: at least 40.
        metric: of the task.
        repeats: shuffles of each group.
        seed: of the shuffles.
        on_group: called before each group.

    Raises:
        ImportanceError: too few rows, or the metric is not defined on them.
    """
    num_rows = len(rows.target)
    if num_rows < 2 * _PARTS:
        raise ImportanceError(f"{num_rows} rows: too few to tell what columns are worth; {2 * _PARTS} at least")
    sign = 1.0 if task.lower_is_better(metric) else -1.0

    weight = np.ones(num_rows) if rows.weight is None else np.asarray(rows.weight, np.float64)
    part = np.arange(num_rows) % _PARTS
    weights = np.stack([weight, *(weight * (part != left_out) for left_out in range(_PARTS))])

    def scores(outputs: NDArray[Any]) -> Floats:
        """Return the metric of all rows, then without each part of them; higher is worse."""
        of_metrics = by_weight(task, outputs, rows.target)(weights)
        if metric not in of_metrics:
            raise ImportanceError(f"{metric} is not computed here; choose one of {', '.join(of_metrics)}")
        if not np.isfinite(of_metrics[metric]).all():
            raise ImportanceError(f"{metric} is not defined on these {num_rows:,} rows; choose another metric")
        return of_metrics[metric] * sign

    whole = scores(run(rows.tensors))
    inputs, found = inputs_of(encoder, tensors), []
    for group, columns in enumerate(groups(encoder, inputs)):
        on_group(columns)
        own = [each for each in inputs if set(each.columns) <= set(columns)]
        drops = []
        for repeat in range(repeats):
            changed = dict(rows.tensors)
            order = shuffled(num_rows, seed=seed, group=group, repeat=repeat)
            for name in {each.tensor for each in own}:
                places = [each.place for each in own if each.tensor == name]
                changed[name] = _reordered(rows.tensors[name], order, places, is_picture=name in tensors.pictures)
            drops.append(scores(run(changed)) - whole)
        found.append(_importance(columns, np.array(drops)))
    return float(whole[0] * sign), sorted(found, key=lambda each: -each.value)


def _reordered(
    values: NDArray[Any], order: NDArray[np.int64], places: Sequence[int], *, is_picture: bool
) -> NDArray[Any]:
    if is_picture:
        return values[order]
    changed = values.copy()
    changed[:, places] = values[order][:, places]
    return changed


def _importance(columns: tuple[str, ...], drops: Floats) -> Importance:
    """Return the importance of drops (repeats, 1 + parts)."""
    means = drops.mean(axis=0)
    value, without = float(means[0]), means[1:]
    error = np.sqrt((_PARTS - 1) / _PARTS * ((without - without.mean()) ** 2).sum())
    return Importance(
        columns, value, (float(value - _T * error), float(value + _T * error)), tuple(map(float, drops[:, 0]))
    )
