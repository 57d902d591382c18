"""The gate of promotion: what a new version must show before it takes the place of the one in use. Runs anywhere."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from mlspark.registry import contract_changes
from mlspark.registry.package import Package
from mlspark.registry.settings import alias_name
from mlspark.section import Section
from mlspark.tasks.metrics import title
from mlspark.tasks.task import Task

if TYPE_CHECKING:
    from mlspark.evaluation.comparison import Comparison  # with scipy's statistics, which the settings do not need
    from mlspark.evaluation.slices import ColumnSlices

_NAMED_DIFFERENCES = 10
"""Differences of contracts that a reason names."""


class MetricLimit(Section):
    """Bounds of a metric, whatever the version in use has."""

    min: float | None = None
    """Least value."""
    max: float | None = None
    """Greatest value."""

    @model_validator(mode="after")
    def _is_a_range(self) -> "MetricLimit":
        if self.min is None and self.max is None:
            raise ValueError("neither min nor max; give one")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min={self.min} is above max={self.max}")
        return self


class SliceLimits(Section):
    """Parts of the rows that must not lose much."""

    columns: Annotated[tuple[str, ...], Field(min_length=1)]
    """Columns of the contract or of joins: each value is a slice, numbers are put into bands."""
    metric: str = ""
    """Metric by which slices are compared; empty: accuracy, for numbers the task's own."""
    max_loss: Annotated[float, Field(ge=0.0)]
    """How much worse the metric of a slice may be, in its own unit; slices of fewer than 30 rows are not judged."""


class PromotionSettings(Section):
    mode: Literal["disabled", "dry_run", "enabled"] = "enabled"
    """What `mlspark promote` does: nothing; decide and record, but move no alias; or all of it."""
    champion: Annotated[str, Field(min_length=1), AfterValidator(alias_name)] = "champion"
    """Alias of the version in use; only `mlspark promote` moves it."""
    split: Literal["test", "validation"] = "test"
    """Rows that both versions are compared on: those in this split of both, by the predictions that their runs kept."""
    metric: str = ""
    """Metric by which a version must be better; empty: the task's own (ROC AUC, accuracy, RMSE, ...)."""
    min_gain: Annotated[float, Field(ge=0.0)] | None = 0.0
    """What the gain in `metric` must exceed, in its own unit and by the lower end of its interval; 0: any gain that is no
    chance. Null: nothing must be better, `max_loss` decides."""
    max_loss: Mapping[str, Annotated[float, Field(ge=0.0)]] = {}
    """Metric -> how much worse it may be, in its own unit: the lower end of the interval of the gain must not be below."""
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.95
    """Confidence of the intervals of gains, two-sided."""
    limits: Mapping[str, MetricLimit] = {}
    """Metric -> bounds of its value on `split`, for the first version, too."""
    slices: SliceLimits | None = None
    """Parts of the rows that must not lose much; their columns are read from the sources, by Spark. Null: none is judged."""
    min_rows: Annotated[int, Field(ge=2)] = 100
    """Least number of rows that both versions were evaluated on."""
    max_latency_ms: Annotated[float, Field(gt=0.0)] | None = None
    """Most milliseconds for one raw row, checked, encoded and predicted, on the machine that decides; the median of 30."""
    max_cost: Annotated[float, Field(gt=0.0)] | None = None
    """Most that its training may have cost, in the currency of `cost.machines`."""
    contract: Literal["compatible", "any"] = "compatible"
    """Whether a version must take every row that the one in use takes, and predict the same columns of the same target."""

    @model_validator(mode="after")
    def _compares_something(self) -> "PromotionSettings":
        if self.min_gain is None and not self.max_loss:
            raise ValueError("min_gain is null and max_loss empty, so that any version would pass; give one of them")
        return self

    @property
    def metric_settings(self) -> list[tuple[str, str]]:
        """(metric, setting that names it) of all that are named."""
        named = [
            (name, f"promotion.{setting}") for setting in ("max_loss", "limits") for name in getattr(self, setting)
        ]
        if self.slices is not None and self.slices.metric:
            named.append((self.slices.metric, "promotion.slices.metric"))
        return [*([(self.metric, "promotion.metric")] if self.metric else []), *named]


