"""Two classes, one of which is the event whose probability is predicted. Needs no Spark; torch in the loss only."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, model_validator

from mlspark.tasks import losses
from mlspark.tasks.class_metrics import event_ranking, prediction_metrics, resampled_metrics, single_names
from mlspark.tasks.classes import ClassTask, is_among, listed
from mlspark.tasks.losses import CustomLoss, LossFunction
from mlspark.tasks.metrics import Metrics, mean
from mlspark.tasks.task import ClassValue, Link, outputs_of

if TYPE_CHECKING:
    import torch


class BinaryTask(ClassTask):
    """Predict the probability of one of two classes. The label is 1.0 for the event, 0.0 for the other class."""

    label_type: ClassVar[str] = "float"
    link: ClassVar[Link] = "logistic"
    label_fields: ClassVar[frozenset[str]] = ClassTask.label_fields | {"event"}
    decided_fields: ClassVar[tuple[str, ...]] = ("classes", "event")

    kind: Literal["binary"]
    event: ClassValue | None = None
    """Class whose probability is predicted; unset: the last class."""
    threshold: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5
    """Least probability at which a row is predicted to be an event."""

    @model_validator(mode="after")
    def _has_two_classes(self) -> Self:
        if self.classes and len(self.classes) != 2:
            raise ValueError(
                f"classes: binary has two, got {len(self.classes)} ({listed(self.classes)}); name other spellings in "
                f"aliases, or choose kind: multiclass"
            )
        if self.classes and self.event is not None and not is_among(self.event, self.classes):
            raise ValueError(f"event: {self.event!r} is none of the classes {listed(self.classes)}")
        return self

    @property
    def num_outputs(self) -> int:
        """One: the logit of the event."""
        return 1

    @property
    def event_class(self) -> ClassValue:
        """The class whose probability is predicted."""
        return self.known_classes[-1] if self.event is None else self.event

    @property
    def other_class(self) -> ClassValue:
        """The class that is not the event."""
        return next(value for value in self.known_classes if value != self.event_class)

    def _decided(self, classes: tuple[ClassValue, ...]) -> dict[str, Any]:
        return {"event": classes[-1]} if self.event is None else {}

    def label_sql(self, column_type: str) -> str:
        """See `Task.label_sql`."""
        ids = (int(value == self.event_class) for value in self.known_classes)
        return f"CAST({self.ids_sql(column_type, ids)} AS FLOAT)"

    def event_sql(self, column_type: str) -> str:
        """See `Task.event_sql`."""
        return self.in_sql(column_type, self.spellings()[self.known_classes.index(self.event_class)])

    def loss_of(
        self, outputs: "torch.Tensor", target: "torch.Tensor", function: LossFunction | None = None
    ) -> "torch.Tensor":
        """See `Task.loss_of`."""
        outputs = outputs.float()
        if isinstance(self.loss, CustomLoss):
            return losses.custom_losses(self.loss, function, outputs, target)
        values = losses.binary_losses(self.loss, outputs[:, 0], target)
        if not self.class_weights:
            return values
        event, other = self.class_weight(self.event_class), self.class_weight(self.other_class)
        return values if event == other == 1.0 else values * (other + (event - other) * target)

    def predictions(self, outputs: ArrayLike) -> dict[str, NDArray[Any]]:
        """Return probability (n,) float64 and prediction (n,), a class in its type: the event from the threshold on."""
        probability = probabilities(outputs_of(self, outputs)[:, 0])
        event = self.known_classes.index(self.event_class)
        ids = np.where(probability >= self.threshold, event, 1 - event)
        return {"probability": probability, "prediction": self.classes_of(ids)}

    def outputs_from(self, predictions: Mapping[str, ArrayLike]) -> NDArray[np.float64]:
        """See `Task.outputs_from`."""
        probability = np.asarray(predictions["probability"], np.float64).clip(_LEAST, 1 - np.finfo(np.float64).epsneg)
        return np.asarray((np.log(probability) - np.log1p(-probability))[:, None])

    def is_right(self, outputs: ArrayLike, target: ArrayLike) -> NDArray[np.bool_]:
        """See `Task.is_right`."""
        is_event = probabilities(outputs_of(self, outputs)[:, 0]) >= self.threshold
        return np.asarray(is_event == (np.asarray(target) > 0.5))

    @property
    def prediction_types(self) -> dict[str, str]:
        """See `Task.prediction_types`."""
        return {"probability": "double", "prediction": self.spark_type}

    def metrics(
        self, outputs: ArrayLike, target: ArrayLike, weight: ArrayLike | None = None, *, intervals: bool = True
    ) -> Metrics:
        """See `Task.metrics`."""
        rows = self.weighing_rows(outputs_of(self, outputs), target, weight)
        logits, is_event = rows.outputs[:, 0], rows.target > 0.5
        probability = probabilities(logits)
        is_first = self.known_classes[0] == self.event_class
        ids = (is_event != is_first).astype(np.int64)
        predicted = ((probability >= self.threshold) != is_first).astype(np.int64)
        values = {
            **prediction_metrics(ids, predicted, rows.weight, self.column_names),
            **event_ranking(logits, is_event, rows.weight),
            "log_loss": mean(np.logaddexp(0.0, np.where(is_event, -logits, logits)), rows.weight),
            "brier": mean((probability - is_event) ** 2, rows.weight, high=1.0),
            **resampled_metrics(
                ids, predicted, probability, is_event, rows.weight, num_classes=2, is_ordered=False, intervals=intervals
            ),
        }
        return Metrics(np.size(target), {name: values[name] for name in self.metric_names})

    @property
    def metric_names(self) -> tuple[str, ...]:
        """See `Task.metric_names`."""
        return (*_NAMES, *(single_names(self.column_names) if self.classes else ()))


_LEAST = np.finfo(np.float64).tiny
"""Least probability that is told from 0 when outputs are made of probabilities."""

_NAMES = (
    "accuracy",
    "roc_auc",
    "log_loss",
    "average_precision",
    "balanced_accuracy",
    "macro_precision",
    "macro_recall",
    "macro_f1",
    "brier",
    "calibration_error",
)


def probabilities(logits: ArrayLike) -> NDArray[np.float64]:
    """Return the probability of the event for each logit; the one definition, for evaluation and scoring."""
    scores = np.asarray(logits, np.float64)
    small = np.exp(-np.abs(scores))  # never overflows
    return np.where(scores >= 0, 1.0, small) / (1.0 + small)
