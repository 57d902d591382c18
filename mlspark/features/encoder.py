"""The fitted encoder: a JSON file that says how a raw row becomes numbers. Runs anywhere; needs no Spark."""

import hashlib
import json
import math
import sys
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mlspark.errors import FeatureError
from mlspark.feature_settings import LabelSettings
from mlspark.features.layout import Layout

MISSING_ID = 0
UNSEEN_ID = 1
FIRST_ID = 2
SEPARATOR = "\u001f"
"""Between the values of a cross."""
LARGEST = 3.4028234663852886e38
"""Largest float32: numbers beyond become it, so that no output is infinite."""
_FORMAT: Literal[2] = 2

PERIODS = {
    "second": 60,
    "minute": 60,
    "hour": 24,
    "day_of_week": 7,
    "day_of_month": 31,
    "day_of_year": 366,
    "month": 12,
}
"""Part of a time -> how many values it has, counted from 0 (Monday, 1 January)."""


@dataclass(frozen=True)
class Output:
    """One number that a row becomes."""

    name: str
    """Of the table's column and of the place in a batch."""
    feature: str
    meaning: str
    """In words: what the number says of the row."""
    ids: int = 0
    """For an id: from 0 to ids - 1; 0: a float."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _Fitted(_Part):
    name: str
    """Of the feature."""


class NumberStatistics(_Part):
    """Of the training rows' values, after clip, log1p and power."""

    count: int
    """Rows with a value."""
    nulls: int
    mean: float
    std: float
    """Population standard deviation."""
    min: float
    max: float


class _FittedNumber(_Fitted):
    expression: str
    clip: tuple[float | None, float | None] = (None, None)
    log1p: bool = False
    power: float | None = None
    statistics: NumberStatistics


class Scaled(_FittedNumber):
    """(x - center) / scale."""

    kind: Literal["scaled"] = "scaled"
    center: float
    scale: float
    missing: float
    """What a missing value becomes."""
    indicator: bool

    @property
    def outputs(self) -> tuple[Output, ...]:
        return _with_indicator(self.name, f"{_chain(self)}, minus {self.center:g}, over {self.scale:g}", self.indicator)


class Ranked(_FittedNumber):
    """The share of training values below x, linear between knots."""

    kind: Literal["ranked"] = "ranked"
    knots: tuple[float, ...]
    """Ascending."""
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
        return _with_indicator(self.name, f"share of training rows whose {_chain(self)} is less", self.indicator)


class Bucketed(_FittedNumber):
    """How many edges are not above x."""

    kind: Literal["bucketed"] = "bucketed"
    edges: tuple[float, ...]
    into: Literal["id", "one_hot"]

    @property
    def outputs(self) -> tuple[Output, ...]:
        if self.into == "id":
            return (Output(self.name, self.name, "0 missing, then the bucket from 1", ids=len(self.edges) + 2),)
        names = [f"{self.name}__{place}" for place in range(len(self.edges) + 2)]
        bounds = ["-inf", *(f"{edge:g}" for edge in self.edges), "inf"]
        meanings = [
            "is missing",
            *(f"from {low} to below {high}" for low, high in pairwise(bounds)),
        ]
        return tuple(Output(name, self.name, meaning) for name, meaning in zip(names, meanings, strict=True))


class _FittedCategories(_Fitted):
    columns: tuple[str, ...]
    """One, or those of a cross."""
    values: tuple[str, ...]
    """Known values, sorted by code point."""
    counts: tuple[int, ...]
    """Training rows of each."""
    nulls: int
    """Training rows without a value."""
    rare: int
    """Training rows of other values: too few for each, or too many values."""

    def words(self, value: str) -> str:
        return f"{' x '.join(self.columns)} is {' x '.join(map(repr, value.split(SEPARATOR)))}"


class Indexed(_FittedCategories):
    """MISSING_ID, UNSEEN_ID, or FIRST_ID + the value's place in `values`."""

    kind: Literal["indexed"] = "indexed"

    @property
    def outputs(self) -> tuple[Output, ...]:
        meaning = f"{MISSING_ID} missing, {UNSEEN_ID} unseen, then the value's place from {FIRST_ID}"
        return (Output(self.name, self.name, meaning, ids=FIRST_ID + len(self.values)),)


class OneHot(_FittedCategories):
    """A float for each value, one for a missing value if there were any."""

    kind: Literal["one_hot"] = "one_hot"
    impute: str | None
    """Value that a missing one counts as."""
    has_missing: bool

    @property
    def outputs(self) -> tuple[Output, ...]:
        meanings = [self.words(value) for value in self.values]
        meanings += [f"{' x '.join(self.columns)} is missing"] if self.has_missing else []
        return tuple(Output(f"{self.name}__{place}", self.name, words) for place, words in enumerate(meanings))