@dataclass(frozen=True)
class Check:
    """One condition of the gate, and how it came out."""

    rule: str
    """Setting that asks for it, "min_gain", or what else stood against it: "champion"."""
    is_met: bool
    reason: str
    """A sentence without its full stop, with the figures that decided."""
    figures: Mapping[str, Any] = field(default_factory=dict)
    """JSON values."""


def reasons(checks: Sequence[Check]) -> tuple[str, ...]:
    """Return why the checks let a version pass, or those that do not."""
    return tuple(check.reason for check in checks if check.is_met == is_passed(checks))


def is_passed(checks: Sequence[Check]) -> bool:
    return all(check.is_met for check in checks)


def of_contracts(champion: Package, challenger: Package) -> Check:
    """Return whether whoever uses the champion can go on with the challenger."""
    differences = contract_changes.breaking(champion, challenger)
    if not differences:
        return Check("contract", True, "takes every row that the champion takes, and predicts the same columns")
    named = "; ".join(differences[:_NAMED_DIFFERENCES])
    others = f" and {len(differences) - _NAMED_DIFFERENCES} more" if len(differences) > _NAMED_DIFFERENCES else ""
    return Check("contract", False, f"the contract is not compatible: {named}{others}", {"differences": differences})


def of_limits(settings: PromotionSettings, metrics: Mapping[str, Any]) -> Iterator[Check]:
    """Yield for each metric of `limits` whether it is within them.

    Args:
        settings: the gate.
        metrics: of the challenger on the split, as its provenance has them.
    """
    for name, limit in settings.limits.items():
        value = metrics.get(name)
        bounds = " and ".join(
            words
            for words in (
                "" if limit.min is None else f"at least {limit.min:g}",
                "" if limit.max is None else f"at most {limit.max:g}",
            )
            if words
        )
        is_met = value is not None and (-math.inf if limit.min is None else limit.min) <= value <= (
            math.inf if limit.max is None else limit.max
        )
        shown = "is not defined" if value is None else f"is {value:.4f}"
        wanted = f"as wanted ({bounds})" if is_met else f"but must be {bounds}"
        yield Check(
            f"limits.{name}", is_met, f"{title(name)} of {settings.split} rows {shown}, {wanted}", {"value": value}
        )


def of_comparison(settings: PromotionSettings, task: Task, comparison: "Comparison") -> Iterator[Check]:
    """Yield whether the challenger is better by enough, and in no other metric worse by too much."""
    if settings.min_gain is not None:
        name = settings.metric or task.default_metric
        gain = _Gain.of(name, task, comparison)
        least = settings.min_gain
        is_met = gain is not None and gain.low > least
        beyond = "" if least == 0 else f" by more than {least:g}"
        verdict = f"better{beyond}" if is_met else f"not better{beyond}" if gain else "not to be compared"
        yield _check("min_gain", name, is_met, verdict, gain, settings)
    for name, most in settings.max_loss.items():
        gain = _Gain.of(name, task, comparison)
        is_met = gain is not None and gain.low >= -most
        worse = f"worse by more than {most:g}"
        verdict = f"not {worse}" if is_met else f"{worse}, or may be" if gain else "not to be compared"
        yield _check(f"max_loss.{name}", name, is_met, verdict, gain, settings)


def of_latency(settings: PromotionSettings, milliseconds: float | None) -> Check:
    """Return whether a row is predicted fast enough.

    Args:
        settings: with `max_latency_ms`.
        milliseconds: for a row; None where the version has no example of a row.
    """
    if milliseconds is None:
        return Check("max_latency_ms", False, "no example of a row is kept with the version, so its time is not known")
    most = settings.max_latency_ms
    assert most is not None
    is_met = milliseconds <= most
    reason = f"a row takes {milliseconds:.3g} ms, {'at most' if is_met else 'more than'} {most:g}"
    return Check("max_latency_ms", is_met, reason, {"milliseconds": milliseconds})


