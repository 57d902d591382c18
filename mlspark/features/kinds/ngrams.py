"""The kind `ngrams`: counts of a text's character sequences, in buckets by their hash. Runs anywhere."""

from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, model_validator

from mlspark.features import hashing
from mlspark.features.counts import Counts
from mlspark.features.kinds.hashed_places import MOST_FLOATS, sign_sql, signs
from mlspark.features.kinds.kind import TEXT, Declared, Encode, Fitted, Floats, Kind, Output, Use
from mlspark.features.kinds.sql_text import SqlSteps
from mlspark.tasks.task import Task


class NgramsFeature(Declared):
    """Counts of a text's character sequences, in buckets by their hash. Nothing is fitted; a missing text has none."""

    kind: Literal["ngrams"]
    lengths: tuple[Annotated[int, Field(ge=1, le=10)], Annotated[int, Field(ge=1, le=10)]] = (2, 3)
    """Characters of the shortest and the longest n-gram."""
    buckets: Annotated[int, Field(ge=1, le=MOST_FLOATS)] = 32
    signed: bool = True
    """Whether half of the n-grams count as -1, so that those of a bucket cancel out rather than add up."""

    @model_validator(mode="after")
    def _is_consistent(self) -> "NgramsFeature":
        self.check_name("", False)
        if self.lengths[0] > self.lengths[1]:
            raise ValueError(f"lengths: {self.lengths[0]} is more than {self.lengths[1]}")
        return self

    @property
    def uses(self) -> dict[str, Use]:
        return dict.fromkeys(self.columns, TEXT)

    def fitted(self, name: str, source: tuple[str, ...], counts: Counts, task: Task) -> "Ngrams":
        return Ngrams(name=name, column=source[0], lengths=self.lengths, buckets=self.buckets, signed=self.signed)


class Ngrams(Fitted):
    """Counts of character sequences in buckets by their hash."""

    kind: Literal["ngrams"] = "ngrams"
    column: str
    lengths: tuple[int, int]
    buckets: int
    signed: bool

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.column,)

    @property
    def outputs(self) -> tuple[Output, ...]:
        what = f"sequences of {self.lengths[0]} to {self.lengths[1]} characters of {self.column}"
        return tuple(
            Output(f"{self.name}__{bucket}", self.name, f"{what} in bucket {bucket}") for bucket in range(self.buckets)
        )

    def to_sql(self, steps: SqlSteps) -> list[str]:
        column = f"`{self.column}`"
        grams = [
            f"IF(char_length({column}) >= {size}, "
            f"transform(sequence(1, greatest(char_length({column}) - {size - 1}, 1)), "
            f"at -> xxhash64(substring({column}, at, {size}))), CAST(array() AS ARRAY<BIGINT>))"
            for size in range(self.lengths[0], self.lengths[1] + 1)
        ]
        hashes = steps.add(0, f"CASE WHEN {column} IS NOT NULL THEN concat({', '.join(grams)}) END")
        # One number for bucket and sign together.
        signed = f"transform({hashes}, h -> (pmod(h, {self.buckets}L) + 1) * {sign_sql('h', self.signed)})"
        places = steps.add(1, signed)
        counted = "size(filter({0}, at -> at = {1}))"
        return [
            f"CAST(coalesce({counted.format(places, bucket + 1)}"
            f"{f' - {counted.format(places, -bucket - 1)}' if self.signed else ''}, 0) AS FLOAT)"
            for bucket in range(self.buckets)
        ]

    def on_arrow(self) -> Encode:
        def encode(rows: pa.Table) -> list[NDArray[np.generic]]:
            texts = rows.column(self.column).to_pylist()
            counts = np.zeros((len(texts), self.buckets))
            for row, text in enumerate(texts):
                if text:
                    counts[row] = self._counts(text)
            return list(counts.T)

        return encode

    def _counts(self, text: str) -> Floats:
        """Return the outputs of one text (buckets,)."""
        shortest, longest = self.lengths
        grams = [text[at : at + n] for n in range(shortest, longest + 1) for at in range(len(text) - n + 1)]
        hashes = hashing.xxhash64(grams)
        weights = signs(hashes, self.signed)
        return np.asarray(np.bincount(hashes % self.buckets, weights=weights, minlength=self.buckets), np.float64)


KIND = Kind(NgramsFeature, (Ngrams,))
