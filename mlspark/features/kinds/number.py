"""The kind `number`: one float for each number, scaled, or ranked among the training values. Runs anywhere."""

import sys
from bisect import bisect_right
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, model_validator

from mlspark.contracts.expressions import parse
from mlspark.features.counts import Counts, Number, NumberCounts
from mlspark.features.kinds import sql_text
from mlspark.features.kinds.kind import Encode, Kind, Output, indicator, indicator_sql
from mlspark.features.kinds.numbers import (
    DeclaredNumbers,
    FittedNumber,
    NumberStatistics,
    chain_sql,
    chain_value,
    clamped,
    is_plain,
    is_whole,
    place_sql,
)
from mlspark.features.kinds.sql_text import SqlSteps
from mlspark.sql_literals import sql_double
from mlspark.tasks.task import Task

_LOG_STEP = 2.0**-30  # log1p of a double is at most 710, less than 2^40 of them


class NumberFeature(DeclaredNumbers):
    """One float for each number: clip, then log1p or power, then the scale that is fitted on the training values."""

    kind: Literal["number"]
    clip: tuple[float | None, float | None] = (None, None)
    """Least and greatest value; a value beyond a bound becomes the bound. null: no bound."""
    log1p: bool = False
    """Whether log(1 + x) is taken, for amounts with a long tail; values below 0 count as 0."""
    power: Annotated[float, Field(gt=0.0)] | None = None
    """Power to which the absolute value is raised; the sign is kept. Unset: none."""
    scale: Literal["standard", "min_max", "robust", "quantile", "none"] = "standard"
    """Scaling. standard: mean 0, standard deviation 1. min_max: from 0 to 1. robust: median 0, distance of quartiles 1.
    quantile: the share of training values below, from 0 to 1."""
    knots: Annotated[int, Field(ge=2, le=1000)] = 100
    """Number of knots of the scale `quantile`, between which it is linear."""
    impute: Literal["mean", "median", "mode", "constant"] = "mean"
    """Replacement of a missing value: a statistic of the training values, or with constant the value of `fill`."""
    fill: float = 0.0
    """Value of a missing one with impute: constant, before clip, log1p, power and scale."""
    indicator: bool = False
    """Whether a second float is added that is 1 where the value is missing, else 0."""
    exact: bool = False
    """Whether quantiles are exact, instead of those of values rounded to 11 significant bits (off by at most 0.05 %)."""

    @model_validator(mode="after")
    def _is_consistent(self) -> "NumberFeature":
        low, high = self.clip
        if low is not None and high is not None and low >= high:
            raise ValueError(f"clip: {low} is not below {high}")
        if self.log1p and self.power is not None:
            raise ValueError("log1p and power: choose one")
        if self.fill != 0.0 and self.impute != "constant":
            raise ValueError("fill needs impute: constant")
        return self

    def question(self, source: tuple[str, ...], types: Mapping[str, str]) -> Number:
        [text] = source
        step = 1.0 if is_plain(self.clip, self.log1p, self.power) and is_whole(text, types) else None
        step = _LOG_STEP if self.log1p else step
        parts = {"robust": (4,), "quantile": (self.knots - 1,)}.get(self.scale, ())
        return Number(
            chain_sql(parse(text).sql(), clip=self.clip, log1p=self.log1p, power=self.power),
            step=step,
            parts=parts + ((2,) if self.impute == "median" else ()),
            exact=self.exact,
            mode=self.impute == "mode",
        )

    def fitted(self, name: str, source: tuple[str, ...], counts: Counts, task: Task) -> "Scaled | Ranked":
        numbers = counts.numbers[name]
        imputed = self._imputed(numbers)
        shared: dict[str, Any] = {
            "name": name,
            "expression": source[0],
            "clip": self.clip,
            "log1p": self.log1p,
            "power": self.power,
            "statistics": NumberStatistics.of(numbers),
            "indicator": self.indicator,
        }
        if self.scale == "quantile":
            ranked = Ranked(**(shared | self._knots(numbers)), missing=0.0)
            return ranked.model_copy(update={"missing": ranked.of(imputed)})
        center, scale = self._center_and_scale(numbers)
        scale = min(scale, sys.float_info.max) or 1.0
        return Scaled(**shared, center=center, scale=scale, missing=(imputed - center) / scale)

    def _imputed(self, numbers: NumberCounts) -> float:
        """Return what a missing value counts as, before it is scaled."""
        if self.impute == "constant":
            return chain_value(self.fill, clip=self.clip, log1p=self.log1p, power=self.power)
        if self.impute == "median":
            return numbers.cuts(2)[1] if numbers.count else 0.0
        return numbers.mean if self.impute == "mean" else numbers.mode or 0.0

    def _knots(self, numbers: NumberCounts) -> dict[str, tuple[float, ...]]:
        values = numbers.cuts(self.knots - 1) if numbers.count else [0.0]
        shares: dict[float, list[float]] = {}
        for place, value in enumerate(values):
            shares.setdefault(value, []).append(place / max(1, len(values) - 1))
        knots = tuple(sorted(shares))
        below, upto = (tuple(end(shares[knot]) for knot in knots) for end in (min, max))
        return {"knots": knots, "below": below, "upto": upto}

    def _center_and_scale(self, numbers: NumberCounts) -> tuple[float, float]:
        if numbers.count and self.scale == "standard":
            return numbers.mean, numbers.std
        if numbers.count and self.scale == "min_max":
            return numbers.min, numbers.max - numbers.min
        if numbers.count and self.scale == "robust":
            _, low, center, high, _ = numbers.cuts(4)
            return center, high - low
        return 0.0, 1.0


