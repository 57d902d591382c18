"""The kind `buckets`: a number becomes the number of edges that are not above it. Runs anywhere."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, model_validator

from mlspark.contracts.expressions import parse
from mlspark.features.counts import Counts, Number
from mlspark.features.kinds.categories import MISSING_ID
from mlspark.features.kinds.kind import Encode, Kind, Output
from mlspark.features.kinds.numbers import DeclaredNumbers, FittedNumber, NumberStatistics, is_whole, place_sql
from mlspark.features.kinds.sql_text import SqlSteps
from mlspark.tasks.task import Task


class BucketsFeature(DeclaredNumbers):
    """A number becomes the number of edges that are not above it."""

    kind: Literal["buckets"]
    edges: tuple[float, ...] = ()
    """Bounds between the buckets, ascending; a value equal to a bound is in the bucket above it."""
    quantiles: Annotated[int, Field(ge=2, le=1000)] | None = None
    """Number of buckets with numbers of training rows as equal as possible, instead of `edges`."""
    into: Literal["id", "one_hot"] = "id"
    """Form of the output. id: 0 missing, then the buckets from 1, for an embedding. one_hot: a float for each, and one for
    missing."""
    exact: bool = False
    """Exact `quantiles` instead of those of values rounded to 11 significant bits (an error of at most 0.05 %)."""

    @model_validator(mode="after")
    def _is_consistent(self) -> "BucketsFeature":
        if bool(self.edges) == (self.quantiles is not None):
            raise ValueError("give either edges or quantiles")
        if list(self.edges) != sorted(set(self.edges)):
            raise ValueError("edges: must ascend")
        return self

    def question(self, source: tuple[str, ...], types: Mapping[str, str]) -> Number:
        [text] = source
        parts = (self.quantiles,) if self.quantiles else ()
        return Number(parse(text).sql(), step=1.0 if is_whole(text, types) else None, parts=parts, exact=self.exact)

    def fitted(self, name: str, source: tuple[str, ...], counts: Counts, task: Task) -> "Bucketed":
        numbers, edges = counts.numbers[name], self.edges
        if self.quantiles and numbers.count:
            edges = tuple(sorted(set(numbers.cuts(self.quantiles))))[1:-1]
        return Bucketed(
            name=name, expression=source[0], statistics=NumberStatistics.of(numbers), edges=edges, into=self.into
        )


class Bucketed(FittedNumber):
    """How many edges are not above x."""

    kind: Literal["bucketed"] = "bucketed"
    edges: tuple[float, ...]
    into: Literal["id", "one_hot"]

    @property
    def outputs(self) -> tuple[Output, ...]:
        if self.into == "id":
            return (Output(self.name, self.name, "0 missing, then the bucket from 1", ids=len(self.edges) + 2),)
        names = [f"{self.name}__{place}" for place in range(len(self.edges) + 2)]
        return tuple(Output(name, self.name, meaning) for name, meaning in zip(names, self._meanings, strict=True))

    @property
    def _meanings(self) -> list[str]:
        """What it says of a row to be in each bucket."""
        bounds = ["-inf", *(f"{edge:g}" for edge in self.edges), "inf"]
        return ["is missing", *(f"from {low} to below {high}" for low, high in pairwise(bounds))]

    def words_of(self, place: int, number: float) -> str:
        """Return the bucket that an id stands for: "2 = from 25 to below 40"."""
        return f"{int(number)} = {self._meanings[int(number)]}" if self.into == "id" else self._meanings[place]

    def to_sql(self, steps: SqlSteps) -> list[str]:
        value, step = self.filled_sql(steps)
        within, step = place_sql(value, self.edges, steps, step)
        bucket = f"IF(isnan({value}), {MISSING_ID}, 1 + {within})"
        if self.into == "id":
            return [f"CAST({bucket} AS INT)"]
        place = steps.add(step, bucket)
        return [f"CAST({place} = {i} AS FLOAT)" for i in range(len(self.edges) + 2)]

    def on_arrow(self) -> Encode:
        values_of, edges = self.values(), np.array(self.edges, np.float64)

        def encode(rows: pa.Table) -> list[NDArray[np.generic]]:
            values = values_of(rows)
            buckets = np.where(np.isnan(values), MISSING_ID, np.searchsorted(edges, values, side="right") + 1)
            return [buckets] if self.into == "id" else [buckets == place for place in range(len(edges) + 2)]

        return encode


KIND = Kind(BucketsFeature, (Bucketed,))
