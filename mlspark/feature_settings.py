"""What raw columns become, as declared under `features` in a pipeline's YAML. Runs anywhere."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

_NAME = r"^[A-Za-z][A-Za-z0-9_]*$"


class Section(BaseModel):
    """A group of settings: immutable, unknown keys refused, no silent conversion between types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)


class LabelSettings(Section):
    column: str
    """Column of the contract that is predicted."""
    positive: Annotated[tuple[str, ...], Field(min_length=1)]
    """Values that mean 1."""
    negative: Annotated[tuple[str, ...], Field(min_length=1)]
    """Values that mean 0."""


class _Feature(Section):
    columns: tuple[str, ...] = ()
    """Each becomes a feature of its own, called like the column."""
    name: Annotated[str, Field(pattern=_NAME)] | None = None
    """What to call the feature, if there is one only."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the features that this entry declares."""
        return (self.name,) if self.name else self.columns

    def _check_name(self, instead: str, given: bool) -> None:
        if bool(self.columns) == given:
            raise ValueError(f"give either columns or {instead}" if instead else "columns: missing")
        if given and not self.name:
            raise ValueError(f"{instead} needs a name")
        if self.name and len(self.columns) > 1:
            raise ValueError(f"name {self.name}: is for one column, these are {len(self.columns)}")


class _Columns(_Feature):
    @model_validator(mode="after")
    def _has_columns(self) -> "_Columns":
        self._check_name("", False)
        return self


class _Numbers(_Feature):
    columns: tuple[str, ...] = ()
    """Columns of numbers or booleans; each becomes a feature of its own, called like the column."""
    expression: str = ""
    """Instead of `columns`: arithmetic of columns with + - * / ( ), length(TEXT), days(DATE). What has no value, or no
    finite one, is missing."""

    @model_validator(mode="after")
    def _is_one_of_both(self) -> "_Numbers":
        self._check_name("expression", bool(self.expression))
        return self


class NumberFeature(_Numbers):
    """One float for each number: clip, then log1p or power, then the scale that is fitted on the training values."""

    kind: Literal["number"]
    clip: tuple[float | None, float | None] = (None, None)
    """Lowest and highest value; what is beyond becomes the bound."""
    log1p: bool = False
    """Take log(1 + x), for amounts with a long tail; values below 0 count as 0."""
    power: Annotated[float, Field(gt=0.0)] | None = None
    """Raise the absolute value to this power, and keep the sign."""
    scale: Literal["standard", "min_max", "robust", "quantile", "none"] = "standard"
    """standard: mean 0, standard deviation 1. min_max: from 0 to 1. robust: median 0, distance of the quartiles 1.
    quantile: the share of training values below, from 0 to 1."""
    knots: Annotated[int, Field(ge=2, le=1000)] = 100
    """Of the scale `quantile`, between which it is linear."""
    impute: Literal["mean", "median", "mode", "constant"] = "mean"
    """What a missing value counts as: a statistic of the training values, or `fill`."""
    fill: float = 0.0
    """With impute: constant; before clip, log1p, power and scale."""
    indicator: bool = False
    """A second float that is 1 where the value is missing."""
    exact: bool = False
    """Exact quantiles instead of those of values rounded to 11 significant bits (an error of at most 0.05 %)."""

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


class BucketsFeature(_Numbers):
    """A number becomes the number of edges that are not above it."""

    kind: Literal["buckets"]
    edges: tuple[float, ...] = ()
    """Bounds between buckets, ascending."""
    quantiles: Annotated[int, Field(ge=2, le=1000)] | None = None
    """Instead of `edges`: so many buckets with as equal numbers of training rows as there can be."""
    into: Literal["id", "one_hot"] = "id"
    """id: 0 missing, then from 1 the buckets, for an embedding. one_hot: a float for each, and one for missing."""
    exact: bool = False
    """See the feature `number`."""

    @model_validator(mode="after")
    def _is_consistent(self) -> "BucketsFeature":
        if bool(self.edges) == (self.quantiles is not None):
            raise ValueError("give either edges or quantiles")
        if list(self.edges) != sorted(set(self.edges)):
            raise ValueError("edges: must ascend")
        return self


class _Categories(_Feature):
    columns: tuple[str, ...] = ()
    """Columns of text, whole numbers, booleans or dates; each becomes a feature of its own, called like the column."""
    cross: tuple[str, ...] = ()
    """Instead of `columns`: columns whose values together are one category, which is missing when one of them is."""
    min_count: Annotated[int, Field(ge=1)] = 1
    """Training rows a category needs to be known; rarer ones count as unseen."""
    max_values: Annotated[int, Field(ge=1, le=1_000_000)] = 100_000
    """Most categories to know: the commonest, and a warning says how many others there are. The driver holds them all."""

    @model_validator(mode="after")
    def _is_one_of_both(self) -> "_Categories":
        self._check_name("cross", bool(self.cross))
        if len(self.cross) == 1:
            raise ValueError("cross: needs two or more columns")
        return self


