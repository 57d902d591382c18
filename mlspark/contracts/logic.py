"""Truth of rows with missing values: and, or, not, is missing, in SQL and on Arrow alike. Runs anywhere."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Protocol

import numpy as np
import pyarrow as pa
from pyarrow import compute as pc

from mlspark.contracts.expressions import Expression


class Node(Protocol):
    """A part of a condition."""

    def sql(self) -> str:
        """Return SQL of type boolean, in ( ) where that is needed."""

    def evaluate(self, rows: pa.Table) -> pa.BooleanArray:
        """Return its truth (n,)."""


def flat(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return a column as one array."""
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values


@dataclass(frozen=True)
class Truth:
    """A boolean column, by its SQL."""

    name: str

    def sql(self) -> str:
        return self.name

    def evaluate(self, rows: pa.Table) -> pa.BooleanArray:
        return flat(rows.column(self.name.strip("`")))


@dataclass(frozen=True)
class And:
    """All parts hold."""

    parts: tuple[Node, ...]

    def sql(self) -> str:
        return _joined(self.parts, "AND")

    def evaluate(self, rows: pa.Table) -> pa.BooleanArray:
        return _folded(self.parts, rows, pc.and_kleene)


@dataclass(frozen=True)
class Or:
    """A part holds."""

    parts: tuple[Node, ...]

    def sql(self) -> str:
        return _joined(self.parts, "OR")

    def evaluate(self, rows: pa.Table) -> pa.BooleanArray:
        return _folded(self.parts, rows, pc.or_kleene)


@dataclass(frozen=True)
class Not:
    """The part does not hold."""

    part: Node

    def sql(self) -> str:
        return f"(NOT {self.part.sql()})"

    def evaluate(self, rows: pa.Table) -> pa.BooleanArray:
        return pc.invert(self.part.evaluate(rows))


@dataclass(frozen=True)
class IsMissing:
    """A column has no value, or arithmetic yields none."""

    value: str
    """SQL of the value."""
    expression: Expression | None
    """Arithmetic that yields the value; None where the value is a column."""
    is_negated: bool

    def sql(self) -> str:
        return f"({self.value} IS {'NOT ' if self.is_negated else ''}NULL)"

    def evaluate(self, rows: pa.Table) -> pa.BooleanArray:
        if self.expression is None:
            is_missing = flat(pc.is_null(rows.column(self.value.strip("`"))))
        else:
            is_missing = pa.array(np.logical_not(self.expression.evaluate_present(rows)[1]), pa.bool_())
        return pc.invert(is_missing) if self.is_negated else is_missing


@dataclass(frozen=True)
class Constant:
    """The same for every row that has a value in a column."""

    column: str
    truth: bool

    def sql(self) -> str:
        return f"(CASE WHEN `{self.column}` IS NOT NULL THEN {str(self.truth).lower()} END)"

    def evaluate(self, rows: pa.Table) -> pa.BooleanArray:
        is_present = flat(pc.is_valid(rows.column(self.column)))
        return pc.if_else(is_present, pa.scalar(self.truth), pa.scalar(None, pa.bool_()))


def _joined(parts: tuple[Node, ...], word: str) -> str:
    return "(" + f" {word} ".join(part.sql() for part in parts) + ")"


def _folded(parts: tuple[Node, ...], rows: pa.Table, both: Callable[[pa.Array, pa.Array], pa.Array]) -> pa.BooleanArray:
    return reduce(both, (part.evaluate(rows) for part in parts))
