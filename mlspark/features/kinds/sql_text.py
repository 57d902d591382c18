"""SQL of features: literals, clamped floats, and the columns that outputs are computed from. Runs anywhere."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mlspark.contracts.own_columns import PREFIX
from mlspark.sql_literals import sql_double, sql_text

LARGEST = 3.4028234663852886e38
"""Largest float32: numbers beyond become it, so that no output is infinite."""


@dataclass(frozen=True)
class SqlSteps:
    """The columns that outputs are computed from, each as SQL, in steps that build on each other."""

    inputs: Mapping[str, str]
    """Raw column -> its Spark type."""
    row_hash: str
    """Column by which rows were put into folds."""
    is_training: str | None = None
    """SQL condition of the rows that the encoder was fitted on; None: no row is one."""
    steps: tuple[dict[str, str], ...] = field(default_factory=lambda: ({}, {}, {}, {}))
    """SQL, over the raw columns and those of earlier steps -> the new column."""

    def add(self, step: int, sql: str) -> str:
        """Compute `sql` once, as a column of a step, and return the column as SQL."""
        columns = self.steps[step]
        # By number: names made of those of features and columns would meet (a cross of a and b, and a column a_x_b).
        return f"`{columns.setdefault(sql, f'{PREFIX}step{step}_{len(columns)}')}`"


def array(items: Sequence[object], kind: str) -> str:
    """Return SQL of an array literal: one text that Spark parses once, when it plans."""
    return f"from_json({sql_text(json.dumps(list(items)))}, 'array<{kind}>')"


def clamped(sql: str) -> str:
    """Return SQL of the float nearest to a double, the largest where it is beyond."""
    return f"CAST(greatest(least({sql}, {sql_double(LARGEST)}), {sql_double(-LARGEST)}) AS FLOAT)"