def of_cost(settings: PromotionSettings, cost: Mapping[str, Any] | None) -> Check:
    """Return whether a version was cheap enough to train.

    Args:
        settings: with `max_cost`.
        cost: of its training, as its provenance has it; None where the tier of machines was not set.
    """
    if cost is None:
        return Check("max_cost", False, "its cost is not known; set cost.tier before it is trained")
    most = settings.max_cost
    assert most is not None
    is_met = cost["amount"] <= most
    shown = f"{cost['amount']:.4f} {cost['currency']}"
    return Check("max_cost", is_met, f"it cost {shown}, {'at most' if is_met else 'more than'} {most:g}", dict(cost))


def of_few_rows(settings: PromotionSettings, num_rows: int, where: str, *, rule: str = "min_rows") -> Check:
    """Return that there are too few rows to compare on."""
    reason = f"only {num_rows:,} {settings.split} rows are {where}, at least {settings.min_rows:,} are wanted"
    return Check(rule, False, reason, {"rows": num_rows})


def of_slices(limits: SliceLimits, task: Task, slices: "ColumnSlices") -> Check:
    """Return whether no slice of a column that can be judged loses more than it may; names those that do."""
    losses = {
        part.value: _loss(task, slices.metric, part.differences[0].difference)
        for part in slices.slices
        if part.is_judged
    }
    known = {value: loss for value, loss in losses.items() if loss is not None}
    name, rule = title(slices.metric), f"slices.{slices.column}"
    if not known:
        return Check(rule, False, f"{name} by {slices.column}: no slice has rows enough to be judged")
    beyond = sorted((value for value in known if known[value] > limits.max_loss), key=lambda value: -known[value])
    if beyond:
        named = ", ".join(f"{value} loses {known[value]:.4f}" for value in beyond[:_NAMED_DIFFERENCES])
        return Check(
            rule, False, f"{name} by {slices.column}: {named}, at most {limits.max_loss:g} may be", {"losses": known}
        )
    worst = max(known, key=lambda value: known[value])
    lost = f"{worst} loses most, {known[worst]:.4f}" if known[worst] > 0 else "no slice loses"
    return Check(rule, True, f"{name} by {slices.column}: {lost}, {limits.max_loss:g} may be", {"losses": known})


def _loss(task: Task, metric: str, difference: float | None) -> float | None:
    if difference is None:
        return None
    return difference if task.lower_is_better(metric) else -difference


@dataclass(frozen=True)
class _Gain:
    """How much better the challenger is; below 0 where it is worse."""

    champion: float
    challenger: float
    value: float
    low: float
    high: float

    @classmethod
    def of(cls, name: str, task: Task, comparison: "Comparison") -> "_Gain | None":
        """Return the gain in a metric; None where it cannot be computed."""
        difference = comparison.differences.get(name)
        if difference is None or difference.a is None or difference.b is None:
            return None
        if difference.difference is None or difference.low is None or difference.high is None:
            return None
        low, high, value = difference.low, difference.high, difference.difference
        if task.lower_is_better(name):
            low, high, value = -high, -low, -value
        return cls(difference.a, difference.b, value, low, high)


def _check(rule: str, name: str, is_met: bool, verdict: str, gain: _Gain | None, settings: PromotionSettings) -> Check:
    if gain is None:
        return Check(rule, False, f"{title(name)}: {verdict}, its value or interval is not defined")
    return Check(
        rule,
        is_met,
        f"{title(name)}: {verdict}: {gain.challenger:.4f} against {gain.champion:.4f}, gain {gain.value:+.4f} "
        f"[{gain.low:+.4f}, {gain.high:+.4f}] at {settings.confidence:.4g}",
        {
            "champion": gain.champion, "challenger": gain.challenger, "gain": gain.value, "low": gain.low,
            "high": gain.high,
        },
    )  # fmt: skip
