"""Arithmetic of columns: parsed once, then SQL for Spark and numpy for rows in memory. Runs anywhere.

Both compute in doubles, operation by operation, so they yield the same bits.
"""

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import compute as pc

from mlspark.contracts import rule_text
from mlspark.contracts.plain_rows import plain
from mlspark.errors import FeatureError
from mlspark.sql_literals import sql_double

_OPERATORS: dict[type[ast.operator], str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}
_FUNCTIONS = ("length", "days")
_MICROSECONDS_PER_DAY = 86_400_000_000.0


@dataclass(frozen=True)
class Expression:
    """A parsed expression; a column's name is one, too."""

    text: str
    _tree: ast.expr

    @property
    def is_column(self) -> bool:
        """Whether it is nothing but a column."""
        return isinstance(self._tree, ast.Name)

    @property
    def columns(self) -> dict[str, str]:
        """Return column -> what it must be: "number", "text" (of length), "time" (of days)."""
        return dict(_columns(self._tree))

    def sql(self) -> str:
        """Return SQL of type double; null where a column is, or where a divisor is 0."""
        return _sql(self._tree)

    def evaluate(self, rows: pa.Table) -> NDArray[np.float64]:
        """Return the values (n,); NaN or infinite where `sql` is null or infinite."""
        if self.is_column:
            return _column_doubles(rows, self._tree.id)  # type: ignore[attr-defined]  # of a name
        with np.errstate(all="ignore"):
            values = np.asarray(_evaluate(self._tree, rows), np.float64)
        return values if values.ndim else np.broadcast_to(values, (rows.num_rows,))

    def evaluate_present(self, rows: pa.Table) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return the values (n,), and whether `sql` yields one (n,); where it is null the value means nothing."""
        with np.errstate(all="ignore"):
            values, is_present = _evaluate_present(self._tree, rows)
        shape = (rows.num_rows,)
        return np.broadcast_to(np.asarray(values, np.float64), shape), np.broadcast_to(is_present, shape)


def parse(text: str) -> Expression:
    """Return the expression of `text`, in the spelling of row rules: a column may stand in backquotes.

    Raises:
        FeatureError: no arithmetic of columns; says which part is not.
    """
    try:
        rule = rule_text.parse(text)
    except ValueError as error:
        raise FeatureError(f"expression {text!r}: {error}") from None
    return of_tree(rule.tree, text, rule.part)


def of_tree(tree: ast.expr, text: str, part_of: Callable[[ast.expr], str]) -> Expression:
    """Return the expression of a tree. Raises FeatureError as `parse` does.

    Args:
        tree: what was parsed.
        text: what the tree was parsed from, or the part of it that the tree is.
        part_of: yields the part of the text that a node is.
    """
    _check(tree, text, part_of)
    return Expression(text, tree)


def parse_name(column: str) -> Expression:
    """Return a column as an expression, whatever its name."""
    return Expression(column, ast.Name(column, ast.Load()))


def of_number(number: float) -> Expression:
    """Return a finite number as an expression."""
    return Expression(repr(number), ast.Constant(number))


def _check(node: ast.expr, text: str, part_of: Callable[[ast.expr], str]) -> None:
    match node:
        case ast.Name():
            return None
        case ast.Constant(value=int() | float()) if not isinstance(node.value, bool):
            return None
        case ast.UnaryOp(op=ast.USub()):
            return _check(node.operand, text, part_of)
        case ast.BinOp(op=ast.Add() | ast.Sub() | ast.Mult() | ast.Div()):
            _check(node.left, text, part_of)
            return _check(node.right, text, part_of)
        case ast.Call(func=ast.Name(id=name), args=[ast.Name()], keywords=[]) if name in _FUNCTIONS:
            return None
    raise FeatureError(
        f"expression {text!r}: {part_of(node)!r} cannot be used; known are columns, numbers, + - * / ( ), "
        f"length(COLUMN) and days(COLUMN)"
    )


def _columns(node: ast.expr) -> Iterator[tuple[str, str]]:
    match node:
        case ast.Name(id=name):
            yield name, "number"
        case ast.UnaryOp():
            yield from _columns(node.operand)
        case ast.BinOp():
            yield from _columns(node.left)
            yield from _columns(node.right)
        case ast.Call(func=ast.Name(id=function), args=[ast.Name(id=name)]):
            yield name, "text" if function == "length" else "time"


def _sql(node: ast.expr) -> str:
    match node:
        case ast.Name(id=name):
            return f"CAST(`{name}` AS DOUBLE)"
        case ast.Constant(value=value):
            return sql_double(float(value))  # type: ignore[arg-type]  # _check
        case ast.UnaryOp():
            return f"(-{_sql(node.operand)})"
        case ast.BinOp(op=ast.Div()):
            # Plain division by 0 is an error in Spark.
            return f"try_divide({_sql(node.left)}, {_sql(node.right)})"
        case ast.BinOp():
            return f"({_sql(node.left)} {_OPERATORS[type(node.op)]} {_sql(node.right)})"
        case ast.Call(func=ast.Name(id="length"), args=[ast.Name(id=name)]):
            return f"CAST(char_length(`{name}`) AS DOUBLE)"
        case ast.Call(args=[ast.Name(id=name)]):
            return f"(unix_micros(CAST(`{name}` AS TIMESTAMP)) / {sql_double(_MICROSECONDS_PER_DAY)})"
    raise AssertionError(ast.dump(node))


def _evaluate(node: ast.expr, rows: pa.Table) -> Any:
    match node:
        case ast.Name(id=name):
            return _column_doubles(rows, name)
        case ast.Constant(value=value):
            return np.float64(value)  # type: ignore[arg-type]  # _check
        case ast.UnaryOp():
            return -_evaluate(node.operand, rows)
        case ast.BinOp():
            left, right = _evaluate(node.left, rows), _evaluate(node.right, rows)
            match node.op:
                case ast.Add():
                    return left + right
                case ast.Sub():
                    return left - right
                case ast.Mult():
                    return left * right
            return left / right
        case ast.Call(func=ast.Name(id="length"), args=[ast.Name(id=name)]):
            return doubles(pc.utf8_length(rows.column(name)))
        case ast.Call(args=[ast.Name(id=name)]):
            micros = rows.column(name).cast(pa.timestamp("us")).cast(pa.int64())
            return doubles(micros) / _MICROSECONDS_PER_DAY
    raise AssertionError(ast.dump(node))


def _evaluate_present(node: ast.expr, rows: pa.Table) -> tuple[Any, Any]:
    match node:
        case ast.Constant():
            return _evaluate(node, rows), np.True_
        case ast.UnaryOp():
            values, is_present = _evaluate_present(node.operand, rows)
            return -values, is_present
        case ast.BinOp():
            (left, has_left), (right, has_right) = (_evaluate_present(part, rows) for part in (node.left, node.right))
            is_present = has_left & has_right
            match node.op:
                case ast.Add():
                    return left + right, is_present
                case ast.Sub():
                    return left - right, is_present
                case ast.Mult():
                    return left * right, is_present
            return left / right, is_present & (right != 0.0)
    [name] = (name for name, _ in _columns(node))
    return _evaluate(node, rows), np.asarray(pc.is_valid(rows.column(name)).to_numpy(), np.bool_)


def doubles(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """Return numbers or booleans as doubles, rounded to the nearest like Spark's cast; NaN where null."""
    if pa.types.is_decimal(column.type):
        column = column.cast(pa.string())  # Arrow's own cast of decimals rounds twice
    elif pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    converted = column.cast(pa.float64(), safe=False)
    return np.asarray(converted.to_numpy(), np.float64)


def _column_doubles(rows: pa.Table, name: str) -> NDArray[np.float64]:
    """Return `doubles` of a column, also of one whose values are at hand as Python's."""
    if (values := plain(rows, name)) is None:
        return doubles(rows.column(name))
    return np.array([np.nan if value is None else value for value in values], np.float64)
