"""What the kinds share that look up a float for each category. Runs anywhere."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mlspark.features.counts import fold
from mlspark.features.kinds.categories import FittedCategories
from mlspark.features.kinds.kind import Encode
from mlspark.features.kinds.sql_text import SqlSteps, array

Row = Sequence[float]
"""Floats of each known value, then of a missing one, then of an unseen one."""


class LookedUp(FittedCategories):
    """A float for each value; `what` says which kind declared it."""

    kind: str
    what: str
    numbers: tuple[float, ...]
    """Float of each value."""
    missing: float
    unseen: float
    folds: int = 0
    """Number of folds of the training rows; 0: they are encoded like all others."""
    fold_numbers: tuple[tuple[float, ...], ...] = ()
    """Fold -> numbers for the training rows in it, from the other folds: of each value, then missing, then unseen."""

    @property
    def row(self) -> Row:
        return (*self.numbers, self.missing, self.unseen)

    def to_sql(self, steps: SqlSteps) -> list[str]:
        return [looked_up_sql(self, steps, self.row, self.fold_numbers)]

    def on_arrow(self) -> Encode:
        return looked_up(self, [self.row])


def looked_up_sql(categories: FittedCategories, steps: SqlSteps, row: Row, fold_rows: Sequence[Row]) -> str:
    """Return SQL of the value's float; of a training row that of its fold, where there are folds."""
    place, table = categories.place_sql(steps)
    has_folds = steps.is_training is not None and len(fold_rows) > 0
    rows = [*fold_rows, row] if has_folds else [row]
    placed = [[0.0] * (table.size + 2) for _ in rows]
    for slots, numbers in zip(placed, rows, strict=True):
        for slot, number in zip((*table.places, table.size, table.size + 1), numbers, strict=True):
            slots[slot] = number
    known = categories.is_known_sql(steps, place, table)
    at = f"IF({categories.is_missing_sql(steps)}, {table.size}, IF({known}, {place}, {table.size + 1}))"
    if has_folds:
        num_folds = len(fold_rows)
        row_fold = f"CASE WHEN {steps.is_training} THEN {fold(steps.row_hash, num_folds)} ELSE {num_folds} END"
        at = f"{at} + {row_fold} * {table.size + 2}"
    return f"CAST(get({array([number for slots in placed for number in slots], 'double')}, {at}) AS FLOAT)"


def looked_up(categories: FittedCategories, rows: Sequence[Row]) -> Encode:
    """Return the function that looks up the value's float in each of `rows`, one output for each."""
    places_of, missing, unseen = categories.places(), len(categories.values), len(categories.values) + 1
    # `places` has unseen before missing.
    tables = [np.array([*row[:missing], row[unseen], row[missing]]) for row in rows]

    def encode(raw: pa.Table) -> list[NDArray[np.generic]]:
        place = places_of(raw)
        return [table[place] for table in tables]

    return encode
