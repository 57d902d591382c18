"""Two values compared, in SQL and on Arrow alike: exactly where both are exact, else as doubles. Runs anywhere."""

import ast
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import compute as pc

from mlspark.contracts import bounds, column_types, expressions
from mlspark.contracts.column_types import Family
from mlspark.contracts.expressions import Expression
from mlspark.contracts.logic import Constant, Node, flat
from mlspark.errors import FeatureError
from mlspark.sql_literals import sql_double, sql_text

_ARROW: dict[str, Callable[[Any, Any], Any]] = {
    "<": pc.less, "<=": pc.less_equal, ">": pc.greater, ">=": pc.greater_equal, "=": pc.equal, "!=": pc.not_equal,
}  # fmt: skip
_FLIPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "=": "=", "!=": "!="}
_EXACT = ("whole", "decimal")
_NUMBERS = (*_EXACT, "floating")
_MAX_DIGITS = 38
_MAX_EXPONENT = 400


@dataclass(frozen=True)
class Operand:
    """One side of a comparison: a column, a literal or arithmetic."""

    family: Family
    type: str
    """Type of the contract's column; "double" for arithmetic, "number", "text" and so on for a literal."""
    sql: str
    column: str | None = None
    literal: Fraction | str | bool | None = None
    expression: Expression | None = None
    """The arithmetic, where the side is some; else None."""


def operand(node: ast.expr, part_of: Callable[[ast.expr], str], types: Mapping[str, str]) -> Operand:
    """Return what a node stands for.

    Args:
        node: of a rule's tree.
        part_of: yields the part of the rule's text that a node is.
        types: the columns that the node uses, among others -> their types.

    Raises:
        ValueError: it is nothing that can be compared.
    """
    if isinstance(node, ast.Name):
        kind = types[node.id]
        family = column_types.family(kind)
        assert family is not None, kind
        return Operand(family, kind, f"`{node.id}`", column=node.id)
    part = part_of(node)
    number = _number(node, part)
    if number is not None:
        return Operand("floating", "number", sql_double(_double(number, part)), literal=number)
    if isinstance(node, ast.Constant) and isinstance(node.value, bool):
        return Operand("boolean", "boolean", str(node.value).lower(), literal=node.value)
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return Operand("string", "text", sql_text(node.value), literal=node.value)
    try:
        expression = expressions.of_tree(node, part, part_of)
    except FeatureError as error:
        raise ValueError(str(error)) from None
    for name, use in expression.columns.items():
        _check_use(name, use, types[name])
    return Operand("floating", "double", expression.sql(), expression=expression)


def compare(left: Operand, sign: str, right: Operand) -> Node:
    """Return `left sign right`.

    Raises:
        ValueError: the two cannot be compared; says why.
    """
    if left.literal is not None and right.literal is not None:
        raise ValueError("no column in it")
    if left.literal is not None:
        return compare(right, _FLIPPED[sign], left)
    families = left.family, right.family
    if left.column and left.family in _EXACT and isinstance(right.literal, Fraction):
        return _with_number(left.column, left.type, sign, right.literal)
    if left.family in _EXACT and right.family in _EXACT:
        return _exact(left, sign, right)
    if left.family in _NUMBERS and right.family in _NUMBERS:
        return _Doubles(_doubles_of(left), sign, _doubles_of(right))
    if families == ("string", "string") or (families == ("boolean", "boolean") and sign in ("=", "!=")):
        return _Plain(_side(left), sign, _side(right))
    if left.family in ("date", "timestamp"):
        if isinstance(right.literal, str):
            parse = bounds.parse_date if left.family == "date" else bounds.parse_timestamp
            moment = parse(right.literal)
            return _Plain(_side(left), sign, _Side(_sql_moment(moment), pa.scalar(moment, _arrow(left.type))))
        if right.family in ("date", "timestamp"):
            wider = "date" if families == ("date", "date") else "timestamp"
            return _Plain(_side(left, wider), sign, _side(right, wider))
    raise ValueError(f"{left.type} and {right.type} cannot be compared so")


@dataclass(frozen=True)
class _Side:
    """A column, cast if need be, or a literal."""

    sql: str
    value: pa.Scalar | str
    """A literal, or the column's name."""
    cast: pa.DataType | None = None

    def of(self, rows: pa.Table) -> pa.Array | pa.Scalar:
        if isinstance(self.value, pa.Scalar):
            return self.value
        values = flat(rows.column(self.value))
        return values if self.cast is None else values.cast(self.cast)


@dataclass(frozen=True)
class _Plain:
    """Values of one type compared as such."""

    left: _Side
    sign: str
    right: _Side

    def sql(self) -> str:
        return f"({self.left.sql} {self.sign} {self.right.sql})"

    def evaluate(self, rows: pa.Table) -> pa.BooleanArray:
        return _ARROW[self.sign](self.left.of(rows), self.right.of(rows))


