"""How good versions are on parts of the rows: each value of a column, or each band of a number's. Runs anywhere; no Spark.

For two classes also what fairness is judged by: the share of rows predicted as the event, recall and fall-out of
each slice, and how far these are apart at most (Hardt, Price, Srebro 2016, Equality of Opportunity in Supervised Learning).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlspark.errors import ConfigError
from mlspark.evaluation import paired_bootstrap
from mlspark.evaluation.comparison import Difference, compare, holm
from mlspark.evaluation.paired_rows import picked
from mlspark.evaluation.predictions import Predictions
from mlspark.evaluation.resampled_metrics import ByWeight
from mlspark.tasks.binary import BinaryTask
from mlspark.tasks.classes import ClassTask
from mlspark.tasks.intervals import Floats
from mlspark.tasks.judgement import classified
from mlspark.tasks.losses import key_text
from mlspark.tasks.metrics import Metric
from mlspark.tasks.task import Task

MOST_SLICES = 40
"""Values of a column that are slices of their own, the most frequent ones; the others are one slice."""
LEAST_ROWS = 30
"""Rows from which a slice counts for the worst one and for gaps: of fewer, chance decides."""
_MOST_NUMBERS = 12
"""Different numbers up to which each is a slice; more are put into bands."""
_BANDS = 4
MISSING, OTHERS = "missing", "other values"


@dataclass(frozen=True)
class Rates:
    """Of a slice's rows by one version; None where there are no such rows."""

    selected: float | None
    """Share predicted as the event."""
    recall: float | None
    """Share of the event's rows predicted as it."""
    fall_out: float | None
    """Share of the other rows predicted as the event."""


@dataclass(frozen=True)
class Slice:
    """Rows with one value, or in one band."""

    value: str
    num_rows: int
    share: float
    """Of all rows."""
    figures: tuple[Metric, ...]
    """The metric of each version, with its interval of 95 %."""
    differences: tuple[Difference, ...]
    """Of each version but the first, less the first."""
    adjusted: tuple[float | None, ...]
    """The differences' p values, adjusted by Holm over the column's slices."""
    rates: tuple[Rates, ...] = ()
    """Of each version; of two classes only."""

    @property
    def is_judged(self) -> bool:
        """Whether there are rows enough to count for the worst slice and for gaps."""
        return self.num_rows >= LEAST_ROWS


