"""The evaluation of a model's version as one HTML file: how good it is, where it errs, on which rows. Runs anywhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mlspark.reports import class_section, line_plot, number_section, page, rows_section
from mlspark.reports.class_section import Drawing
from mlspark.reports.histogram_plot import HEIGHT, WIDTH
from mlspark.reports.line_plot import Series
from mlspark.reports.rows_section import Examined
from mlspark.reports.wording import count, number
from mlspark.tasks import judgement
from mlspark.tasks.class_metrics import OF_CLASSES
from mlspark.tasks.classes import ClassTask
from mlspark.tasks.metrics import Metric, Metrics, title
from mlspark.tasks.regression import RegressionTask
from mlspark.tasks.task import Task

Record = Mapping[str, Any]

_OF_ONE_CLASS = tuple(name for name in OF_CLASSES if not name.startswith("top_"))
_CURVES = (("accuracy", "roc_auc", "balanced_accuracy"), ("rmse", "mae"), ("r2",))
"""Validation metrics that share a plot."""
_STYLES = ("line-a", "line-b", "line-c")


class KeptRows(Protocol):
    """Predictions of a split; `evaluation.predictions.Predictions` is one."""

    @property
    def row_id(self) -> NDArray[np.int64]: ...
    @property
    def target(self) -> NDArray[Any]: ...
    @property
    def outputs(self) -> NDArray[np.float64]: ...
    @property
    def weight(self) -> NDArray[np.float64] | None: ...


@dataclass(frozen=True)
class Evaluation:
    """All that the page shows."""

    title: str
    about: tuple[tuple[str, str], ...]
    """Facts about the model: title and text."""
    task: Task
    metrics: Mapping[str, Metrics]
    """Split -> its metrics; empty: no row was evaluated."""
    split: str
    """Split that `rows` are of."""
    rows: KeptRows | None
    """Rows that the plots are of."""
    epochs: Sequence[Record] = ()
    """What each epoch ended with: epoch, train_loss, learning_rate, validation_METRIC."""
    best_epoch: int | None = None
    examined: Examined | None = None
    importance: Record | None = None
    """What raw columns are worth: metric, split, rows, repeats, and columns with their importance and interval."""


@dataclass(frozen=True)
class MetricRow:
    title: str
    cells: tuple[str, ...]
    """One for each split."""


def render(evaluation: Evaluation) -> str:
    """Return the page."""
    classes, numbers = None, None
    if evaluation.rows is not None:
        classes, numbers = _of_rows(evaluation, evaluation.rows)
    examined = None if evaluation.examined is None else rows_section.section(evaluation.examined)
    return page.render(
        "evaluation.html.jinja",
        title=evaluation.title,
        about=evaluation.about,
        splits=[f"{split} ({count(metrics.num_rows)} rows)" for split, metrics in evaluation.metrics.items()],
        metrics=_metric_rows(evaluation),
        shown_split=evaluation.split,
        num_rows="" if evaluation.rows is None else count(len(evaluation.rows.row_id)),
        epochs=_epoch_drawings(evaluation),
        classes=classes,
        numbers=numbers,
        worth=None if evaluation.importance is None else rows_section.worth(evaluation.importance),
        examined=examined,
        has_pictures=examined is not None and examined.has_pictures,
        plot_size=(f"{WIDTH:.0f}", f"{HEIGHT:.0f}"),
    )


def _of_rows(
    evaluation: Evaluation, rows: KeptRows
) -> tuple[class_section.ClassSection | None, number_section.NumberSection | None]:
    task, metrics = evaluation.task, evaluation.metrics[evaluation.split]
    if isinstance(task, ClassTask):
        of_classes = judgement.classified(task, rows.outputs, rows.target, rows.weight)
        return class_section.section(task, of_classes, metrics), None
    assert isinstance(task, RegressionTask), task
    return None, number_section.section(task.target, judgement.estimated(task, rows.outputs, rows.target, rows.weight))


def _metric_rows(evaluation: Evaluation) -> list[MetricRow]:
    """Return the metrics but those of single classes."""
    names = dict.fromkeys(name for metrics in evaluation.metrics.values() for name in metrics.values)
    return [
        MetricRow(
            title(name),
            tuple(_figure(metrics.values.get(name, Metric(None, None))) for metrics in evaluation.metrics.values()),
        )
        for name in names
        if not name.startswith(_OF_ONE_CLASS)
    ]


def _figure(metric: Metric) -> str:
    if metric.value is None:
        return "not defined"
    values = [metric.value, *(metric.interval or ())]
    texts = [f"{value:.4f}" if max(map(abs, values)) < 1000 else number(value) for value in values]
    return texts[0] + (f" [{texts[1]}, {texts[2]}]" if metric.interval else "")


def _epoch_drawings(evaluation: Evaluation) -> list[Drawing]:
    """Return the curves of a training by epoch; of what is not trained in epochs there are none."""
    epochs = evaluation.epochs
    if not epochs:
        return []
    losses = {"training": "train_loss"}
    if isinstance(evaluation.task, ClassTask):
        losses["validation log loss"] = "validation_log_loss"
    panels = [("Loss per row", losses)]
    panels += [
        ("Validation", {title(name): f"validation_{name}" for name in names if name in evaluation.task.metric_names})
        for names in _CURVES
    ]
    panels.append(("Learning rate", {"at the epoch's end": "learning_rate"}))
    drawings = []
    for heading, curves in panels:
        lines = [
            Series(name, style, [(float(epoch["epoch"]), _value(epoch.get(key))) for epoch in epochs])
            for (name, key), style in zip(curves.items(), _STYLES, strict=False)
        ]
        lines = [line for line in lines if any(np.isfinite(y) for _, y in line.points)]
        if lines:
            best = evaluation.best_epoch
            plot = line_plot.lay_out(
                f"{heading} by epoch: {', '.join(line.name for line in lines)}",
                lines,
                x_name="epoch",
                whole_x=True,
                marked=() if best is None else (float(best),),
            )
            legend = [(line.style, line.name) for line in lines]
            legend += [] if best is None else [("reference", f"best epoch ({best})")]
            drawings.append(Drawing(heading, plot, tuple(legend)))
    return drawings


def _value(value: float | None) -> float:
    return float("nan") if value is None else float(value)
