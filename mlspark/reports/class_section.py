"""The part of an evaluation's page about classes: what is taken for what, how well each is found. Runs anywhere."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlspark.reports import line_plot
from mlspark.reports.histogram import Bar, Histogram
from mlspark.reports.histogram_plot import HistogramPlot
from mlspark.reports.histogram_plot import lay_out as lay_out_bars
from mlspark.reports.line_plot import LinePlot, Series
from mlspark.reports.wording import count, number, percent, visible
from mlspark.tasks.binary import BinaryTask
from mlspark.tasks.classes import ClassTask
from mlspark.tasks.intervals import Floats
from mlspark.tasks.judgement import ClassFigures, Classified, curve
from mlspark.tasks.losses import key_text
from mlspark.tasks.metrics import CALIBRATION_BINS, Metric, Metrics

MOST_IN_MATRIX = 20
"""Classes up to which the whole confusion matrix is shown."""
MOST_LISTED = 100
"""Classes whose figures are listed: those with the lowest F1 where there are more."""
MOST_CONFUSED = 15
"""Pairs of classes that are listed as most often confused."""

_ALL = (0.0, 1.0)
_PLACES = 500
"""Places along a side of a curve's square that are told apart."""


@dataclass(frozen=True)
class Cell:
    """Rows of a true class that were predicted as another, or as the same."""

    text: str
    share: float
    """Share of the rows of the true class."""
    words: str
    is_right: bool


@dataclass(frozen=True)
class MatrixRow:
    name: str
    cells: tuple[Cell, ...]
    total: str


@dataclass(frozen=True)
class Confused:
    """A mistake that is often made."""

    true: str
    predicted: str
    rows: str
    share: str
    """Share of the rows of the true class."""


@dataclass(frozen=True)
class Share:
    """A figure between 0 and 1 with its interval; empty text: it is not defined."""

    text: str
    value: float = 0.0
    low: float = 0.0
    high: float = 1.0
    words: str = ""


@dataclass(frozen=True)
class ClassRow:
    """Figures of one class."""

    name: str
    actual: str
    predicted: str
    precision: Share
    recall: Share
    f1: Share


@dataclass(frozen=True)
class Drawing:
    """A plot of lines with its legend, and bars below it."""

    title: str
    plot: LinePlot
    legend: tuple[tuple[str, str], ...]
    """Style and name of each line."""
    note: str = ""
    bars: HistogramPlot | None = None


@dataclass(frozen=True)
class ClassSection:
    """All that is shown of classes."""

    names: tuple[str, ...]
    matrix: tuple[MatrixRow, ...]
    """Empty where there are too many classes."""
    confused: tuple[Confused, ...]
    classes: tuple[ClassRow, ...]
    note: str
    """Which classes are listed."""
    drawings: tuple[Drawing, ...]


def names_of(task: ClassTask) -> list[str]:
    """Return the classes as texts."""
    return [key_text(value) for value in task.known_classes]


def section(task: ClassTask, rows: Classified, metrics: Metrics) -> ClassSection:
    """Return what is shown of the rows of a split; at least one row.

    Args:
        task: resolved.
        rows: of the split.
        metrics: of the split.
    """
    names, figures = names_of(task), rows.by_class()
    listed = list(range(len(names)))
    note = (
        "precision: share of the rows predicted as the class that are of it; recall: share of its rows that are found."
    )
    if len(names) > MOST_LISTED:
        values = [figure.f1.value for figure in figures]
        listed = sorted(listed, key=lambda of: 2.0 if (value := values[of]) is None else value)[:MOST_LISTED]
        note += f" The {MOST_LISTED} of {count(len(names))} classes with the lowest F1."
    return ClassSection(
        tuple(names),
        matrix=tuple(_matrix(names, rows)) if len(names) <= MOST_IN_MATRIX else (),
        confused=tuple(_confused(names, rows, figures)) if len(names) > 2 else (),
        classes=tuple(_class_row(names[of], figures[of]) for of in listed),
        note=note,
        drawings=tuple(_drawings(task, rows, metrics)),
    )


def amount(weight: float) -> str:
    """Return a number of rows, or their weight."""
    return count(round(weight)) if abs(weight - round(weight)) < 1e-9 else number(weight)


def share(metric: Metric) -> Share:
    """Return a metric between 0 and 1 as the page shows it."""
    if metric.value is None:
        return Share("")
    low, high = metric.interval or _ALL
    return Share(f"{metric.value:.3f}", metric.value, low, high, f"{metric.value:.4f} [{low:.4f}, {high:.4f}]")


def _matrix(names: Sequence[str], rows: Classified) -> list[MatrixRow]:
    shown = []
    for true, weights in enumerate(rows.confusion):
        total = float(weights.sum())
        cells = []
        for predicted, weight in enumerate(weights):
            of_class = float(weight) / total if total else 0.0
            words = f"{visible(names[true])} predicted as {visible(names[predicted])}: {amount(float(weight))}"
            words += f", {percent(of_class)} of {visible(names[true])}" if total else ""
            cells.append(Cell(amount(float(weight)), of_class, words, true == predicted))
        shown.append(MatrixRow(names[true], tuple(cells), amount(total)))
    return shown


def _confused(names: Sequence[str], rows: Classified, figures: Sequence[ClassFigures]) -> list[Confused]:
    return [
        Confused(names[true], names[predicted], amount(weight), percent(weight / figures[true].actual))
        for true, predicted, weight in rows.confused(MOST_CONFUSED)
    ]


