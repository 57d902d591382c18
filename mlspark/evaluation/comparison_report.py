"""A comparison in words: the tables that terminal and page show. Runs anywhere; needs no Spark."""

from collections.abc import Iterator, Mapping
from typing import Any

from mlspark.evaluation.compared import Compared
from mlspark.evaluation.comparison import Comparison, Difference
from mlspark.evaluation.slices import LEAST_ROWS, ColumnSlices, Gap, Slice
from mlspark.reports import class_section, comparison_page
from mlspark.reports.comparison_page import BAD, GOOD, PLAIN, Cell, ReportTable
from mlspark.reports.wording import count, number
from mlspark.tasks.class_metrics import OF_CLASSES
from mlspark.tasks.classes import ClassTask
from mlspark.tasks.metrics import Metric, title

_OF_ONE_CLASS = tuple(name for name in OF_CLASSES if not name.startswith("top_"))
_UNKNOWN = "-"
_PAIRED = {"rmse": "squared error", "mae": "absolute error"}
"""Losses whose signed ranks are shown."""


def page(compared: Compared) -> str:
    """Return the page."""
    first = compared.versions[0]
    about = [
        ("Predicts", f"{first.task.target} ({first.task.kind})"),
        ("Rows", f"{count(len(first.rows))}: {compared.origin}"),
        *((each.label, each.model) for each in compared.versions),
        *(("Note", remark) for remark in compared.remarks),
    ]
    drawings = [
        class_section.calibration(each.task, rows, each.metrics, heading=each.label)
        for each, rows in zip(compared.versions, compared.classified(), strict=False)
        if isinstance(each.task, ClassTask)
    ]
    others = ", ".join(each.label for each in compared.versions[1:])
    return comparison_page.render(f"{others} beside {first.label}", about, list(tables(compared)), drawings)


def tables(compared: Compared) -> Iterator[ReportTable]:
    """Yield differences with each version, then slices, then what versions take."""
    for place, comparison in enumerate(compared.comparisons):
        yield _differences(compared, place, comparison)
    for column in compared.slices:
        yield from _slices(compared, column)
    yield _demands(compared)


def _differences(compared: Compared, place: int, comparison: Comparison) -> ReportTable:
    first, other = compared.versions[0], compared.versions[place + 1]
    adjusts = len(compared.comparisons) > 1
    rows = []
    for name, difference in comparison.differences.items():
        if name.startswith(_OF_ONE_CLASS):
            continue
        p_value = compared.adjusted[name][place] if adjusts else difference.p_value
        rows.append(
            (
                Cell(title(name)),
                Cell(_figure(Metric(difference.a, first.metrics.values[name].interval))),
                Cell(_figure(Metric(difference.b, other.metrics.values[name].interval))),
                _difference(difference),
                Cell(_p_value(p_value)),
                Cell(difference.test),
            )
        )
    notes = [
        f"In brackets intervals: of values 95 %, of differences {comparison.confidence * 100:g} % by "
        f"{comparison.resamples:,} paired resamples (seed {comparison.seed}). Marked: the interval leaves out 0."
    ]
    if adjusts:
        notes.append(
            f"p: adjusted by Holm over {len(compared.comparisons)} comparisons, of each metric alone; decide by the metric "
            "chosen beforehand."
        )
    if comparison.mcnemar is not None:
        notes.append(
            f"Right where the other is wrong: {first.label} on {count(comparison.mcnemar.only_first)} rows, "
            f"{other.label} on {count(comparison.mcnemar.only_second)}."
        )
    if comparison.delong is not None:
        low, high = comparison.delong.interval
        notes.append(
            f"DeLong: ROC AUC {comparison.delong.difference:+.4f} [{low:+.4f}, {high:+.4f}], z {comparison.delong.z:.3f}."
        )
    notes += [
        f"Wilcoxon's signed ranks of each row's {_PAIRED[name]}: p {_p_value(of_losses.signed_ranks_p_value)}."
        for name, of_losses in comparison.losses.items()
        if name in _PAIRED
    ]
    columns = ("metric", first.label, other.label, "difference", "adjusted p" if adjusts else "p", "test")
    return ReportTable(f"{other.label} less {first.label}", columns, tuple(rows), tuple(notes))


def _slices(compared: Compared, column: ColumnSlices) -> Iterator[ReportTable]:
    labels = [each.label for each in compared.versions]
    name = title(column.metric)
    heads = [column.column, "rows", *(f"{name} {label}" for label in labels)]
    heads += [head for label in labels[1:] for head in (f"{label} less {labels[0]}", "adjusted p")]
    rows = [
        (
            Cell(f"{each.value}{'' if each.is_judged else ' *'}"),
            Cell(f"{count(each.num_rows)} ({each.share:.1%})"),
            *(Cell(_figure(figure)) for figure in each.figures),
            *(
                cell
                for difference, adjusted in zip(each.differences, each.adjusted, strict=True)
                for cell in (_difference(difference), Cell(_p_value(adjusted)))
            ),
        )
        for each in column.slices
    ]
    worst = "; ".join(f"{label}: {value}" for label, value in zip(labels, column.worst, strict=True) if value)
    notes = [f"Worst slice by {name}: {worst or 'none'}."]
    if not all(each.is_judged for each in column.slices):
        notes.append(f"* fewer than {LEAST_ROWS} rows: shown, but neither worst slice nor part of a gap.")
    notes.append("p: adjusted by Holm over the slices.")
    yield ReportTable(f"By {column.column}: {name}", tuple(heads), tuple(rows), tuple(notes))
    if column.parity:
        yield _fairness(labels, column)


