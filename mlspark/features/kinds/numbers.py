"""What the kinds that start from a number share: arithmetic of columns, then clip, log1p or power. Runs anywhere."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pyarrow as pa
from pydantic import model_validator

from mlspark.contracts.expressions import parse
from mlspark.features.counts import NumberCounts, finite
from mlspark.features.kinds.kind import NUMBER, TEXT, TIME, Declared, Fitted, Floats, Part, Use
from mlspark.features.kinds.sql_text import LARGEST, SqlSteps, array
from mlspark.sql_literals import sql_double

_WHOLE = ("boolean", "tinyint", "smallint", "int")
_SAFE_TYPES = (*_WHOLE, "bigint")
"""Types of columns whose numbers are all finite, before and after scaling."""
_USES = {"number": NUMBER, "text": TEXT, "time": TIME}


class DeclaredNumbers(Declared):
    """An entry whose features are each made of a number."""

    columns: tuple[str, ...] = ()
    """Columns of numbers or booleans; each becomes a feature of its own, called like the column."""
    expression: str = ""
    """Arithmetic of columns with + - * / ( ), length(TEXT), days(DATE), instead of `columns`. A result that is null or not
    finite is missing."""

    @model_validator(mode="after")
    def _is_one_of_both(self) -> "DeclaredNumbers":
        self.check_name("expression", bool(self.expression))
        return self

    @property
    def sources(self) -> tuple[tuple[str, ...], ...]:
        return ((self.expression,),) if self.expression else super().sources

    @property
    def uses(self) -> dict[str, Use]:
        if not self.expression:
            return dict.fromkeys(self.columns, NUMBER)
        return {column: _USES[use] for column, use in parse(self.expression).columns.items()}


class NumberStatistics(Part):
    """Of the training rows' values, after clip, log1p and power."""

    count: int
    """Rows with a value."""
    nulls: int
    mean: float
    std: float
    """Population standard deviation."""
    min: float
    max: float

    @classmethod
    def of(cls, counts: NumberCounts) -> "NumberStatistics":
        return cls(
            count=counts.count, nulls=counts.nulls, mean=counts.mean, std=counts.std, min=counts.min, max=counts.max
        )


class FittedNumber(Fitted):
    """A feature made of one number."""

    expression: str
    clip: tuple[float | None, float | None] = (None, None)
    log1p: bool = False
    power: float | None = None
    statistics: NumberStatistics

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(parse(self.expression).columns)

    @property
    def stays_on_spark(self) -> bool:
        """Where a logarithm or power is taken: another library's may differ in a last bit from the one of training."""
        return self.log1p or self.power is not None

    @property
    def words(self) -> str:
        """What happens to the number before it is scaled."""
        low, high = self.clip
        words = self.expression
        if low is not None or high is not None:
            bounds = f"{'-inf' if low is None else f'{low:g}'}, {'inf' if high is None else f'{high:g}'}"
            words = f"{words} clipped to [{bounds}]"
        words = f"log(1 + {words})" if self.log1p else words
        return f"({words}) ^ {self.power:g}" if self.power is not None else words

    @property
    def value_sql(self) -> str:
        """SQL of the number as it is before it is scaled; null where missing."""
        return chain_sql(parse(self.expression).sql(), clip=self.clip, log1p=self.log1p, power=self.power)

    def is_safe(self, steps: SqlSteps) -> bool:
        """Return whether the number is finite on every row that has it, by its type."""
        return steps.inputs.get(self.expression) in _SAFE_TYPES and self.power is None

    def prepared_sql(self, steps: SqlSteps) -> tuple[str, int]:
        """Return SQL of the number, null where it is missing, and the step that may use it."""
        sql = self.value_sql
        is_column = self.expression in steps.inputs
        if is_column and is_plain(self.clip, self.log1p, self.power):
            return sql, 0
        return steps.add(0, sql), 1

    def finite_sql(self, steps: SqlSteps) -> str:
        """Return SQL of the number, null where it is missing or not finite."""
        sql, step = self.prepared_sql(steps)
        return sql if self.is_safe(steps) else steps.add(step, finite(sql))

    def filled_sql(self, steps: SqlSteps) -> tuple[str, int]:
        """Return SQL of the number, NaN where it is missing or not finite, and the step that may use it.

        It is never null, and Spark sees that: what uses it is compiled into half the Java.
        """
        sql, step = self.prepared_sql(steps)
        filled = f"IF(abs({sql}) < double('infinity'), coalesce({sql}, 0.0D) + 0.0D, double('NaN'))"
        return steps.add(step, filled), step + 1

    def values(self) -> Callable[[pa.Table], Floats]:
        """Return the function that computes the number (n,) of rows in memory, NaN where it is missing or not finite."""
        expression, (low, high) = parse(self.expression), self.clip
        stays = is_plain(self.clip, self.log1p, self.power)

        def changed(values: Floats) -> Floats:
            if low is not None:
                values = np.where(values < low, low, values)
            if high is not None:
                values = np.where(values > high, high, values)
            if self.log1p:
                return np.log1p(np.where(values < 0.0, 0.0, values))
            return values if self.power is None else np.copysign(np.abs(values) ** self.power, values)

        def values_of(rows: pa.Table) -> Floats:
            values = expression.evaluate(rows)
            if not stays:
                with np.errstate(all="ignore"):
                    values = changed(values)
            return np.where(np.isfinite(values), values, np.nan) + 0.0  # -0.0 is 0.0

        return values_of


