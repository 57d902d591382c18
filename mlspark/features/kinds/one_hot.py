"""The kind `one_hot`: a float for each known category. Runs anywhere."""

from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from mlspark.features.counts import Counts
from mlspark.features.kinds.categories import DeclaredCategories, FittedCategories, known_values, safe_names
from mlspark.features.kinds.kind import Encode, Kind, Output
from mlspark.features.kinds.sql_text import SqlSteps
from mlspark.tasks.task import Task


class OneHotFeature(DeclaredCategories):
    """A float for each known category, which is 1 where the value is it; all are 0 for an unseen one."""

    kind: Literal["one_hot"]
    max_values: Annotated[int, Field(ge=1, le=2000)] = 100
    """Most categories that are known, the commonest ones; a warning counts the others."""
    impute: Literal["own", "mode"] = "own"
    """What a missing value becomes. own: a float of its own, if the training rows have any. mode: the commonest category."""

    def fitted(self, name: str, source: tuple[str, ...], counts: Counts, task: Task) -> "OneHot":
        rows = counts.texts[name].values
        # max keeps the first of several.
        commonest = max(rows, key=rows.__getitem__, default=None) if self.impute == "mode" else None
        known = known_values(name, source, counts.texts[name])
        return OneHot(**known, impute=commonest, has_missing=commonest is None and known["nulls"] > 0)


class OneHot(FittedCategories):
    """A float for each value, one for a missing value if there were any."""

    kind: Literal["one_hot"] = "one_hot"
    impute: str | None
    """Value as which a missing one counts; None: it has a float of its own or none."""
    has_missing: bool

    @property
    def outputs(self) -> tuple[Output, ...]:
        meanings = [self.value_words(value) for value in self.values]
        meanings += [f"{self.source_words} is missing"] if self.has_missing else []
        names = [f"{self.name}__{name}" for name in safe_names(self.values)]
        names += [f"{self.name}__is_missing"] if self.has_missing else []
        return tuple(Output(name, self.name, words) for name, words in zip(names, meanings, strict=True))

    def to_sql(self, steps: SqlSteps) -> list[str]:
        num_known = len(self.values)
        missing = num_known if self.impute is None else self.values.index(self.impute)
        sql = self.id_sql(steps, range(num_known), missing=missing, unseen=-1)
        # Never null, which Spark cannot see: each of the outputs would ask again.
        place = steps.add(1, f"coalesce({sql}, -1)")
        return [f"CAST({place} = {i} AS FLOAT)" for i in range(len(self.outputs))]

    def on_arrow(self) -> Encode:
        places_of, num_known = self.places(), len(self.values)

        def encode(rows: pa.Table) -> list[NDArray[np.generic]]:
            place = places_of(rows)
            is_missing = place == num_known + 1
            if self.impute is not None:
                place = np.where(is_missing, self.values.index(self.impute), place)
            return [*(place == at for at in range(num_known)), *([is_missing] if self.has_missing else [])]

        return encode


KIND = Kind(OneHotFeature, (OneHot,))