class Gap(NamedTuple):
    """The greatest difference between two slices' rates."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class ColumnSlices:
    """All slices of a column."""

    column: str
    metric: str
    slices: tuple[Slice, ...]
    worst: tuple[str, ...]
    """Slice where each version is worst; empty where none can be judged."""
    parity: tuple[Gap, ...] = ()
    """Demographic parity difference of each version: of the shares predicted as the event."""
    odds: tuple[Gap, ...] = ()
    """Equalised odds difference of each version: of recalls or of fall-outs, whichever are further apart."""


@dataclass(frozen=True)
class Judged:
    """A version's predictions; all versions' are of the same rows in the same order."""

    name: str
    task: Task
    rows: Predictions


def default_metric(task: Task) -> str:
    """Return the metric that slices are compared by unless another is asked for."""
    return "accuracy" if isinstance(task, ClassTask) else task.default_metric


def places_of(values: Sequence[Any]) -> tuple[NDArray[np.int64], list[str]]:
    """Return the number of each row's slice (n,), and the slices' names: numbers ascending, other values by name.

    Args:
        values: of a column, None where missing; NaN counts as missing.
    """
    known = [value for value in values if value is not None and value == value]
    is_number = bool(known) and all(isinstance(value, int | float) and not isinstance(value, bool) for value in known)
    if is_number and len(set(known)) > _MOST_NUMBERS:
        return _bands(np.array([np.nan if value is None else float(value) for value in values]))
    counts: dict[Any, int] = {}
    for value in known:
        counts[value] = counts.get(value, 0) + 1
    common = sorted(counts, key=lambda value: (-counts[value], str(value)))[:MOST_SLICES]
    common.sort(key=(lambda value: value) if is_number else str)
    names = [_text(value) for value in common]
    place_of = {value: place for place, value in enumerate(common)}
    places = [
        len(common) + 1 if value is None or value != value else place_of.get(value, len(common)) for value in values
    ]
    return _without_empty(np.array(places, np.int64), [*names, OTHERS, MISSING])


def _bands(values: Floats) -> tuple[NDArray[np.int64], list[str]]:
    known = values[np.isfinite(values)]
    edges = np.unique(np.quantile(known, np.arange(1, _BANDS) / _BANDS, method="lower"))
    is_lower = known < known.max()
    edges = edges[edges < known.max()] if (edges < known.max()).any() else known[is_lower].max(keepdims=True)
    texts = [_text(float(edge)) for edge in edges]
    names = [f"up to {texts[0]}", *(f"above {low} to {high}" for low, high in pairwise(texts))]
    places = np.where(np.isfinite(values), np.searchsorted(edges, values, side="left"), len(edges) + 1)
    return _without_empty(places.astype(np.int64), [*names, f"above {texts[-1]}", MISSING])


def _without_empty(places: NDArray[np.int64], names: list[str]) -> tuple[NDArray[np.int64], list[str]]:
    present, numbered = np.unique(places, return_inverse=True)
    return numbered.astype(np.int64), [names[place] for place in present]


def _text(value: Any) -> str:
    return (
        f"{value:g}" if isinstance(value, float) else key_text(value) if isinstance(value, bool | int) else str(value)
    )


def by_slice(
    column: str,
    values: Sequence[Any],
    versions: Sequence[Judged],
    *,
    metric: str,
    confidence: float,
    resamples: int,
    seed: int,
) -> ColumnSlices:
    """Return how good versions are on the slices of a column.

    Args:
        column: its name.
        values: of the versions' rows, in their order.
        versions: the first one is what the others are held against.
        metric: by which slices are compared.
        confidence: of the differences' and gaps' intervals.
        resamples: of the bootstrap.
        seed: of the resamples.

    Raises:
        ConfigError: the task has no such metric.
    """
    first = versions[0]
    first.task.metric(metric, setting="--metric")
    places, names = places_of(values)
    found = []
    for place, name in enumerate(names):
        parts = [Judged(each.name, each.task, picked(each.rows, np.flatnonzero(places == place))) for each in versions]
        if parts[0].rows.weight is not None and not (parts[0].rows.weight > 0).any():
            continue
        compared = [
            compare(
                parts[0].task, parts[0].rows, part.rows, challenger_task=part.task, names=(first.name, part.name),
                confidence=confidence, resamples=resamples, seed=seed,
            )
            for part in parts[1:]
        ]  # fmt: skip
        figures = tuple(part.rows.metrics(part.task, intervals=True).values[metric] for part in parts)
        differences = tuple(each.differences[metric] for each in compared)
        rates = tuple(_rates(part) for part in parts) if isinstance(first.task, BinaryTask) else ()
        count = len(parts[0].rows)
        found.append(Slice(name, count, count / len(places), figures, differences, (), rates))
    slices = _adjusted(found)
    gaps = (
        [_gaps(each, places, slices, names, confidence, resamples, seed) for each in versions]
        if slices and slices[0].rates
        else []
    )
    return ColumnSlices(
        column, metric, slices,
        worst=tuple(_worst(slices, place, first.task.lower_is_better(metric)) for place in range(len(versions))),
        parity=tuple(parity for parity, _ in gaps),
        odds=tuple(odds for _, odds in gaps),
    )  # fmt: skip


def _adjusted(slices: Sequence[Slice]) -> tuple[Slice, ...]:
    """Return the slices with their p values adjusted over all of them, for each challenger."""
    if not slices:
        raise ConfigError("--slice: no rows that count")
    challengers = range(len(slices[0].differences))
    adjusted = [holm([each.differences[number].p_value for each in slices]) for number in challengers]
    return tuple(
        Slice(
            each.value, each.num_rows, each.share, each.figures, each.differences,
            tuple(of_challenger[place] for of_challenger in adjusted), each.rates,
        )
        for place, each in enumerate(slices)
    )  # fmt: skip


def _worst(slices: Sequence[Slice], version: int, lower_is_better: bool) -> str:
    values = [(each.figures[version].value, each.value) for each in slices if each.is_judged]
    known = [(value if lower_is_better else -value, name) for value, name in values if value is not None]
    return max(known)[1] if known else ""


def _rates(part: Judged) -> Rates:
    weight, is_event, is_selected = _selected(part)

    def share(is_in: NDArray[np.bool_]) -> float | None:
        total = float(weight[is_in].sum())
        return float(weight[is_in & is_selected].sum()) / total if total > 0 else None

    return Rates(share(weight > 0), share(is_event), share(~is_event))


def _selected(part: Judged) -> tuple[Floats, NDArray[np.bool_], NDArray[np.bool_]]:
    """Return each row's weight, whether it is of the event, and whether it is predicted as it."""
    task, rows = part.task, part.rows
    assert isinstance(task, BinaryTask), task
    found = classified(task, rows.outputs, rows.target, None)
    weight = np.ones(len(rows)) if rows.weight is None else rows.weight
    return weight, found.is_event, found.event_probability >= task.threshold