def is_plain(clip: tuple[float | None, float | None], log1p: bool, power: float | None) -> bool:
    """Return whether a number stays as it is."""
    return clip == (None, None) and not log1p and power is None


def is_whole(source: str, types: Mapping[str, str]) -> bool:
    """Return whether a source is a column of whole numbers of at most 32 bits."""
    return types.get(source) in _WHOLE


def chain_sql(value: str, *, clip: tuple[float | None, float | None], log1p: bool, power: float | None) -> str:
    """Return SQL of a number as it is before it is scaled; null stays null."""
    low, high = clip
    if high is not None:
        value = f"nanvl({value}, CAST(NULL AS DOUBLE))"  # NaN is more than anything to Spark
    bounds = [f"WHEN {value} < {sql_double(low)} THEN {sql_double(low)}"] if low is not None else []
    bounds += [f"WHEN {value} > {sql_double(high)} THEN {sql_double(high)}"] if high is not None else []
    # Not least and greatest: greatest(null, 0) is 0, and a missing value must stay missing.
    value = f"CASE {' '.join(bounds)} ELSE {value} END" if bounds else value
    if log1p:
        return f"log1p(CASE WHEN {value} < 0.0D THEN 0.0D ELSE {value} END)"
    if power is not None:
        raised = f"power(abs({value}), {sql_double(power)})"
        return f"CASE WHEN {value} < 0.0D THEN -{raised} ELSE {raised} END"
    return value


def chain_value(value: float, *, clip: tuple[float | None, float | None], log1p: bool, power: float | None) -> float:
    """Return a number as it is before it is scaled."""
    low, high = clip
    value = value if low is None else max(value, low)
    value = value if high is None else min(value, high)
    if log1p:
        return math.log1p(max(value, 0.0))
    return value if power is None else math.copysign(abs(value) ** power, value)


def _halving(value: str, edges: Sequence[str], results: Sequence[str]) -> str:
    """Return SQL of `results[number of edges that are not above value]`, searched by halving; all of them are SQL."""
    if not edges:
        return results[0]
    middle = len(edges) // 2
    below = _halving(value, edges[:middle], results[: middle + 1])
    above = _halving(value, edges[middle + 1 :], results[middle + 1 :])
    return f"IF({value} < {edges[middle]}, {below}, {above})"


_FEW_EDGES = 32
"""Most edges that are searched in one nested condition."""


def place_sql(value: str, edges: tuple[float, ...], steps: SqlSteps, step: int) -> tuple[str, int]:
    """Return SQL of the number of edges that are not above value, all where it is NaN, and the step that may use it.

    Many edges are searched in two steps, first for a block and then in it, each by halving: one condition with all of them
    is more Java than a method may have.

    Args:
        value: never null.
        edges: ascending.
        steps: for columns that it needs.
        step: that may use `value`.
    """
    num_edges = len(edges)
    if num_edges <= _FEW_EDGES:
        edges_sql = [sql_double(edge) for edge in edges]
        return _halving(value, edges_sql, [str(place) for place in range(num_edges + 1)]), step
    # Edges of a block; its answers are one more. A comparison within a block is more Java than one with a bound.
    size = math.isqrt(num_edges // 3)
    firsts = [min(first, num_edges - size) for first in range(0, num_edges + 1, size + 1)]
    bounds = [sql_double(edges[first - 1]) for first in range(size + 1, num_edges + 1, size + 1)]
    block = steps.add(step, _halving(value, bounds, [str(place) for place in range(len(firsts))]))
    of_block = [array([edges[first + place] for first in firsts], "double") for place in range(size)]
    within = _halving(value, [f"get({each}, {block})" for each in of_block], [str(place) for place in range(size + 1)])
    return f"(least({block} * {size + 1}, {num_edges - size}) + {within})", step + 1


def clamped(values: Floats) -> Floats:
    """Return doubles that fit a float32, the largest where they are beyond."""
    return np.minimum(np.maximum(values, -LARGEST), LARGEST)  # np.clip takes longer of few values
