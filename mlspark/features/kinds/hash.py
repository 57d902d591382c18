"""The kind `hash`: categories in buckets by their hash. Runs anywhere."""

from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, model_validator

from mlspark.features.counts import Counts
from mlspark.features.kinds.categories import MISSING_ID, SEPARATOR, text_sql, texts
from mlspark.features.kinds.hashed_places import MOST_FLOATS, hashes_of, sign_sql, signs
from mlspark.features.kinds.kind import CATEGORY, Declared, Encode, FeatureName, Fitted, Kind, Output, Use
from mlspark.features.kinds.sql_text import SqlSteps
from mlspark.sql_literals import sql_text
from mlspark.tasks.task import Task


class HashFeature(Declared):
    """Categories without a list of them: a hash decides the place. Nothing is fitted."""

    kind: Literal["hash"]
    columns: Annotated[tuple[str, ...], Field(min_length=1)]
    """Columns of text, whole numbers, booleans or dates. They share the buckets when `into` is floats."""
    cross: bool = False
    """Whether the columns' values are hashed together, as one category."""
    name: FeatureName
    """Name of the feature."""
    buckets: Annotated[int, Field(ge=1, le=10_000_000)]
    into: Literal["floats", "id"] = "floats"
    """Form of the output. floats: a count for each bucket. id: one id for an embedding, 0 missing, then the buckets."""
    signed: bool = True
    """Whether half of the categories count as -1, so that those of a bucket cancel out rather than add up."""

    @model_validator(mode="after")
    def _is_consistent(self) -> "HashFeature":
        if self.into == "id" and len(self.columns) > 1 and not self.cross:
            raise ValueError("into: id needs one column, or cross: true")
        if self.into == "floats" and self.buckets > MOST_FLOATS:
            raise ValueError(f"buckets: at most {MOST_FLOATS} with into: floats")
        return self

    @property
    def sources(self) -> tuple[tuple[str, ...], ...]:
        return (self.columns,)

    @property
    def uses(self) -> dict[str, Use]:
        return dict.fromkeys(self.columns, CATEGORY)

    def fitted(self, name: str, source: tuple[str, ...], counts: Counts, task: Task) -> "Hashed":
        return Hashed(
            name=name, columns=source, cross=self.cross, buckets=self.buckets, into=self.into, signed=self.signed
        )


class Hashed(Fitted):
    """Categories in buckets by their hash."""

    kind: Literal["hashed"] = "hashed"
    columns: tuple[str, ...]
    cross: bool
    buckets: int
    into: Literal["floats", "id"]
    signed: bool

    @property
    def inputs(self) -> tuple[str, ...]:
        return self.columns

    @property
    def tokens(self) -> tuple[tuple[str, ...], ...]:
        """Columns of each category that is hashed."""
        return (self.columns,) if self.cross else tuple((column,) for column in self.columns)

    @property
    def outputs(self) -> tuple[Output, ...]:
        if self.into == "id":
            return (Output(self.name, self.name, "0 missing, then the hash's bucket from 1", ids=self.buckets + 1),)
        what = f"{' x '.join(self.columns) if self.cross else ', '.join(self.columns)} hashed"
        return tuple(
            Output(f"{self.name}__{bucket}", self.name, f"{what} into bucket {bucket}")
            for bucket in range(self.buckets)
        )

    def to_sql(self, steps: SqlSteps) -> list[str]:
        pairs = []
        for columns in self.tokens:
            token = f"concat({sql_text(_prefix(columns))}, {text_sql(columns)})"
            hashed = steps.add(0, f"CASE WHEN {token} IS NOT NULL THEN xxhash64({token}) END")
            bucket = steps.add(1, f"pmod({hashed}, {self.buckets}L)")
            pairs.append((bucket, sign_sql(hashed, self.signed)))
        if self.into == "id":
            return [f"CAST(coalesce({pairs[0][0]} + 1, {MISSING_ID}) AS INT)"]
        return [
            f"CAST({' + '.join(f'IF({at} <=> {bucket}L, {sign}, 0)' for at, sign in pairs)} AS FLOAT)"
            for bucket in range(self.buckets)
        ]

    def on_arrow(self) -> Encode:
        tokens = [(texts(columns), _prefix(columns)) for columns in self.tokens]

        def encode(rows: pa.Table) -> list[NDArray[np.generic]]:
            hashed = [hashes_of(texts_of(rows), prefix) for texts_of, prefix in tokens]
            if self.into == "id":
                [(hashes, is_missing)] = hashed
                return [np.where(is_missing, MISSING_ID, hashes % self.buckets + 1)]
            counts = np.zeros((rows.num_rows, self.buckets))
            for hashes, is_missing in hashed:
                at = (np.arange(rows.num_rows), hashes % self.buckets)
                np.add.at(counts, at, np.where(is_missing, 0.0, signs(hashes, self.signed)))
            return list(counts.T)

        return encode


def _prefix(columns: tuple[str, ...]) -> str:
    """Return what tells the values of these columns from equal ones of others."""
    return SEPARATOR.join(columns) + SEPARATOR


KIND = Kind(HashFeature, (Hashed,))