def _gaps(
    version: Judged,
    places: NDArray[np.int64],
    slices: Sequence[Slice],
    names: Sequence[str],
    confidence: float,
    resamples: int,
    seed: int,
) -> tuple[Gap, Gap]:
    """Return demographic parity and equalised odds differences of the slices with rows enough."""
    weight, is_event, is_selected = _selected(version)
    judged = [names.index(each.value) for each in slices if each.is_judged]
    if len(judged) < 2:
        return Gap(None, None, None), Gap(None, None, None)
    counts = weight > 0
    statistic = _rate_gaps(places[counts], is_event[counts], is_selected[counts], judged)
    weights = weight[counts]
    value = {name: float(of[0]) for name, of in statistic(weights[None, :]).items()}
    [resampled] = paired_bootstrap.resampled_values((statistic,), weights, resamples=resamples, seed=seed)
    return (
        _gap(value["parity"], resampled["parity"], confidence),
        _gap(value["odds"], resampled["odds"], confidence),
    )


def _gap(value: float, resampled: Floats, confidence: float) -> Gap:
    if not np.isfinite(value):
        return Gap(None, None, None)
    # The greatest of several differences grows by resampling; moved back by what it grew.
    limits = paired_bootstrap.interval(resampled - (np.nanmean(resampled) - value), confidence=confidence)
    low, high = limits or (None, None)
    return Gap(value, None if low is None else max(0.0, low), None if high is None else min(1.0, high))


def _rate_gaps(
    places: NDArray[np.int64], is_event: NDArray[np.bool_], is_selected: NDArray[np.bool_], judged: Sequence[int]
) -> ByWeight:
    is_in = np.equal.outer(places, np.array(judged))  # (n, S)
    sides = [is_in, is_in & is_event[:, None], is_in & ~is_event[:, None]]
    columns = np.hstack([part.astype(np.float64) for side in sides for part in (side, side & is_selected[:, None])])

    def gaps(weight: Floats) -> dict[str, Floats]:
        all_, selected, events, found, others, taken = np.split(weight @ columns, 6, axis=1)
        parity, true, false = (
            _spread(part, whole) for part, whole in ((selected, all_), (found, events), (taken, others))
        )
        return {"parity": parity, "odds": np.fmax(true, false)}

    return gaps


def _spread(part: Floats, whole: Floats) -> Floats:
    """Return the greatest less the least share along each row; NaN where fewer than two have any rows."""
    shares = np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
    enough = (whole > 0).sum(axis=1) > 1
    high, low = np.where(whole > 0, shares, -np.inf).max(axis=1), np.where(whole > 0, shares, np.inf).min(axis=1)
    return np.where(enough, high - low, np.nan)