class IndexFeature(_Categories):
    """An id for an embedding: 0 missing, 1 unseen, then the known categories in the order of their code points."""

    kind: Literal["index"]


class OneHotFeature(_Categories):
    """A float for each known category, which is 1 where the value is it; all are 0 for an unseen one."""

    kind: Literal["one_hot"]
    max_values: Annotated[int, Field(ge=1, le=2000)] = 100
    """Most categories to know: the commonest, and a warning says how many others there are."""
    impute: Literal["own", "mode"] = "own"
    """Missing values: a float of their own, if the training rows have any; or the commonest category."""


class TargetFeature(_Categories):
    """One float: the share of positive labels among the training rows of the category, shrunk towards that of all.

    A training row is not counted for its own encoding: it gets the share in the folds that it is not in.
    """

    kind: Literal["target"]
    smooth: Annotated[float, Field(ge=0.0)] | Literal["auto"] = "auto"
    """Rows that the share of all counts as; auto: empirical Bayes, as scikit-learn's TargetEncoder has it."""
    folds: Annotated[int, Field(ge=2, le=100)] = 5


class FrequencyFeature(_Categories):
    """One float: the category's share of the training rows; 0 for an unseen one."""

    kind: Literal["frequency"]


class HashFeature(Section):
    """Categories without a list of them: a hash decides the place. Nothing is fitted."""

    kind: Literal["hash"]
    columns: Annotated[tuple[str, ...], Field(min_length=1)]
    """Columns of text, whole numbers, booleans or dates. They share the buckets when `into` is floats."""
    cross: bool = False
    """Hash their values together, as one category."""
    name: Annotated[str, Field(pattern=_NAME)]
    buckets: Annotated[int, Field(ge=1, le=10_000_000)]
    into: Literal["floats", "id"] = "floats"
    """floats: one for each bucket, in which each category counts. id: one for an embedding: 0 missing, then the buckets."""
    signed: bool = True
    """Half of the categories count as -1, so that those of a bucket cancel out rather than add up."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the features that this entry declares."""
        return (self.name,)

    @model_validator(mode="after")
    def _is_consistent(self) -> "HashFeature":
        if self.into == "id" and len(self.columns) > 1 and not self.cross:
            raise ValueError("into: id needs one column, or cross: true")
        if self.into == "floats" and self.buckets > _MOST_FLOATS:
            raise ValueError(f"buckets: at most {_MOST_FLOATS} with into: floats")
        return self


class NgramsFeature(_Columns):
    """Counts of a text's character sequences, in buckets by their hash. Nothing is fitted; a missing text has none."""

    kind: Literal["ngrams"]
    lengths: tuple[Annotated[int, Field(ge=1, le=10)], Annotated[int, Field(ge=1, le=10)]] = (2, 3)
    """Characters of the shortest and the longest."""
    buckets: Annotated[int, Field(ge=1, le=2000)] = 32
    signed: bool = True
    """See the feature `hash`."""

    @model_validator(mode="after")
    def _is_consistent(self) -> "NgramsFeature":
        if self.lengths[0] > self.lengths[1]:
            raise ValueError(f"lengths: {self.lengths[0]} is more than {self.lengths[1]}")
        return self


class CyclicFeature(_Columns):
    """Sine and cosine of parts of a date or time (UTC), so that December is next to January; 0 and 0 where missing."""

    kind: Literal["cyclic"]
    parts: Annotated[
        tuple[Literal["second", "minute", "hour", "day_of_week", "day_of_month", "day_of_year", "month"], ...],
        Field(min_length=1),
    ]


class VectorFeature(_Columns):
    """An array of a fixed number of floats as it is; zeros where it is missing."""

    kind: Literal["vector"]
    size: Annotated[int, Field(ge=1, le=2000)]
    indicator: bool = False
    """A further float that is 1 where the array is missing."""


_MOST_FLOATS = 2000

FeatureSettings = Annotated[
    NumberFeature
    | BucketsFeature
    | IndexFeature
    | OneHotFeature
    | TargetFeature
    | FrequencyFeature
    | HashFeature
    | NgramsFeature
    | CyclicFeature
    | VectorFeature,
    Field(discriminator="kind"),
]


FEATURE_KINDS = (
    "number", "buckets", "index", "one_hot", "target", "frequency", "hash", "ngrams", "cyclic", "vector"
)  # fmt: skip


class FeaturesSettings(Section):
    label: LabelSettings
    inputs: Annotated[tuple[FeatureSettings, ...], Field(min_length=1)]
    """What the model sees, in this order: floats in one block, ids in another."""

    @model_validator(mode="after")
    def _names_are_unique(self) -> "FeaturesSettings":
        names = [name for entry in self.inputs for name in entry.names]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"inputs: features of the same name: {', '.join(twice)}; give one of them another `name`")
        return self
