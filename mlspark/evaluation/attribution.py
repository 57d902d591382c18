"""What of a row makes its output: contributions of columns, and maps over pictures. Runs anywhere; needs no Spark.

What is explained is one number of each row, see `explained`. Contributions are SHAP values for trees (Lundberg et al. 2018)
and integrated gradients for networks (Sundararajan, Taly and Yan, ICML 2017): they add up to the number less that of a
baseline. Maps are Grad-CAM (Selvaraju et al., ICCV 2017) where a network has convolutions, else integrated gradients of
pixels. Of an ensemble they are the sums over its members, each explained in its own way for what it counts in the ensemble.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlspark.engines.eager import Eager
from mlspark.engines.engine import Engine
from mlspark.engines.ensemble import Ensemble
from mlspark.engines.trees import Trees
from mlspark.errors import MlsparkError
from mlspark.evaluation import member_factors
from mlspark.tasks.binary import BinaryTask
from mlspark.tasks.intervals import Floats
from mlspark.tasks.judgement import classified
from mlspark.tasks.multiclass import MulticlassTask
from mlspark.tasks.regression import RegressionTask
from mlspark.tasks.task import Task, outputs_of

STEPS = 64
"""Points of the path from the baseline to the row at which a network's gradient is taken."""
GRAD_CAM, GRADIENTS, SHAP = "Grad-CAM", "integrated gradients", "SHAP values"

Arrays = Mapping[str, NDArray[Any]]


class AttributionError(MlsparkError):
    """The outputs of a model cannot be explained."""


@dataclass(frozen=True)
class Contributions:
    """What each column adds to the explained number of n rows."""

    method: str
    columns: tuple[str, ...]
    """Columns of dense and ids, then pictures as wholes."""
    values: Floats
    """(n, columns)."""
    start: Floats
    """(n,): the number where nothing is added: of the mean row, of trees their mean output."""
    output: Floats
    """(n,): the explained number; start and values add up to it, of networks but for the error of the path's steps."""
    pixels: Mapping[str, Floats]
    """Picture -> what each of its pixels adds over all channels (n, H, W)."""


@dataclass(frozen=True)
class HeatMap:
    """Where in the pictures of a column the explained numbers come from."""

    method: str
    values: Floats
    """(n, H, W): 0, nothing of the number, to 1, the most within the picture."""


def explained(task: Task, outputs: NDArray[Any], target: NDArray[Any]) -> Floats:
    """Return what is explained of each row, as factors of its outputs (n, O).

    The logit of the event; with several classes how far the logit of the predicted class is above that of the true one, or
    above the next one where the prediction is right; the output that a predicted number is made of.
    """
    values = outputs_of(task, outputs)
    factors, rows = np.zeros(values.shape), np.arange(len(values))
    match task:
        case BinaryTask():
            factors[:, 0] = 1.0
        case MulticlassTask():
            of_rows = classified(task, values, target, None)
            factors[rows, of_rows.predicted], factors[rows, of_rows.runner_up] = 1.0, -1.0
        case RegressionTask():
            # Quantiles in the wrong order are read in the right one.
            factors[rows, np.argsort(values, axis=1, kind="stable")[:, task.prediction_output]] = 1.0
        case _:
            raise AttributionError(f"task.kind={task.kind}: its outputs are not explained")
    return factors


def contributions(
    engine: Engine, tensors: Arrays, factors: Floats, *, reference: Arrays, steps: int = STEPS
) -> Contributions:
    """Return what the columns and pictures of rows add to their explained numbers.

    Args:
        engine: of a version: trees, a network, or an ensemble of these.
        tensors: of the rows, each (n, ...).
        factors: from `explained`.
        reference: tensors of other rows; the path of a network begins at their mean.
        steps: of that path.

    Raises:
        AttributionError: the engine is another, an ensemble votes, or a network's ids do not go through an embedding for
            each column.
    """
    match engine:
        case Trees():
            parts = np.einsum("no,noc->nc", factors, engine.contributions(tensors))
            names = (*engine.tensors.columns("dense"), *engine.tensors.columns("ids"))
            return Contributions(SHAP, names, parts[:, :-1], parts[:, -1], parts.sum(axis=1), {})
        case Eager():
            from mlspark.evaluation import gradients

            return gradients.integrated(engine, tensors, factors, reference=reference, steps=steps)
        case Ensemble():
            return _of_members(engine, tensors, factors, reference, steps)
        case _:
            raise _not_explained(engine)