@dataclass(frozen=True)
class _Doubles:
    """Doubles compared as Spark orders them: NaN is equal to itself and greater than any other."""

    left: Expression
    sign: str
    right: Expression

    def sql(self) -> str:
        return f"({self.left.sql()} {self.sign} {self.right.sql()})"

    def evaluate(self, rows: pa.Table) -> pa.BooleanArray:
        (left, has_left), (right, has_right) = (side.evaluate_present(rows) for side in (self.left, self.right))
        return pa.array(_ordered(left, self.sign, right), pa.bool_(), mask=~(has_left & has_right))


def _ordered(left: NDArray[np.float64], sign: str, right: NDArray[np.float64]) -> NDArray[np.bool_]:
    left_nan, right_nan = np.isnan(left), np.isnan(right)
    is_equal = (left == right) | (left_nan & right_nan)
    is_less = (left < right) | (~left_nan & right_nan)
    truths: dict[str, NDArray[np.bool_]] = {
        "=": is_equal, "!=": ~is_equal, "<": is_less, "<=": is_less | is_equal, ">": ~(is_less | is_equal), ">=": ~is_less,
    }  # fmt: skip
    return truths[sign]


def _with_number(column: str, kind: str, sign: str, number: Fraction) -> Node:
    """Return a whole number or decimal compared with a written number, as values of the column's type."""
    scale = column_types.decimal_digits(kind)[1]
    least, greatest = bounds.limits(kind)
    if number * 10**scale != int(number * 10**scale):
        if sign in ("=", "!="):
            return Constant(column, sign == "!=")
        is_up = sign in (">", ">=")
        number, sign = Fraction(bounds.on_grid(number, scale, up=is_up)), ">=" if is_up else "<="
    if number > greatest:
        return Constant(column, sign in ("<", "<=", "!="))
    if number < least:
        return Constant(column, sign in (">", ">=", "!="))
    value = bounds.on_grid(number, scale, up=True)
    literal = pa.scalar(int(value) if column_types.family(kind) == "whole" else value, _arrow(kind))
    return _Plain(_Side(f"`{column}`", column), sign, _Side(f"CAST('{value:f}' AS {kind})", literal))


def _exact(left: Operand, sign: str, right: Operand) -> Node:
    if left.family == right.family == "whole":
        return _Plain(_side(left, "bigint"), sign, _side(right, "bigint"))
    (digits, scale), (other_digits, other_scale) = (column_types.decimal_digits(side.type) for side in (left, right))
    wide_scale = max(scale, other_scale)
    wide_digits = max(digits - scale, other_digits - other_scale) + wide_scale
    if wide_digits > _MAX_DIGITS:
        raise ValueError(
            f"{left.type} and {right.type} have no type that holds both exactly ({_MAX_DIGITS} digits at most)"
        )
    wider = f"decimal({wide_digits},{wide_scale})"
    return _Plain(_side(left, wider), sign, _side(right, wider))


def _side(side: Operand, cast: str | None = None) -> _Side:
    if side.column is None:
        return _Side(side.sql, pa.scalar(side.literal))
    if cast is None or cast == side.type:
        return _Side(side.sql, side.column)
    return _Side(f"CAST({side.sql} AS {cast})", side.column, _arrow(cast))


def _doubles_of(side: Operand) -> Expression:
    """Return a number as a double."""
    if side.expression is not None:
        return side.expression
    if side.column is not None:
        return expressions.parse_name(side.column)
    assert isinstance(side.literal, Fraction)
    return expressions.of_number(float(side.literal))


def _number(node: ast.expr, part: str) -> Fraction | None:
    """Return a written number exactly, or None."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        number = _number(node.operand, part.lstrip("- "))
        return None if number is None else -number
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        _double(Fraction(node.value) if math.isfinite(node.value) else None, part)
        written = Decimal(part.strip("() "))
        if abs(written.adjusted()) > _MAX_EXPONENT:
            raise ValueError(f"{part} has an exponent beyond {_MAX_EXPONENT}")
        return Fraction(written)
    return None


def _double(number: Fraction | None, part: str) -> float:
    try:
        if number is not None:
            return float(number)
    except OverflowError:
        pass
    raise ValueError(f"{part} is beyond every double")


def _check_use(name: str, use: str, kind: str) -> None:
    family = column_types.family(kind)
    accepted = {"number": ("whole", "floating", "boolean"), "text": ("string",), "time": ("date", "timestamp")}[use]
    if family == "decimal":
        raise ValueError(f"arithmetic is in doubles, and {name} ({kind}) is exact: compare it without + - * /")
    if family not in accepted:
        words = {"number": "a number", "text": "text", "time": "a date or timestamp"}[use]
        raise ValueError(f"{name} ({kind}) is not {words}")


def _arrow(kind: str) -> pa.DataType:
    return column_types.arrow_type(kind)


def _sql_moment(moment: date | datetime) -> str:
    if isinstance(moment, datetime):
        return f"timestamp_micros({bounds.micros(moment)}L)"
    return f"DATE '{moment.isoformat()}'"
