"""The kind `as_is`: a column that is a model's input already, a float or an id. Runs anywhere."""

from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, model_validator

from mlspark import sql_literals
from mlspark.contracts.contract import ColumnRule
from mlspark.contracts.expressions import doubles
from mlspark.errors import FeatureError
from mlspark.features.counts import Counts
from mlspark.features.kinds import sql_text
from mlspark.features.kinds.kind import NUMBER, Declared, Encode, Fitted, Kind, Output, Use
from mlspark.features.kinds.numbers import clamped
from mlspark.features.kinds.sql_text import SqlSteps
from mlspark.tasks.task import Task

_WHOLE = ("tinyint", "smallint", "int", "bigint")


class AsIsFeature(Declared):
    """A number as it is, for columns that were made into features elsewhere; nothing is fitted."""

    kind: Literal["as_is"]
    ids: Annotated[int, Field(ge=0)] = 0
    """Number of ids, for an embedding, where the column holds whole numbers from 0 on; 0: it holds floats."""

    @model_validator(mode="after")
    def _has_columns(self) -> "AsIsFeature":
        self.check_name("", False)
        return self

    @property
    def uses(self) -> dict[str, Use]:
        return dict.fromkeys(self.columns, NUMBER)

    def column_problems(self, rule: ColumnRule) -> list[str]:
        problems = ['the contract must give it "nullable": false, as nothing stands for a missing value']
        if not rule.nullable:
            problems = []
        if self.ids and not rule.type.startswith(_WHOLE):
            problems.append(
                f"ids are whole numbers, the contract must give it the type int or bigint, it gives {rule.type}"
            )
        if self.ids and (rule.min, rule.max) != (0, self.ids - 1):
            problems.append(
                f"the contract must give it min 0 and max {self.ids - 1}, it gives {rule.min} and {rule.max}"
            )
        return problems

    def fitted(self, name: str, source: tuple[str, ...], counts: Counts, task: Task) -> "AsIs":
        return AsIs(name=name, column=source[0], ids=self.ids)


class AsIs(Fitted):
    """The value of a column."""

    kind: Literal["as_is"] = "as_is"
    column: str
    ids: int

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.column,)

    @property
    def outputs(self) -> tuple[Output, ...]:
        return (Output(self.name, self.name, f"{self.column} as it is", ids=self.ids),)

    @property
    def _missing(self) -> str:
        return f"{self.name}: column {self.column} is missing in a row, and nothing stands for that in kind as_is"

    def to_sql(self, steps: SqlSteps) -> list[str]:
        value = f"coalesce(`{self.column}`, raise_error({sql_literals.sql_text(self._missing)}))"
        return [f"CAST({value} AS INT)" if self.ids else sql_text.clamped(f"CAST({value} AS DOUBLE)")]

    def on_arrow(self) -> Encode:
        def encode(rows: pa.Table) -> list[NDArray[np.generic]]:
            column = rows.column(self.column)
            if column.null_count:
                raise FeatureError(self._missing)
            return [column.cast(pa.int64()).to_numpy() if self.ids else clamped(doubles(column))]

        return encode


KIND = Kind(AsIsFeature, (AsIs,))
