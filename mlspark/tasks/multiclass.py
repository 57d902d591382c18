"""One of several classes, with the probability of each. Needs no Spark; torch in the loss only."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import model_validator

from mlspark.tasks import losses
from mlspark.tasks.class_metrics import (
    TOP_K,
    class_rankings,
    prediction_metrics,
    resampled_metrics,
    single_names,
    top_shares,
)
from mlspark.tasks.classes import ClassTask, column_name, shared_names
from mlspark.tasks.losses import CustomLoss, LossFunction
from mlspark.tasks.metrics import Metrics, mean
from mlspark.tasks.task import Link, outputs_of

if TYPE_CHECKING:
    import torch


class MulticlassTask(ClassTask):
    """Predict the class and the probability of each. The label is the class's id, its place in `classes`."""

    label_type: ClassVar[str] = "int"
    link: ClassVar[Link] = "softmax"

    kind: Literal["multiclass"]
    ordered: bool = False
    """Whether the order of `classes` means something, like grades: adds metrics that count how far a prediction is off."""
    probabilities: Literal["columns", "array"] = "columns"
    """Columns of the score table: `probability_CLASS` for each class, or one array `probabilities` in their order."""

    @model_validator(mode="after")
    def _columns_have_names(self) -> Self:
        if self.classes and self.probabilities == "columns":
            shared = shared_names(map(column_name, self.classes))
            if shared:
                raise ValueError(
                    f"classes: the score table would have more than one column probability_{shared[0]}; rename a class, "
                    f"or set task.probabilities: array"
                )
        return self

    @property
    def num_outputs(self) -> int:
        """One for each class: its logit."""
        return len(self.known_classes)

    def label_sql(self, column_type: str) -> str:
        """See `Task.label_sql`."""
        return f"CAST({self.ids_sql(column_type, range(len(self.known_classes)))} AS INT)"

    def loss_of(
        self, outputs: "torch.Tensor", target: "torch.Tensor", function: LossFunction | None = None
    ) -> "torch.Tensor":
        """See `Task.loss_of`."""
        outputs, target = outputs.float(), target.long()
        if isinstance(self.loss, CustomLoss):
            return losses.custom_losses(self.loss, function, outputs, target)
        values = losses.multiclass_losses(self.loss, outputs, target)
        if not self.class_weights:
            return values
        weights = tuple(self.class_weight(value) for value in self.known_classes)
        return values * losses.numbers(weights, values)[target]

    def predictions(self, outputs: ArrayLike) -> dict[str, NDArray[Any]]:
        """Return prediction (n,), a class in its type, and the probabilities: float64 (n,) each, or (n, K)."""
        probability = softmax(outputs_of(self, outputs))
        columns: dict[str, NDArray[Any]] = {"prediction": self.classes_of(probability.argmax(axis=1))}
        if self.probabilities == "array":
            return columns | {"probabilities": probability}
        names = list(self.prediction_types)[1:]
        return columns | {name: np.ascontiguousarray(probability[:, place]) for place, name in enumerate(names)}

    def outputs_from(self, predictions: Mapping[str, ArrayLike]) -> NDArray[np.float64]:
        """See `Task.outputs_from`."""
        if self.probabilities == "array":
            columns = [np.stack([np.asarray(row, np.float64) for row in np.asarray(predictions["probabilities"])])]
        else:
            columns = [np.asarray(predictions[name], np.float64)[:, None] for name in list(self.prediction_types)[1:]]
        return np.asarray(np.log(np.concatenate(columns, axis=1).clip(np.finfo(np.float64).tiny)))

    def is_right(self, outputs: ArrayLike, target: ArrayLike) -> NDArray[np.bool_]:
        """See `Task.is_right`."""
        return np.asarray(softmax(outputs_of(self, outputs)).argmax(axis=1) == np.asarray(target))

    @property
    def prediction_types(self) -> dict[str, str]:
        """See `Task.prediction_types`."""
        types = {"prediction": self.spark_type}
        if self.probabilities == "array":
            return types | {"probabilities": "array<double>"}
        return types | {f"probability_{name}": "double" for name in self.column_names}

    def metrics(
        self, outputs: ArrayLike, target: ArrayLike, weight: ArrayLike | None = None, *, intervals: bool = True
    ) -> Metrics:
        """See `Task.metrics`."""
        rows = self.weighing_rows(outputs_of(self, outputs), target, weight)
        ids, probability = rows.target.astype(np.int64), softmax(rows.outputs)
        predicted, is_class = probability.argmax(axis=1), np.arange(self.num_outputs) == ids[:, None]
        right = predicted == ids
        values = {
            **prediction_metrics(ids, predicted, rows.weight, self.column_names),
            **class_rankings(probability, ids, rows.weight),
            **top_shares(probability, ids, rows.weight),
            "log_loss": mean(-log_softmax(rows.outputs)[is_class], rows.weight),
            "brier": mean(((probability - is_class) ** 2).sum(axis=1), rows.weight, high=2.0),
            **resampled_metrics(
                ids,
                predicted,
                probability.max(axis=1),
                right,
                rows.weight,
                num_classes=self.num_outputs,
                is_ordered=self.ordered,
                intervals=intervals,
            ),
        }
        if self.ordered:
            values["class_distance"] = mean(np.abs(ids - predicted).astype(np.float64), rows.weight)
        return Metrics(np.size(target), {name: values[name] for name in self.metric_names})

    @property
    def metric_names(self) -> tuple[str, ...]:
        """See `Task.metric_names`."""
        names = (*_NAMES, "class_distance", "quadratic_kappa") if self.ordered else _NAMES
        if not self.classes:
            return names
        top = (f"top_{k}_accuracy" for k in TOP_K if k < len(self.classes))
        return (*names, *top, *single_names(self.column_names))


_NAMES = (
    "accuracy",
    "roc_auc",
    "log_loss",
    "roc_auc_weighted",
    "average_precision",
    "balanced_accuracy",
    "macro_precision",
    "macro_recall",
    "macro_f1",
    "brier",
    "calibration_error",
)


def log_softmax(outputs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the logarithm of the probability of each class (n, K); finite for any finite outputs."""
    shifted = outputs - outputs.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def softmax(outputs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the probability of each class (n, K)."""
    raised = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))