def _class_row(name: str, figures: ClassFigures) -> ClassRow:
    return ClassRow(
        name,
        amount(figures.actual),
        amount(figures.predicted),
        share(figures.precision),
        share(figures.recall),
        share(figures.f1),
    )


def _drawings(task: ClassTask, rows: Classified, metrics: Metrics) -> list[Drawing]:
    drawings = []
    points = curve(rows) if isinstance(task, BinaryTask) else None
    if points is not None and isinstance(task, BinaryTask):
        event = visible(key_text(task.event_class))
        at = int((points.threshold >= task.threshold).sum()) - 1  # the last threshold that is not below the task's
        rate = float(rows.weight[rows.is_event].sum() / rows.weight.sum())
        chosen = f"threshold {task.threshold:g}"
        drawings += [
            _curve(
                "ROC curve",
                f"ROC curve: share of {event} found by share of other rows taken for it",
                np.append(0.0, points.fall_out),
                np.append(0.0, points.recall),
                at + 1,
                chosen,
                [(0.0, 0.0), (1.0, 1.0)],
                x_name="share of other rows taken for it",
                note=f"Upwards: share of {event} that is found. {_area(metrics, 'roc_auc', 'Area')}",
            ),
            _curve(
                "Precision and recall",
                f"Precision by recall of {event}",
                points.recall,
                points.precision,
                max(at, 0),
                chosen,
                [(0.0, rate), (1.0, rate)],
                x_name="recall",
                note=f"Upwards: precision. {_area(metrics, 'average_precision', 'Average precision')}",
            ),
        ]
    return [*drawings, calibration(task, rows, metrics)]


def _area(metrics: Metrics, name: str, called: str) -> str:
    value, interval = metrics.values[name]
    if value is None:
        return ""
    return f"{called} {value:.4f}" + (f" [{interval[0]:.4f}, {interval[1]:.4f}]." if interval else ".")


def _curve(
    title: str,
    words: str,
    xs: Floats,
    ys: Floats,
    at: int,
    chosen: str,
    reference: Sequence[tuple[float, float]],
    *,
    x_name: str,
    note: str,
) -> Drawing:
    """Return the drawing of a curve over the unit square, with the point of the task's threshold."""
    x, y = float(xs[at]), float(ys[at])
    # Millions of rows have as many points, most of them at the same place of the drawing.
    places = (xs * _PLACES).round() * (_PLACES + 1) + (ys * _PLACES).round()
    kept = np.flatnonzero(np.diff(places, prepend=-1.0))
    kept = np.append(kept, len(xs) - 1)
    points = list(zip(xs[kept].tolist(), ys[kept].tolist(), strict=True))
    lines = [
        Series("by chance", "reference", reference, is_dotted=False),
        Series("model", "line-a", points, is_dotted=False),
        Series(chosen, "line-b", [(x, y)], words=[f"{chosen}: {x:.3f}, {y:.3f}"]),
    ]
    plot = line_plot.lay_out(words, lines, x_name=x_name, x_range=_ALL, y_range=_ALL)
    return Drawing(title, plot, tuple((line.style, line.name) for line in lines), note)


def calibration(task: ClassTask, rows: Classified, metrics: Metrics, *, heading: str = "Calibration") -> Drawing:
    """Return the drawing of how often rows are as promised, by predicted probability."""
    bins, total = rows.reliability(), float(rows.weight.sum())
    event = f"are {visible(key_text(task.event_class))}" if isinstance(task, BinaryTask) else "are predicted rightly"
    of = "its predicted probability" if isinstance(task, BinaryTask) else "probability of the predicted class"
    lines = [
        Series("as promised", "reference", [(0.0, 0.0), (1.0, 1.0)], is_dotted=False),
        Series(
            "rows",
            "line-a",
            [(each.mean, each.share) for each in bins],
            intervals=[each.interval for each in bins],
            words=[
                f"predicted {each.mean:.3f}, of {amount(each.weight)} rows {percent(each.share)} {event} "
                f"[{each.interval[0]:.3f}, {each.interval[1]:.3f}]"
                for each in bins
            ],
        ),
    ]
    title = f"Calibration: share of rows that {event} by {of}"
    plot = line_plot.lay_out(title, lines, x_name=of, x_range=_ALL, y_range=_ALL)
    weights = dict.fromkeys(range(CALIBRATION_BINS), 0.0) | {each.place: each.weight for each in bins}
    bars = tuple(
        Bar(
            f"{place / CALIBRATION_BINS:.1f} to {(place + 1) / CALIBRATION_BINS:.1f}",
            place / CALIBRATION_BINS,
            (place + 1) / CALIBRATION_BINS,
            (weight / total,),
        )
        for place, weight in weights.items()
    )
    ticks = tuple((f"{place / CALIBRATION_BINS:g}", float(place)) for place in (0, 2, 4, 6, 8, 10))
    note = f"Upwards: share of rows that {event}, with its interval. Below: share of the rows in each tenth. "
    note += _area(metrics, "calibration_error", "Expected calibration error")
    return Drawing(
        heading,
        plot,
        tuple((line.style, line.name) for line in lines),
        note,
        lay_out_bars(Histogram(bars, "", ticks), "probabilities", ["rows"]),
    )
