"""A number, with limits where the loss has them. Needs no Spark; torch in the loss only."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import model_validator

from mlspark.errors import ConfigError
from mlspark.tasks import losses
from mlspark.tasks.intervals import Floats, Interval, median_interval, normal_interval, standard_error
from mlspark.tasks.losses import AbsoluteLoss, CustomLoss, LossFunction, NumberLoss, Positive, QuantileLoss, SquaredLoss
from mlspark.tasks.metrics import Metric, Metrics, mean, share, weighted_median
from mlspark.tasks.task import INTEGERS, Column, Seen, Task, is_number, outputs_of, rounded

if TYPE_CHECKING:
    import torch

_LARGEST_EXPONENT = 709.0  # e ** 710 is no double


class RegressionTask(Task):
    """Predict a number. The label is the raw value; the loss is computed on the transformed one."""

    label_type: ClassVar[str] = "double"
    label_fields: ClassVar[frozenset[str]] = frozenset(
        {"kind", "target", "weight", "transform", "standardise", "center", "scale"}
    )
    decided_fields: ClassVar[tuple[str, ...]] = ("center", "scale")

    kind: Literal["regression"]
    loss: NumberLoss = SquaredLoss()
    transform: Literal["none", "log1p"] = "none"
    """What the network learns instead of the value: log1p is log(1 + value), for targets above -1 with a long tail."""
    standardise: bool = True
    """Whether the network then learns the distance from the training rows' mean in standard deviations."""
    center: float | None = None
    """Mean of the transformed target that `standardise` subtracts; unset: that of the training rows."""
    scale: Positive | None = None
    """Standard deviation of the transformed target that `standardise` divides by; unset: that of the training rows."""

    @model_validator(mode="after")
    def _standard_is_used(self) -> Self:
        if not self.standardise and (self.center is not None or self.scale is not None):
            raise ValueError("center and scale need standardise: true")
        return self

    @property
    def num_outputs(self) -> int:
        """One; with loss.kind quantile one for each quantile."""
        return len(self._quantiles)

    @property
    def _quantiles(self) -> tuple[float, ...]:
        return self.loss.quantiles if isinstance(self.loss, QuantileLoss) else (0.5,)

    @property
    def prediction_output(self) -> int:
        """Number of the output that `prediction` is made of, from 0."""
        return self._quantiles.index(0.5)

    @property
    def is_resolved(self) -> bool:
        """Whether center and scale are known, or not needed."""
        return not self.standardise or (self.center is not None and self.scale is not None)

    def target_sql(self, column_type: str) -> str:
        """Return SQL of the transformed target (double) before it is standardised, null as `label_sql` is."""
        label = self.label_sql(column_type)
        return f"log1p({label})" if self.transform == "log1p" else label

    def seen_sql(self, column_type: str) -> dict[str, str]:
        """See `Task.seen_sql`."""
        if self.is_resolved:
            return {}
        value = self.target_sql(column_type)
        return {"mean": f"avg({value})", "deviation": f"stddev_pop({value})"}

    def resolved(self, seen: Seen) -> Self:
        """See `Task.resolved`."""
        if self.is_resolved:
            return self
        if seen.mean is None or seen.deviation is None:
            raise ConfigError(f"task.target {self.target}: no training row has a value; {self._remedy}")
        if not math.isfinite(seen.mean) or not math.isfinite(seen.deviation):
            raise ConfigError(f"task.target {self.target}: values too large to standardise; set task.transform: log1p")
        # A constant target has nothing to divide by.
        scale = rounded(seen.deviation) or 1.0
        return self._with(
            center=rounded(seen.mean) if self.center is None else self.center,
            scale=scale if self.scale is None else self.scale,
        )

    def label_sql(self, column_type: str) -> str:
        """See `Task.label_sql`."""
        value = f"CAST(`{self.target}` AS DOUBLE)"
        if self.transform == "log1p":
            return f"CASE WHEN {value} > -1.0D AND {value} < double('infinity') THEN {value} END"
        return value if column_type in INTEGERS else f"CASE WHEN abs({value}) < double('infinity') THEN {value} END"

    def check(self, column: Column) -> list[str]:
        """See `Task.check`."""
        if not is_number(column.type):
            return [
                f"task.target {column.name}: type {column.type}, regression needs a number; choose another column, or "
                f"kind: binary or multiclass"
            ]
        return []

    def is_closed_by(self, column: Column) -> bool:
        """See `Task.is_closed_by`."""
        if column.nullable:
            return False
        if self.transform == "log1p" and not (isinstance(column.min, (int, float)) and column.min > -1):
            return False
        # A contract keeps infinity out of floats by its bounds alone.
        is_bounded = isinstance(column.min, (int, float)) and isinstance(column.max, (int, float))
        return column.type not in ("float", "double") or is_bounded

    @property
    def _remedy(self) -> str:
        bound = " and above -1 (task.transform: log1p)" if self.transform == "log1p" else ""
        return (
            f"the target must be there, finite{bound}: say so in the contract (nullable: false, min, max), which "
            f"quarantines other rows"
        )

    def _standard(self) -> tuple[float, float]:
        """Return what the transformed target is shifted and divided by."""
        if not self.standardise:
            return 0.0, 1.0
        if self.center is None or self.scale is None:
            raise ConfigError(
                f"task.center, task.scale: not known before the training rows of {self.target} were read; set both, or "
                f"task.standardise: false"
            )
        return self.center, self.scale

    def loss_of(
        self, outputs: "torch.Tensor", target: "torch.Tensor", function: LossFunction | None = None
    ) -> "torch.Tensor":
        """See `Task.loss_of`."""
        center, scale = self._standard()
        values = target.double()
        values = ((values.log1p() if self.transform == "log1p" else values) - center) / scale
        outputs, learned = outputs.float(), values.float()
        if isinstance(self.loss, CustomLoss):
            return losses.custom_losses(self.loss, function, outputs, learned)
        return losses.number_losses(self.loss, outputs, learned)

    def predictions(self, outputs: ArrayLike) -> dict[str, NDArray[Any]]:
        """Return prediction (n,) float64 in the target's own unit, and prediction_low and prediction_high of quantiles."""
        values = self._undone(outputs_of(self, outputs))
        places = self._places
        return {name: np.ascontiguousarray(values[:, place]) for name, place in places.items()}

    def outputs_from(self, predictions: Mapping[str, ArrayLike]) -> Floats:
        """See `Task.outputs_from`."""
        center, scale = self._standard()
        quantiles, outputs = np.array(self._quantiles), {}
        for name, place in self._places.items():
            values = np.asarray(predictions[name], np.float64)
            outputs[place] = ((np.log1p(values) if self.transform == "log1p" else values) - center) / scale
        known = sorted(outputs)
        rows = np.stack([outputs[place] for place in known], axis=1)
        if len(known) == len(quantiles):
            return rows
        return np.stack([np.interp(quantiles, quantiles[known], row) for row in rows])

    @property
    def lost_metrics(self) -> tuple[str, ...]:
        """See `Task.lost_metrics`: of quantiles the score table has the least, the middle and the greatest."""
        return ("pinball",) if len(self._places) < self.num_outputs else ()

    @property
    def _places(self) -> dict[str, int]:
        quantiles = self._quantiles
        places = {"prediction": self.prediction_output}
        if quantiles[0] < 0.5:
            places["prediction_low"] = 0
        if quantiles[-1] > 0.5:
            places["prediction_high"] = len(quantiles) - 1
        return places

    def _undone(self, outputs: Floats) -> Floats:
        """Return outputs (n, O) in the target's own unit, each row's quantiles ascending."""
        center, scale = self._standard()
        # Quantiles that a network puts in the wrong order get nearer to the truth by sorting (Chernozhukov et al. 2010).
        values = np.sort(outputs, axis=1) * scale + center
        return np.expm1(np.minimum(values, _LARGEST_EXPONENT)) if self.transform == "log1p" else values

    @property
    def prediction_types(self) -> dict[str, str]:
        """See `Task.prediction_types`."""
        return dict.fromkeys(self._places, "double")

    def metrics(
        self, outputs: ArrayLike, target: ArrayLike, weight: ArrayLike | None = None, *, intervals: bool = True
    ) -> Metrics:
        """See `Task.metrics`."""
        values = self._undone(outputs_of(self, outputs))
        rows = self.weighing_rows(values, target, weight)
        losses_of = self._row_losses(rows.outputs, rows.target)
        squared, absolute = losses_of["rmse"], losses_of["mae"]
        metrics = {
            "rmse": _root(mean(squared, rows.weight)),
            "mae": mean(absolute, rows.weight),
            "median_ae": Metric(weighted_median(absolute, rows.weight), median_interval(absolute, rows.weight)),
            "r2": _r2(squared, rows.target, rows.weight),
            "mape": mean(losses_of["mape"], rows.weight),
            "pinball": mean(losses_of["pinball"], rows.weight),
        }
        if "coverage" in losses_of:
            metrics["coverage"] = share(losses_of["coverage"] > 0, rows.weight)
        return Metrics(np.size(target), metrics)

    def row_losses(self, outputs: ArrayLike, target: ArrayLike) -> dict[str, Floats]:
        """Return what metrics are means of, of each row (n,): by metric, for rmse the squared error.

        Args:
            outputs: (n, O).
            target: (n,) of the feature table's `label`.
        """
        return self._row_losses(self._undone(outputs_of(self, outputs)), np.asarray(target, np.float64))

    def _row_losses(self, values: Floats, target: Floats) -> dict[str, Floats]:
        """Return `row_losses` of predicted numbers (n, O) in the target's own unit."""
        places = self._places
        errors = target - values[:, places["prediction"]]
        least = np.maximum(np.abs(target), np.finfo(np.float64).eps)  # as in scikit-learn
        found = {
            "rmse": errors**2,
            "mae": np.abs(errors),
            "mape": np.abs(errors) / least,
            "pinball": self._pinball(values, target),
        }
        if "coverage" in self.metric_names:
            low, high = values[:, places["prediction_low"]], values[:, places["prediction_high"]]
            found["coverage"] = ((low <= target) & (target <= high)).astype(np.float64)
        return found

    def _pinball(self, predicted: Floats, target: Floats) -> Floats:
        quantiles, errors = np.array(self._quantiles), target[:, None] - predicted
        return np.asarray(np.maximum(quantiles * errors, (quantiles - 1) * errors).mean(axis=1))

    @property
    def metric_names(self) -> tuple[str, ...]:
        """See `Task.metric_names`; `coverage` is the share of targets between prediction_low and prediction_high."""
        has_both = {"prediction_low", "prediction_high"} <= set(self._places)
        return ("rmse", "mae", "median_ae", "r2", "mape", "pinball", *(("coverage",) if has_both else ()))

    @property
    def default_metric(self) -> str:
        """See `Task.default_metric`: the one that the loss aims at."""
        if isinstance(self.loss, QuantileLoss):
            return "pinball"
        return "mae" if isinstance(self.loss, AbsoluteLoss) else "rmse"


def _root(squared: Metric) -> Metric:
    assert squared.value is not None
    interval: Interval | None = None
    if squared.interval is not None:
        interval = math.sqrt(squared.interval[0]), math.sqrt(squared.interval[1])
    return Metric(math.sqrt(squared.value), interval)


def _r2(squared: Floats, target: Floats, weight: Floats) -> Metric:
    """Return the share of the target's variance that is explained; None for a constant target."""
    total = weight.sum()
    spread = (target - (weight * target).sum() / total) ** 2
    variance, error = (weight * spread).sum() / total, (weight * squared).sum() / total
    if len(target) < 2 or not variance > 0:
        return Metric(None, None)
    value = float(1 - error / variance)
    # What each row adds to 1 - error / variance, to first order.
    influence = weight / total * ((1 - value) * (spread - variance) - (squared - error)) / variance
    return Metric(value, normal_interval(value, standard_error(influence), high=1.0))