def _fairness(labels: list[str], column: ColumnSlices) -> ReportTable:
    heads = [column.column] + [head for label in labels for head in (f"{label} selected", "recall", "fall-out")]
    rows = [_rates(each) for each in column.slices]
    for name, gaps in (("demographic parity", column.parity), ("equalised odds", column.odds)):
        cells = [cell for gap in gaps for cell in (Cell(_gap(gap)), Cell(""), Cell(""))]
        rows.append((Cell(f"{name} difference"), *cells))
    return ReportTable(
        f"By {column.column}: who is predicted as the event",
        tuple(heads),
        tuple(rows),
        (
            "selected: share of rows predicted as the event; recall: share of the event's rows predicted as it; "
            "fall-out: share of the other rows predicted as it. Differences: between the two slices that are furthest "
            "apart, with intervals; equalised odds: of recalls or of fall-outs, whichever are further apart.",
        ),
    )


def _rates(each: Slice) -> tuple[Cell, ...]:
    shares = [value for of in each.rates for value in (of.selected, of.recall, of.fall_out)]
    return (Cell(each.value), *(Cell(_UNKNOWN if value is None else f"{value:.3f}") for value in shares))


def _demands(compared: Compared) -> ReportTable:
    rows, measured = [], False
    has_costs = any(each.cost for each in compared.versions)
    for each in compared.versions:
        times = [_UNKNOWN] * 3
        if each.latency is not None:
            measured = True
            raw, one = each.latency.raw_row_milliseconds, each.latency.row_milliseconds
            times = [_UNKNOWN if raw is None else f"{raw:.2f} ms", f"{one:.2f} ms"]
            times.append(f"{each.latency.batch_milliseconds:.2f} ms")
        seconds = _UNKNOWN if each.train_seconds is None else f"{each.train_seconds:,.1f} s"
        texts = [each.label, f"{each.size_bytes / 1e6:,.2f} MB", seconds, *times]
        rows.append(tuple(map(Cell, [*texts, *([_cost(each.cost)] if has_costs else [])])))
    batch = max((each.latency.batch_rows for each in compared.versions if each.latency is not None), default=0)
    note = "Size: all files of the version. Training: seconds in training alone."
    note += " Cost: of the whole job." if has_costs else ""
    if measured:
        note += " Latency: medians here, of a raw row that is checked, encoded and predicted, and from encoded rows on."
    return ReportTable(
        "What they take",
        (
            "version",
            "size",
            "training",
            "one raw row",
            "encoded row",
            f"{batch or 'many'} encoded rows",
            *(["cost"] if has_costs else []),
        ),
        tuple(rows),
        (note,),
    )


def _cost(cost: Mapping[str, Any]) -> str:
    """Return what a training cost, and on which machines."""
    if not cost:
        return _UNKNOWN
    return f"{cost['amount']:.4f} {cost['currency']} ({cost['seconds']:,.0f} s of {cost['count']} x {cost['tier']})"


def _difference(difference: Difference) -> Cell:
    if difference.difference is None:
        return Cell(_UNKNOWN)
    values = [difference.difference]
    if difference.low is not None and difference.high is not None:
        values += [difference.low, difference.high]
    texts = [f"{value:+.4f}" if max(map(abs, values)) < 1000 else f"{value:+,.1f}" for value in values]
    kind = {"b": GOOD, "a": BAD}.get(difference.better, PLAIN)
    return Cell(texts[0] + (f" [{texts[1]}, {texts[2]}]" if len(texts) > 1 else ""), kind)


def _figure(metric: Metric) -> str:
    if metric.value is None:
        return _UNKNOWN
    values = [metric.value, *(metric.interval or ())]
    texts = [f"{value:.4f}" if max(map(abs, values)) < 1000 else number(value) for value in values]
    return texts[0] + (f" [{texts[1]}, {texts[2]}]" if metric.interval else "")


def _gap(gap: Gap) -> str:
    if gap.value is None:
        return _UNKNOWN
    return f"{gap.value:.3f}" + ("" if gap.low is None or gap.high is None else f" [{gap.low:.3f}, {gap.high:.3f}]")


def _p_value(value: float | None) -> str:
    if value is None:
        return _UNKNOWN
    return f"{value:.4f}" if value >= 0.0001 else f"{value:.1e}"