def _of_members(engine: Ensemble, tensors: Arrays, factors: Floats, reference: Arrays, steps: int) -> Contributions:
    """Return the sums over members of what their columns add, times what their outputs count in the ensemble."""
    combination, spec = engine.combination, engine.tensors
    if combination.kind == "vote":
        raise AttributionError(
            "model.combine=vote: shares of votes change in jumps, so what each column adds cannot be told"
        )
    starts = [_outputs_at_start(member, tensors, reference) for member in engine.engines]
    ends = [np.asarray(member.run(tensors), np.float64) for member in engine.engines]
    of_members = member_factors.factors(combination, starts, ends, factors)
    parts = [
        contributions(member, tensors, of_member, reference=reference, steps=steps)
        for member, of_member in zip(engine.engines, of_members, strict=True)
        if of_member.any()
    ]
    columns = (*spec.columns("dense"), *spec.columns("ids"), *spec.pictures)
    values, pixels = np.zeros((len(factors), len(columns))), dict[str, Floats]()
    for part in parts:
        values[:, [columns.index(column) for column in part.columns]] += part.values
        pixels |= {name: pixels.get(name, 0.0) + each for name, each in part.pixels.items()}
    start, output = ((combination.apply(outputs) * factors).sum(axis=1) for outputs in (starts, ends))
    return Contributions(
        " and ".join(dict.fromkeys(part.method for part in parts)), columns, values, start, output, pixels
    )


def _outputs_at_start(engine: Engine, tensors: Arrays, reference: Arrays) -> Floats:
    """Return an engine's outputs (n, O) where no column adds anything."""
    match engine:
        case Trees():
            return engine.contributions(tensors)[:, :, -1]
        case Eager():
            from mlspark.evaluation import gradients

            return gradients.outputs_at_start(engine, tensors, reference=reference)
        case Ensemble():
            return engine.combination.apply([_outputs_at_start(each, tensors, reference) for each in engine.engines])
        case _:
            raise _not_explained(engine)


def _not_explained(engine: Engine) -> AttributionError:
    return AttributionError(f"engine {type(engine).__name__}: only outputs of trees and of networks are explained")


def heat_maps(engine: Engine, tensors: Arrays, factors: Floats) -> dict[str, HeatMap]:
    """Return picture -> where in it the explained numbers come from, by Grad-CAM; none where there are no convolutions.

    Args:
        engine: of a version.
        tensors: of the rows, each (n, ...).
        factors: from `explained`.
    """
    maps = {}
    for name, values in _class_activations(engine, tensors, factors).items():
        most = values.max(axis=(1, 2), keepdims=True)
        maps[name] = HeatMap(GRAD_CAM, values / np.where(most > 0, most, 1.0))
    return maps


def _class_activations(engine: Engine, tensors: Arrays, factors: Floats) -> dict[str, Floats]:
    """Return picture -> Grad-CAM (n, H, W), 0 and more; of an ensemble the sum over the members that have it."""
    match engine:
        case Eager() if engine.tensors.pictures:
            from mlspark.evaluation import gradients

            return gradients.class_activations(engine, tensors, factors)
        case Ensemble() if engine.tensors.pictures and engine.combination.kind != "vote":
            ends = [np.asarray(member.run(tensors), np.float64) for member in engine.engines]
            of_members = member_factors.slopes(engine.combination, ends, factors)
            maps: dict[str, Floats] = {}
            for member, of_member in zip(engine.engines, of_members, strict=True):
                for name, values in _class_activations(member, tensors, of_member).items():
                    maps[name] = maps.get(name, 0.0) + values
            return maps
        case _:
            return {}
