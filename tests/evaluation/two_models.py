"""Two models that saw the same truth through noise of their own, on the same rows."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from mlspark.evaluation.predictions import Predictions
from mlspark.tasks.kinds import from_settings

Floats = NDArray[np.float64]
BINARY = from_settings({"kind": "binary", "target": "y", "classes": ["no", "yes"]})
GRADES = from_settings({"kind": "multiclass", "target": "y", "classes": ["a", "b", "c", "d"], "ordered": True})
NUMBER = from_settings({"kind": "regression", "target": "y", "center": 1.0, "scale": 2.0})
BAND = from_settings({"kind": "regression", "target": "y", "center": 1.0, "scale": 2.0, "loss": {"kind": "quantile"}})


def outputs_and_target(
    task: Any, count: int, *, noises: tuple[float, float] = (1.0, 1.4), seed: int = 0, decimals: int = 9
) -> tuple[Floats, Floats, NDArray[Any]]:
    """Return outputs of both models (n, O), rounded so that they have ties, and the target (n,)."""
    random = np.random.default_rng(seed)
    hidden = random.normal(size=(count, task.num_outputs)) * 1.5
    if task.link == "logistic":
        target: NDArray[Any] = (random.random(count) < expit(hidden[:, 0] - 0.7)).astype(np.float64)
    elif task.link == "softmax":
        target = (hidden + random.gumbel(size=hidden.shape)).argmax(1)
    else:
        hidden = np.sort(hidden, axis=1)
        target = np.round(1.0 + 2.0 * hidden[:, 0] + random.normal(size=count), decimals)
    first, second = (np.round(hidden + random.normal(size=hidden.shape) * noise, decimals) for noise in noises)
    return first, second, target


def kept(
    task: Any, count: int, *, is_weighted: bool = False, **options: Any
) -> tuple[Predictions, Predictions, NDArray[Any]]:
    """Return what was kept of both models, and the target in the order of the rows."""
    first, second, target = outputs_and_target(task, count, **options)
    weight = np.random.default_rng(9).integers(0, 4, count) / 2 if is_weighted else None
    ids = np.arange(count)
    return Predictions.of(ids, target, first, weight), Predictions.of(ids, target, second, weight), target
