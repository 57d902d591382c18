"""Records of scored rows, scores and labels beside those of training, as comparisons with limits. Runs anywhere."""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from mlspark.features import drift
from mlspark.features.distribution import kind
from mlspark.monitoring import chance
from mlspark.monitoring.checks import Comparison, Subject
from mlspark.monitoring.settings import MonitoringSettings
from mlspark.tasks.intervals import wilson_interval
from mlspark.tasks.metrics import Metrics
from mlspark.tasks.task import Task

Record = Mapping[str, Any]
_NAMED = 5
"""Unseen values that a comparison names."""


def of_columns(
    old: Record, new: Record, settings: MonitoringSettings, *, subject: Subject, names: Iterable[str] | None = None
) -> list[Comparison]:
    """Return what is compared of columns that both records have.

    Args:
        old: "rows" and "columns" of the training side, as `features.profile` makes them.
        new: of the scored rows.
        settings: limits.
        subject: what the columns are.
        names: columns; None: all.
    """
    comparisons = []
    for name in new["columns"] if names is None else names:
        before, after = old["columns"][name], new["columns"][name]
        bins = drift.bins(before, after)
        index = drift.psi(*([bin_[side] for bin_ in bins] for side in (0, 1)))
        psi = partial(_psi_chance, bins)
        rows = new["rows"]
        comparisons.append(Comparison(subject, name, "psi", index, settings.max_psi, rows, psi))
        if subject == "input":
            comparisons.append(_missing(name, before, old["rows"], after, rows, settings))
            if kind(after["type"]) == "text":
                comparisons += _unseen(name, before, old["rows"], after, rows, settings)
    return comparisons


def _psi_chance(bins: list[tuple[float, float]], level: float) -> float:
    return chance.of_psi(bins, level=level)


def _missing(
    name: str, before: Record, num_old: int, after: Record, num_new: int, settings: MonitoringSettings
) -> Comparison:
    old, new = (before["nulls"], num_old), (after["nulls"], num_new)
    change = new[0] / new[1] - old[0] / old[1]
    return Comparison(
        "input", name, "missing_change", change, settings.max_missing_change, num_new,
        lambda level: chance.of_share(old, new), **_shares(old, new),
    )  # fmt: skip


def _unseen(
    name: str, before: Record, num_old: int, after: Record, num_new: int, settings: MonitoringSettings
) -> list[Comparison]:
    """Return the comparison of unseen values; none where the training record does not name all of its values."""
    if before["distinct"] != len(before["values"]):
        return []
    known = {value for value, _, _ in before["values"]}
    named = [(value, rows) for value, rows, _ in after["values"] if value not in known]
    # Of over 50 different values the rest may be unseen, too: what is named is the least there is.
    unseen = sum(rows for _, rows in named)
    single = sum(rows == 1 for _, rows, _ in before["values"])
    shown = ", ".join(f"{value!r} ({rows:,})" for value, rows in named[:_NAMED])
    more = f" and {len(named) - _NAMED:,} more" if len(named) > _NAMED else ""
    shares = _shares((0, num_old), (unseen, num_new))
    return [
        Comparison(
            "input", name, "unseen_share", unseen / num_new, settings.max_unseen_share, num_new,
            lambda level: chance.of_unseen(unseen, num_new, single=single, num_old=num_old),
            **shares, detail=shown + more,
        )
    ]  # fmt: skip


def of_quarantine(
    old: tuple[int, int], new: tuple[int, int], reasons: Mapping[str, int], settings: MonitoringSettings
) -> Comparison:
    """Return the comparison of the shares of quarantined rows, each (rows quarantined, rows read)."""
    shown = ", ".join(f"{reason} {rows:,}" for reason, rows in list(reasons.items())[:_NAMED])
    return Comparison(
        "quarantine", "rows", "quarantined_increase", new[0] / new[1] - old[0] / old[1],
        settings.max_quarantined_increase, new[1],
        lambda level: chance.of_share(old, new, only_increase=True), **_shares(old, new), detail=shown,
    )  # fmt: skip


def of_metric(task: Task, name: str, old: Metrics, new: Metrics, settings: MonitoringSettings) -> list[Comparison]:
    """Return the comparison of a metric with the kept one; none where one of them or its interval cannot be computed."""
    before, after = old.values[name], new.values[name]
    if before.value is None or after.value is None or before.interval is None or after.interval is None:
        return []
    lower = task.lower_is_better(name)
    worse = after.value - before.value if lower else before.value - after.value
    size = abs(before.value)
    loss = worse / size if size > 0 else float(worse > 0)
    p_value = chance.of_loss(before.value, before.interval, after.value, after.interval, lower_is_better=lower)
    return [
        Comparison(
            "performance", name, "metric_loss", loss, settings.max_metric_loss, new.num_rows, lambda level: p_value,
            old=before.value, new=after.value, old_interval=before.interval, new_interval=after.interval,
        )
    ]  # fmt: skip


def _shares(old: tuple[int, int], new: tuple[int, int]) -> dict[str, Any]:
    """Return old and new share with their 95 % intervals, each of (rows counted, rows of which)."""
    shares = {"old": old[0] / old[1], "new": new[0] / new[1]}
    intervals = {
        "old_interval": wilson_interval(shares["old"], old[1]),
        "new_interval": wilson_interval(shares["new"], new[1]),
    }
    return shares | intervals
