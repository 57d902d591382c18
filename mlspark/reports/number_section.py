"""The part of an evaluation's page about predicted numbers: against the true ones, and how far off. Runs anywhere."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mlspark.reports import line_plot
from mlspark.reports.histogram import Bar, Histogram
from mlspark.reports.histogram_plot import HistogramPlot
from mlspark.reports.histogram_plot import lay_out as lay_out_bars
from mlspark.reports.line_plot import Cell, LinePlot, Series
from mlspark.reports.wording import count, number
from mlspark.tasks.intervals import Floats
from mlspark.tasks.judgement import Estimated
from mlspark.tasks.metrics import Metric

_CELLS, _BARS = 32, 24
_TAILS = (0.5, 99.5)
"""Percentiles between which values are drawn."""


@dataclass(frozen=True)
class TenthRow:
    """Rows of similar predictions, as texts."""

    rows: str
    predicted: str
    target: str
    bias: str
    absolute: str


@dataclass(frozen=True)
class NumberSection:
    """All that is shown of predicted numbers."""

    against: LinePlot
    against_note: str
    errors: HistogramPlot
    errors_note: str
    tenths: tuple[TenthRow, ...]


def section(name: str, rows: Estimated) -> NumberSection:
    """Return what is shown of the rows of a split; at least one row.

    Args:
        name: of the target.
        rows: of the split.
    """
    low, high = _limits(np.concatenate([rows.target, rows.predicted]))
    is_in = (np.minimum(rows.target, rows.predicted) >= low) & (np.maximum(rows.target, rows.predicted) <= high)
    left_out = int((~is_in).sum())
    bars, outside = _bars(rows.error)
    return NumberSection(
        against=_against(name, rows.target[is_in], rows.predicted[is_in], low, high),
        against_note="Upwards: prediction. The stronger the colour, the more rows; on the line, predictions are right."
        + (f" {count(left_out)} rows beyond the edges are not drawn." if left_out else ""),
        errors=lay_out_bars(bars, f"errors of {name}", ["rows"]),
        errors_note="Prediction less true value: above 0 where the prediction is too high."
        + (f" {count(outside)} rows beyond the edges are not drawn." if outside else ""),
        tenths=tuple(
            TenthRow(
                count(tenth.num_rows), number(tenth.predicted), number(tenth.target), _text(tenth.bias),
                _text(tenth.absolute),
            )
            for tenth in rows.by_tenth()
        ),
    )  # fmt: skip


def _limits(values: Floats) -> tuple[float, float]:
    low, high = (float(value) for value in np.percentile(values, _TAILS))
    margin = (high - low) * 0.02 or abs(high) * 0.5 or 1.0
    return low - margin, high + margin


def _against(name: str, target: Floats, predicted: Floats, low: float, high: float) -> LinePlot:
    counts, edges, _ = np.histogram2d(target, predicted, bins=_CELLS, range=[(low, high), (low, high)])
    line = Series("right", "reference", [(low, low), (high, high)], is_dotted=False)
    plot = line_plot.lay_out(
        f"Predicted {name} against the true one",
        [line],
        x_name=f"true {name}",
        x_range=(low, high),
        y_range=(low, high),
    )
    width, height = (plot.right - plot.left) / _CELLS, (plot.base - plot.top) / _CELLS
    most = max(float(counts.max()), 1.0)
    cells = [
        Cell(
            plot.left + column * width,
            plot.base - (row + 1) * height,
            width,
            height,
            0.12 + 0.88 * float(np.sqrt(counts[column, row] / most)),
            f"true {number(edges[column])} to {number(edges[column + 1])}, predicted {number(edges[row])} to "
            f"{number(edges[row + 1])}: {count(int(counts[column, row]))} rows",
        )
        for column, row in zip(*(places.tolist() for places in counts.nonzero()), strict=True)
    ]
    return replace(plot, cells=tuple(cells))


def _bars(errors: Floats) -> tuple[Histogram, int]:
    """Return bars around 0, and how many rows are beyond them."""
    low, high = _limits(errors)
    counts, edges = np.histogram(errors, _BARS, (low, high))
    shares = counts / len(errors)
    bars = tuple(
        Bar(f"{number(start)} to {number(end)}", start, end, (float(of_bar),))
        for start, end, of_bar in zip(edges[:-1].tolist(), edges[1:].tolist(), shares, strict=True)
    )
    return Histogram(bars, "", tuple(_ticks(low, high))), len(errors) - int(counts.sum())


def _ticks(low: float, high: float) -> Sequence[tuple[str, float]]:
    marks = line_plot.round_values(low, high, 5)
    return [(number(mark), (mark - low) / (high - low) * _BARS) for mark in marks]


def _text(metric: Metric) -> str:
    if metric.value is None:
        return ""
    return number(metric.value) + (
        "" if metric.interval is None else f" [{number(metric.interval[0])}, {number(metric.interval[1])}]"
    )