class Looked(_FittedCategories):
    """A float for each value: target and frequency encoding."""

    kind: Literal["looked_up"] = "looked_up"
    what: Literal["target", "frequency"]
    numbers: tuple[float, ...]
    """Of each value."""
    missing: float
    unseen: float
    folds: int = 0
    """Of the training rows; 0: they are encoded like all others."""
    fold_numbers: tuple[tuple[float, ...], ...] = ()
    """Fold -> numbers for the training rows in it, from the other folds: of each value, then missing, then unseen."""

    @property
    def outputs(self) -> tuple[Output, ...]:
        what = "share of positive labels" if self.what == "target" else "share of the training rows"
        return (Output(self.name, self.name, f"{what} with the same {' x '.join(self.columns)}"),)


class Hashed(_Fitted):
    """Categories in buckets by their hash."""

    kind: Literal["hashed"] = "hashed"
    columns: tuple[str, ...]
    cross: bool
    buckets: int
    into: Literal["floats", "id"]
    signed: bool

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


class Ngrams(_Fitted):
    """Counts of character sequences in buckets by their hash."""

    kind: Literal["ngrams"] = "ngrams"
    column: str
    lengths: tuple[int, int]
    buckets: int
    signed: bool

    @property
    def outputs(self) -> tuple[Output, ...]:
        what = f"sequences of {self.lengths[0]} to {self.lengths[1]} characters of {self.column}"
        return tuple(
            Output(f"{self.name}__{bucket}", self.name, f"{what} in bucket {bucket}") for bucket in range(self.buckets)
        )


class Cyclic(_Fitted):
    """Sine and cosine of 2 pi part / period."""

    kind: Literal["cyclic"] = "cyclic"
    column: str
    parts: tuple[str, ...]

    @property
    def outputs(self) -> tuple[Output, ...]:
        return tuple(
            Output(f"{self.name}__{part}_{function}", self.name, f"{function} of the {part} of {self.column}")
            for part in self.parts
            for function in ("sin", "cos")
        )


class Vector(_Fitted):
    """The floats of an array."""

    kind: Literal["vector"] = "vector"
    column: str
    size: int
    indicator: bool

    @property
    def outputs(self) -> tuple[Output, ...]:
        places = tuple(Output(f"{self.name}__{i}", self.name, f"{self.column}[{i}]") for i in range(self.size))
        return (*places, _indicator(self.name)) if self.indicator else places


Fitted = Annotated[
    Scaled | Ranked | Bucketed | Indexed | OneHot | Looked | Hashed | Ngrams | Cyclic | Vector,
    Field(discriminator="kind"),
]
Numeric = Scaled | Ranked | Bucketed
Categorical = Indexed | OneHot | Looked


class Encoder(_Part):
    """All that is fitted for one pipeline."""

    format: Literal[2] = _FORMAT
    pipeline: str
    label: LabelSettings
    rows: int
    """Training rows it was fitted on."""
    positive: int
    """Of them, those with a positive label."""
    inputs: dict[str, str]
    """Columns that a row needs -> their Spark types."""
    features: tuple[Fitted, ...]

    @property
    def outputs(self) -> tuple[Output, ...]:
        """Every number that a row becomes, features in order."""
        return tuple(output for feature in self.features for output in feature.outputs)

    @property
    def layout(self) -> Layout:
        """The order of the encoded columns in a batch: `outputs` that are floats, and those that are ids."""
        ids = [output for output in self.outputs if output.ids]
        return Layout(
            dense=tuple(output.name for output in self.outputs if not output.ids),
            categorical=tuple(output.name for output in ids),
            cardinalities=tuple(output.ids for output in ids),
        )

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the JSON form."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        return self.model_dump(mode="json")

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Encoder":
        """Return the encoder of a JSON form.

        Raises:
            FeatureError: written by another version of mlspark, or not an encoder.
        """
        if value.get("format") != _FORMAT:
            raise FeatureError(f"encoder of format {value.get('format')}, expected {_FORMAT}; prepare the table anew")
        try:
            return cls.model_validate_json(json.dumps(value))
        except ValidationError as error:
            raise FeatureError(f"not an encoder: {error.errors()[0]['msg']}; prepare the table anew") from None


def circle(part: str, function: Callable[[float], float]) -> list[float]:
    """Return sine or cosine of each value of a part of a time: a table, so that all who look it up get the same bits."""
    return [function(2.0 * math.pi * value / PERIODS[part]) for value in range(PERIODS[part])]


def _chain(fitted: _FittedNumber) -> str:
    """Return in words what happens to a number before it is scaled."""
    low, high = fitted.clip
    words = fitted.expression
    if low is not None or high is not None:
        words = (
            f"{words} clipped to [{'-inf' if low is None else f'{low:g}'}, {'inf' if high is None else f'{high:g}'}]"
        )
    words = f"log(1 + {words})" if fitted.log1p else words
    return f"({words}) ^ {fitted.power:g}" if fitted.power is not None else words


def _with_indicator(name: str, meaning: str, indicator: bool) -> tuple[Output, ...]:
    output = Output(name, name, meaning)
    return (output, _indicator(name)) if indicator else (output,)


def _indicator(name: str) -> Output:
    return Output(f"{name}__is_missing", name, "1 where the value is missing")
