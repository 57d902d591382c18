"""Conditions over the columns of a row: parsed once, then SQL for Spark and Arrow for rows in memory. Runs anywhere.

Both compute alike. A condition is true, false, or unknown where a missing value decides (null); `and`, `or` and `not`
know the three. Whole numbers and decimals are compared exactly with one another and with numbers that are written; all
other numbers, and arithmetic, are doubles, NaN equal to itself and greater than any other.
"""

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import pyarrow as pa

from mlspark.contracts import comparisons, rule_text
from mlspark.contracts.comparisons import Operand
from mlspark.contracts.logic import And, IsMissing, Node, Not, Or, Truth
from mlspark.contracts.rule_text import RuleText

_COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "=", ast.NotEq: "!=",
}  # fmt: skip
KNOWN = (
    "columns, numbers, quoted texts, true, false, = != <> < <= > >=, in (...), is missing, is not missing, and, or, not, "
    "+ - * / ( ), length(COLUMN), days(COLUMN)"
)


@dataclass(frozen=True)
class Condition:
    """A parsed condition."""

    text: str
    columns: tuple[str, ...]
    _root: Node

    def sql(self) -> str:
        """Return SQL of type boolean; null where it is unknown."""
        return self._root.sql()

    def evaluate_condition(self, rows: pa.Table) -> pa.BooleanArray:
        """Return whether it holds (n,), null where that is unknown.

        Args:
            rows: its columns, in the types that it was parsed for.
        """
        return self._root.evaluate(rows)


def parse_condition(text: str, types: Mapping[str, str]) -> Condition:
    """Return the condition of `text` over columns of these contract types.

    Raises:
        ValueError: the text is not a condition; says which part is not understood.
    """
    return _parsed(text, tuple(types.items()))


@lru_cache(maxsize=1024)
def _parsed(text: str, types: tuple[tuple[str, str], ...]) -> Condition:
    rule = rule_text.parse(text)
    return Condition(text, _columns(rule.tree, dict(types)), _Parser(rule, dict(types)).condition(rule.tree))


def _columns(tree: ast.expr, types: Mapping[str, str]) -> tuple[str, ...]:
    functions = {id(call.func) for call in ast.walk(tree) if isinstance(call, ast.Call)}
    used_names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) not in functions}
    return tuple(name for name in types if name in used_names)


class _Parser:
    """One rule over typed columns."""

    def __init__(self, rule: RuleText, types: Mapping[str, str]) -> None:
        self._rule = rule
        self._types = types

    def condition(self, node: ast.expr) -> Node:
        match node:
            case ast.BoolOp(op=op, values=values):
                parts = tuple(self.condition(value) for value in values)
                return And(parts) if isinstance(op, ast.And) else Or(parts)
            case ast.UnaryOp(op=ast.Not()):
                return Not(self.condition(node.operand))
            case ast.Compare():
                return self._comparison(node)
            case ast.Name():
                operand = self._operand(node)
                if operand.family == "boolean":
                    return Truth(operand.sql)
                raise ValueError(f"{self._rule.part(node)} ({operand.type}) is no condition: compare it with something")
        raise ValueError(f"{self._rule.part(node)} is no condition")

    def _comparison(self, node: ast.Compare) -> Node:
        operands = [node.left, *node.comparators]
        if len(node.ops) > 1 and any(type(op) not in _COMPARISONS for op in node.ops):
            raise ValueError(f"{self._rule.part(node)}: put `in` and `is` in ( )")
        match node.ops[0]:
            case ast.Is() | ast.IsNot():
                return self._missing(node)
            case ast.In() | ast.NotIn():
                return self._among(node)
        pairs = zip(node.ops, operands, operands[1:], strict=False)
        parts = tuple(self._compared(left, _COMPARISONS[type(op)], right) for op, left, right in pairs)
        return parts[0] if len(parts) == 1 else And(parts)

    def _missing(self, node: ast.Compare) -> Node:
        if not (isinstance(node.comparators[0], ast.Constant) and node.comparators[0].value is None):
            raise ValueError(f"{self._rule.part(node)}: after `is` comes `missing` or `not missing`")
        operand = self._operand(node.left)
        if operand.literal is not None:
            raise ValueError(f"{self._rule.part(node)}: {self._rule.part(node.left)} is no column")
        return IsMissing(operand.sql, operand.expression, is_negated=isinstance(node.ops[0], ast.IsNot))

    def _among(self, node: ast.Compare) -> Node:
        listed = node.comparators[0]
        values: Sequence[ast.expr] = listed.elts if isinstance(listed, ast.Tuple) else [listed]
        if not values or not all(_is_literal(value) for value in values):
            raise ValueError(f"{self._rule.part(node)}: after `in` come numbers or quoted texts in ( )")
        among = Or(tuple(self._compared(node.left, "=", value) for value in values))
        return Not(among) if isinstance(node.ops[0], ast.NotIn) else among

    def _compared(self, left: ast.expr, sign: str, right: ast.expr) -> Node:
        operands = self._operand(left), self._operand(right)
        try:
            return comparisons.compare(operands[0], sign, operands[1])
        except ValueError as error:
            raise ValueError(f"{self._rule.part(left)} {sign} {self._rule.part(right)}: {error}") from None

    def _operand(self, node: ast.expr) -> Operand:
        part = self._rule.part(node)
        if isinstance(node, ast.Constant) and node.value is None:
            raise ValueError(f"{part}: nothing is equal to it, write `is missing` or `is not missing`")
        for name in (name for name in ast.walk(node) if isinstance(name, ast.Name)):
            is_function = any(isinstance(call, ast.Call) and call.func is name for call in ast.walk(node))
            if not is_function and name.id not in self._types:
                raise ValueError(f"{self._rule.part(name)} is not a column; columns are {', '.join(self._types)}")
        try:
            return comparisons.operand(node, self._rule.part, self._types)
        except ValueError as error:
            message = str(error)
            raise ValueError(message if part in message else f"{part}: {message}") from None


def _is_literal(node: ast.expr) -> bool:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return isinstance(node.operand, ast.Constant) and not isinstance(node.operand.value, bool | str)
    return isinstance(node, ast.Constant)
