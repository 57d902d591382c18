"""The kind `index`: an id for an embedding. Runs anywhere."""

from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mlspark.features.counts import Counts
from mlspark.features.kinds.categories import (
    FIRST_ID,
    MISSING_ID,
    SEPARATOR,
    UNSEEN_ID,
    DeclaredCategories,
    FittedCategories,
    known_values,
)
from mlspark.features.kinds.kind import Encode, Kind, Output
from mlspark.features.kinds.sql_text import SqlSteps
from mlspark.tasks.task import Task


class IndexFeature(DeclaredCategories):
    """An id for an embedding: 0 missing, 1 unseen, then the known categories in the order of their code points."""

    kind: Literal["index"]

    def fitted(self, name: str, source: tuple[str, ...], counts: Counts, task: Task) -> "Indexed":
        return Indexed(**known_values(name, source, counts.texts[name]))


class Indexed(FittedCategories):
    """MISSING_ID, UNSEEN_ID, or FIRST_ID + the value's place in `values`."""

    kind: Literal["indexed"] = "indexed"

    @property
    def outputs(self) -> tuple[Output, ...]:
        meaning = f"{MISSING_ID} missing, {UNSEEN_ID} unseen, then the value's place from {FIRST_ID}"
        return (Output(self.name, self.name, meaning, ids=FIRST_ID + len(self.values)),)

    def words_of(self, place: int, number: float) -> str:
        """Return the category that an id stands for: "6 = Private"."""
        known = {MISSING_ID: "missing", UNSEEN_ID: "unseen"}
        at = int(number)
        value = known[at] if at in known else " x ".join(self.values[at - FIRST_ID].split(SEPARATOR))
        return f"{at} = {value}"

    def to_sql(self, steps: SqlSteps) -> list[str]:
        ids = range(FIRST_ID, FIRST_ID + len(self.values))
        return [self.id_sql(steps, ids, missing=MISSING_ID, unseen=UNSEEN_ID)]

    def on_arrow(self) -> Encode:
        places_of = self.places()
        ids = np.array([*range(FIRST_ID, FIRST_ID + len(self.values)), UNSEEN_ID, MISSING_ID])

        def encode(rows: pa.Table) -> list[NDArray[np.generic]]:
            return [ids[places_of(rows)]]

        return encode


KIND = Kind(IndexFeature, (Indexed,))
