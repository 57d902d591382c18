"""The kind `vector`: an array of a fixed number of floats as it is. Runs anywhere."""

from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import compute as pc
from pydantic import Field, model_validator

from mlspark.contracts.contract import ColumnRule
from mlspark.contracts.expressions import doubles
from mlspark.features.counts import Counts
from mlspark.features.kinds import sql_text
from mlspark.features.kinds.kind import (
    VECTOR,
    Declared,
    Encode,
    Fitted,
    Kind,
    Output,
    Use,
    indicator,
    indicator_sql,
)
from mlspark.features.kinds.numbers import clamped
from mlspark.features.kinds.sql_text import SqlSteps
from mlspark.tasks.task import Task


class VectorFeature(Declared):
    """An array of a fixed number of floats as it is; zeros where it is missing."""

    kind: Literal["vector"]
    size: Annotated[int, Field(ge=1, le=2000)]
    indicator: bool = False
    """Whether a further float is added that is 1 where the array is missing, else 0."""

    @model_validator(mode="after")
    def _has_columns(self) -> "VectorFeature":
        self.check_name("", False)
        return self

    @property
    def uses(self) -> dict[str, Use]:
        return dict.fromkeys(self.columns, VECTOR)

    def column_problems(self, rule: ColumnRule) -> list[str]:
        if rule.min_length == rule.max_length == self.size:
            return []
        return [
            f"the contract must give it min_length and max_length {self.size}, "
            f"it gives {rule.min_length} and {rule.max_length}"
        ]

    def fitted(self, name: str, source: tuple[str, ...], counts: Counts, task: Task) -> "Vector":
        return Vector(name=name, column=source[0], size=self.size, indicator=self.indicator)


class Vector(Fitted):
    """The floats of an array."""

    kind: Literal["vector"] = "vector"
    column: str
    size: int
    indicator: bool

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.column,)

    @property
    def outputs(self) -> tuple[Output, ...]:
        places = tuple(Output(f"{self.name}__{i}", self.name, f"{self.column}[{i}]") for i in range(self.size))
        return (*places, indicator(self.name)) if self.indicator else places

    def to_sql(self, steps: SqlSteps) -> list[str]:
        column = f"`{self.column}`"
        places = [sql_text.clamped(f"coalesce(CAST(get({column}, {i}) AS DOUBLE), 0.0D)") for i in range(self.size)]
        return [*places, indicator_sql(column)] if self.indicator else places

    def on_arrow(self) -> Encode:
        def encode(rows: pa.Table) -> list[NDArray[np.generic]]:
            column = rows.column(self.column)
            values = np.zeros((rows.num_rows, self.size))
            has_array = column.is_valid().to_numpy()
            there = pc.fill_null(pc.list_flatten(column), 0.0)  # the elements of the arrays that are not null
            values[has_array] = doubles(there).reshape(-1, self.size)
            outputs: list[NDArray[np.generic]] = list(clamped(values).T)
            return [*outputs, column.is_null().to_numpy()] if self.indicator else outputs

        return encode


KIND = Kind(VectorFeature, (Vector,))