class Scaled(FittedNumber):
    """(x - center) / scale."""

    kind: Literal["scaled"] = "scaled"
    center: float
    scale: float
    missing: float
    """Output of a missing value."""
    indicator: bool

    @property
    def outputs(self) -> tuple[Output, ...]:
        return _with_indicator(self.name, f"{self.words}, minus {self.center:g}, over {self.scale:g}", self.indicator)

    @property
    def _is_unscaled(self) -> bool:
        return (self.center, self.scale) == (0.0, 1.0)

    def to_sql(self, steps: SqlSteps) -> list[str]:
        value = self.finite_sql(steps)
        scaled = value if self._is_unscaled else f"({value} - {sql_double(self.center)}) / {sql_double(self.scale)}"
        number = f"coalesce({scaled}, {sql_double(self.missing)})"
        is_small = self.is_safe(steps) and self.scale > 1e-18
        output = f"CAST({number} AS FLOAT)" if is_small else sql_text.clamped(number)
        return [output, indicator_sql(value)] if self.indicator else [output]

    def on_arrow(self) -> Encode:
        values_of = self.values()

        def encode(rows: pa.Table) -> list[NDArray[np.generic]]:
            values = values_of(rows)
            is_missing = np.isnan(values)
            with np.errstate(over="ignore"):
                scaled = values if self._is_unscaled else (values - self.center) / self.scale
            outputs: list[NDArray[np.generic]] = [clamped(np.where(is_missing, self.missing, scaled))]
            return [*outputs, is_missing] if self.indicator else outputs

        return encode


class Ranked(FittedNumber):
    """The share of training values below x, linear between knots."""

    kind: Literal["ranked"] = "ranked"
    knots: tuple[float, ...]
    """Knots, ascending."""
    below: tuple[float, ...]
    """Share of training values below each knot; 0 for the first."""
    upto: tuple[float, ...]
    """Share of training values up to each knot; 1 for the last."""
    missing: float
    indicator: bool

    @property
    def levels(self) -> tuple[float, ...]:
        """What x becomes at each knot."""
        inner = [(low + high) / 2 for low, high in zip(self.below, self.upto, strict=True)]
        return (0.0, *inner[1:-1], 1.0) if len(inner) > 1 else (0.5,)

    @property
    def slopes(self) -> tuple[float, ...]:
        """Of the lines between neighbouring knots."""
        ends = zip(self.knots, self.knots[1:], self.upto, self.below[1:], strict=False)
        # Knots may be so close that the slope is no finite double.
        return tuple(min((to - start) / (right - left), sys.float_info.max) for left, right, start, to in ends)

    def of(self, value: float) -> float:
        """Return what a value becomes."""
        if value <= self.knots[0] or value >= self.knots[-1]:
            return 0.5 if len(self.knots) == 1 and value == self.knots[0] else float(value > self.knots[0])
        place = bisect_right(self.knots, value) - 1
        if value == self.knots[place]:
            return self.levels[place]
        return self.upto[place] + (value - self.knots[place]) * self.slopes[place]

    @property
    def outputs(self) -> tuple[Output, ...]:
        return _with_indicator(self.name, f"share of training rows whose {self.words} is less", self.indicator)

    def to_sql(self, steps: SqlSteps) -> list[str]:
        value, step = self.filled_sql(steps)
        place, step = place_sql(value, self.knots, steps, step)
        rank = self._rank_sql(value, steps.add(step, place))
        output = f"CAST(IF(isnan({value}), {sql_double(self.missing)}, {rank}) AS FLOAT)"
        return [output, f"CAST(isnan({value}) AS FLOAT)"] if self.indicator else [output]

    def _rank_sql(self, value: str, place: str) -> str:
        """Return SQL of `of`, by the number of knots that are not above value."""
        # Nothing is below the first knot; beyond the last one no line is followed.
        tables = ((0.0, *numbers) for numbers in (self.knots, self.levels, self.upto, (*self.slopes, 0.0)))
        knot, level, upto, slope = (f"get({sql_text.array(numbers, 'double')}, {place})" for numbers in tables)
        return (
            f"IF({place} = 0, 0.0D, IF({value} = {knot}, {level}, "
            f"IF({place} = {len(self.knots)}, 1.0D, {upto} + ({value} - {knot}) * {slope})))"
        )

    def on_arrow(self) -> Encode:
        values_of = self.values()
        knots, levels, upto = (np.array(numbers) for numbers in (self.knots, self.levels, self.upto))
        slopes = np.array([*self.slopes, 0.0])

        def encode(rows: pa.Table) -> list[NDArray[np.generic]]:
            values = values_of(rows)
            is_missing = np.isnan(values)
            place = np.maximum(np.searchsorted(knots, values, side="right") - 1, 0)
            between = upto[place] + (values - knots[place]) * slopes[place]
            ranks = np.where(values == knots[place], levels[place], between)
            ranks = np.where(values < knots[0], 0.0, np.where(values > knots[-1], 1.0, ranks))
            outputs: list[NDArray[np.generic]] = [np.where(is_missing, self.missing, ranks)]
            return [*outputs, is_missing] if self.indicator else outputs

        return encode


def _with_indicator(name: str, meaning: str, is_wanted: bool) -> tuple[Output, ...]:
    output = Output(name, name, meaning)
    return (output, indicator(name)) if is_wanted else (output,)


KIND = Kind(NumberFeature, (Scaled, Ranked))
