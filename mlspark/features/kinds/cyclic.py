"""The kind `cyclic`: sine and cosine of parts of a date or time. Runs anywhere."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import compute as pc
from pydantic import Field, model_validator

from mlspark.features.counts import Counts
from mlspark.features.kinds.kind import TIME, Declared, Encode, Fitted, Kind, Output, Use
from mlspark.features.kinds.sql_text import SqlSteps
from mlspark.sql_literals import sql_double
from mlspark.tasks.task import Task


@dataclass(frozen=True)
class _TimePart:
    period: int
    """Number of its values, counted from 0 (Monday, 1 January)."""
    sql: str
    on_arrow: Callable[[pa.ChunkedArray], pa.ChunkedArray]


_PARTS = {
    "second": _TimePart(60, "second({0})", pc.second),
    "minute": _TimePart(60, "minute({0})", pc.minute),
    "hour": _TimePart(24, "hour({0})", pc.hour),
    "day_of_week": _TimePart(7, "weekday({0})", pc.day_of_week),
    "day_of_month": _TimePart(31, "dayofmonth({0}) - 1", lambda times: pc.subtract(pc.day(times), 1)),
    "day_of_year": _TimePart(366, "dayofyear({0}) - 1", lambda times: pc.subtract(pc.day_of_year(times), 1)),
    "month": _TimePart(12, "month({0}) - 1", lambda times: pc.subtract(pc.month(times), 1)),
}
_FUNCTIONS = {"sin": math.sin, "cos": math.cos}


class CyclicFeature(Declared):
    """Sine and cosine of parts of a date or time (UTC), so that December is next to January; 0 and 0 where missing."""

    kind: Literal["cyclic"]
    parts: Annotated[
        tuple[Literal["second", "minute", "hour", "day_of_week", "day_of_month", "day_of_year", "month"], ...],
        Field(min_length=1),
    ]

    @model_validator(mode="after")
    def _has_columns(self) -> "CyclicFeature":
        self.check_name("", False)
        return self

    @property
    def uses(self) -> dict[str, Use]:
        return dict.fromkeys(self.columns, TIME)

    def fitted(self, name: str, source: tuple[str, ...], counts: Counts, task: Task) -> "Cyclic":
        return Cyclic(name=name, column=source[0], parts=self.parts)


class Cyclic(Fitted):
    """Sine and cosine of 2 pi part / period."""

    kind: Literal["cyclic"] = "cyclic"
    column: str
    parts: tuple[str, ...]

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.column,)

    @property
    def outputs(self) -> tuple[Output, ...]:
        return tuple(
            Output(f"{self.name}__{part}_{function}", self.name, f"{function} of the {part} of {self.column}")
            for part in self.parts
            for function in _FUNCTIONS
        )

    def to_sql(self, steps: SqlSteps) -> list[str]:
        return [self._part_sql(part, function) for part in self.parts for function in _FUNCTIONS]

    def _part_sql(self, part: str, function: str) -> str:
        table = ", ".join(sql_double(number) for number in _circle(part, function))
        value = _PARTS[part].sql.format(f"`{self.column}`")
        return f"CAST(coalesce(get(array({table}), {value}), 0.0D) AS FLOAT)"

    def on_arrow(self) -> Encode:
        circles = {part: [np.array([*_circle(part, function), 0.0]) for function in _FUNCTIONS] for part in self.parts}

        def encode(rows: pa.Table) -> list[NDArray[np.generic]]:
            times = rows.column(self.column)
            # As a UTC wall clock: Arrow would need a time zone database for more.
            times = times.cast(pa.timestamp("us")) if pa.types.is_date(times.type) else _wall_clock(times)
            outputs: list[NDArray[np.generic]] = []
            for part, tables in circles.items():
                values = pc.fill_null(_PARTS[part].on_arrow(times), _PARTS[part].period).to_numpy()
                outputs += [table[values] for table in tables]
            return outputs

        return encode


def _circle(part: str, function: str) -> list[float]:
    """Return sine or cosine of each value of a part of a time: a table, so that everywhere has the same bits."""
    period = _PARTS[part].period
    return [_FUNCTIONS[function](2.0 * math.pi * value / period) for value in range(period)]


def _wall_clock(times: pa.ChunkedArray) -> pa.ChunkedArray:
    return times.cast(pa.timestamp("us", times.type.tz)).cast(pa.int64()).cast(pa.timestamp("us"))


KIND = Kind(CyclicFeature, (Cyclic,))
