"""What every kind of feature has: its declaration in YAML, and the fitted feature in SQL, on Arrow and in words."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from mlspark.contracts.contract import ColumnRule
from mlspark.features.counts import Counts, Number, Sums, Text
from mlspark.features.kinds.sql_text import SqlSteps
from mlspark.pictures.spec import PictureSpec
from mlspark.section import Section
from mlspark.tasks.task import Task

FeatureName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]
Floats = NDArray[np.float64]
Encode = Callable[[pa.Table], list[NDArray[np.generic]]]
"""Function that returns a feature's outputs of conformed rows: float64 that fit a float32, booleans or ids, each (n,), or
pictures (n, C, H, W) uint8."""


@dataclass(frozen=True)
class Use:
    """What a feature does with a column, and therefore which types it may have."""

    types: tuple[str, ...]
    """Beginnings of the Spark types that are accepted."""
    words: str


NUMBER = Use(("tinyint", "smallint", "int", "bigint", "float", "double", "boolean", "decimal"), "a number or boolean")
CATEGORY = Use(
    ("string", "tinyint", "smallint", "int", "bigint", "boolean", "date"), "text, a whole number, boolean or date"
)
TEXT = Use(("string",), "text")
TIME = Use(("date", "timestamp"), "a date or timestamp")
VECTOR = Use(("array",), "an array")
PICTURE = Use(("binary",), "a picture: binary")


@dataclass(frozen=True)
class Output:
    """One number, or one picture, that a row becomes."""

    name: str
    """Name of the table's column and of the position in a batch."""
    feature: str
    meaning: str
    """What the number says of the row, in words."""
    ids: int = 0
    """Number of ids, which run from 0 to ids - 1; 0: the output is a float or a picture."""
    picture: PictureSpec | None = None
    """What its pictures are; None: the output is a number."""

    @property
    def tensor(self) -> str:
        """Name of the tensor that it stands in."""
        if self.picture is not None:
            return self.feature
        return "ids" if self.ids else "dense"


class Part(BaseModel):
    """Part of the fitted state: immutable, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Fitted(Part):
    """A feature that is fitted: everything needed to encode a row. Each class has a field `kind` of its own."""

    name: str
    """Name of the feature."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """The raw columns that the feature uses."""
        raise NotImplementedError

    @property
    def outputs(self) -> tuple[Output, ...]:
        """The numbers that a row becomes, in order."""
        raise NotImplementedError

    @property
    def stays_on_spark(self) -> bool:
        """Whether Spark encodes the rows that it reads even when they are scored, which happens in Python."""
        return False

    def words_of(self, place: int, number: float) -> str:
        """Return what the output at `place` says of a row when it is `number`."""
        return self.outputs[place].meaning

    def to_sql(self, steps: SqlSteps) -> list[str]:
        """Return SQL of each output, never null; adds to `steps` what they are computed from.

        A float, an int for ids, or the bytes of a picture as `PictureSpec.store` says.
        """
        raise NotImplementedError

    def on_arrow(self) -> Encode:
        """Return the function that encodes rows in memory, with the same bits as `to_sql`."""
        raise NotImplementedError


class Declared(Section):
    """An entry of `features.inputs`. It declares one feature, or one for each of its columns."""

    kind: str
    columns: tuple[str, ...] = ()
    """Columns of which each becomes a feature of its own, called like the column."""
    name: FeatureName | None = None
    """Name of the feature, where the entry declares one only."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the features that this entry declares."""
        return (self.name,) if self.name else self.columns

    @property
    def sources(self) -> tuple[tuple[str, ...], ...]:
        """What each of the entry's features is made of, in the order of `names`: columns, or an expression."""
        return tuple((column,) for column in self.columns)

    @property
    def features(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """(name, source) of each feature that this entry declares."""
        return tuple(zip(self.names, self.sources, strict=True))

    @property
    def uses(self) -> dict[str, Use]:
        """The columns that the features use, and how.

        Raises:
            FeatureError: an expression cannot be parsed.
        """
        raise NotImplementedError

    def column_problems(self, rule: ColumnRule) -> list[str]:
        """Return what is wrong with the contract's rule of one of the columns, besides its type."""
        return []

    def column_warnings(self, rule: ColumnRule) -> list[str]:
        """Return what is useless about one of the columns, given the contract's rule of it."""
        if getattr(self, "indicator", False) and not rule.nullable:
            return ["indicator: true, but the contract says that it is never missing: a column of zeros; leave it out"]
        return []

    def task_problems(self, task: Task) -> list[str]:
        """Return why the features cannot be fitted for this task."""
        return []

    def question(self, source: tuple[str, ...], types: Mapping[str, str]) -> Number | Text | Sums | None:
        """Return what has to be counted of the training rows for the feature made of `source`; None: nothing.

        Args:
            source: one of `sources`.
            types: columns of the rows -> their Spark types.
        """
        return None

    def fitted(self, name: str, source: tuple[str, ...], counts: Counts, task: Task) -> Fitted:
        """Return the fitted feature `name`, made of `source`.

        Args:
            name: one of `names`; the answer to its question has this name in `counts`.
            source: the one of `sources` in the same place.
            counts: of the training rows.
            task: resolved on the training rows; where it has classes, `counts.events` are its `events`.
        """
        raise NotImplementedError

    def check_name(self, alternative: str, is_set: bool) -> None:
        """Raise ValueError unless the entry gives either columns or `alternative` with a name."""
        if bool(self.columns) == is_set:
            raise ValueError(f"give either columns or {alternative}" if alternative else "columns: missing")
        if is_set and not self.name:
            raise ValueError(f"{alternative} needs a name")
        if self.name and len(self.columns) > 1:
            raise ValueError(f"name {self.name}: is for one column, these are {len(self.columns)}")


@dataclass(frozen=True)
class Kind:
    """One kind of feature: what is declared, and what that may become when it is fitted."""

    declared: type[Declared]
    fitted: tuple[type[Fitted], ...]


def indicator(name: str) -> Output:
    """Return the output that says whether the value is missing."""
    return Output(f"{name}__is_missing", name, "1 where the value is missing")


def indicator_sql(value: str) -> str:
    """Return SQL of whether a value is missing, as a float."""
    return f"CAST({value} IS NULL AS FLOAT)"
