"""Conditions in free SQL (filters of sources, rules that are `batch_only`), held to a row's own values. Driver."""

import re
from collections.abc import Iterator
from typing import Any

from py4j.java_gateway import is_instance_of  # type: ignore[import-untyped]
from pyspark.errors import AnalysisException, ParseException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import BooleanType, StructType

from mlspark import session
from mlspark.errors import one_line

_CATALYST = "org.apache.spark.sql.catalyst.expressions"
_REFUSED = {
    "PlanExpression": "a subquery reads other rows",
    "WindowExpression": "a window function reads other rows",
    "aggregate.AggregateFunction": "{} is an aggregate, which reads other rows",
    "Generator": "{} makes several rows of one",
    "UserDefinedExpression": "{} is a function of somebody's own, which cannot be checked",
}
"""Trait of Spark's expressions -> why a condition has none of them."""
_reasons_by_class: dict[str, str | None] = {}
"""Class of Spark's expressions -> why it is refused; asked of the JVM once."""
_FROM_ELSEWHERE = re.compile(
    # Deterministic in Spark's eyes, because they are constant within one query.
    r"Current\w*|Now|LocalTimestamp|SparkVersion|VariableReference|SQLFunctionExpression|SQLScalarFunction"
)
_RANDOM = "{} may give another value each time"
_CLOCK_WORD = re.compile(r"\s*(now|today|tomorrow|yesterday)\b", re.IGNORECASE)
_CLOCK_LITERAL = re.compile(
    # DATE 'today' is a constant as soon as it is parsed. Spark joins texts that stand side by side.
    r"\b(?:date|timestamp(?:_ntz|_ltz)?)\s*((?:r?(?:'[^']*'|\"[^\"]*\")\s*)+)",
    re.IGNORECASE,
)
_COMMENT = re.compile(r"/\*.*?\*/|--[^\n]*", re.DOTALL)


def check(spark: SparkSession, text: str, columns: StructType) -> None:
    """Refuse a text that is no condition over `columns`, or in which anything else than a row's own values decides.

    Subqueries are found in the parsed text, since analysing one may already read a file. Then Spark analyses it over an
    empty table of these columns, and every node of the plan is looked at: so neither another name of a function nor a
    name that a session gave to something else gets through. Runs no job.

    Args:
        spark: the session in which the condition will run.
        text: SQL.
        columns: those that it may name.

    Raises:
        ValueError: says what is wrong, naming the function.
    """
    if any(_CLOCK_WORD.match(_joined(texts)) for texts in _CLOCK_LITERAL.findall(_COMMENT.sub(" ", text))):
        raise ValueError(_CLOCK)
    gateway: Any = spark.sparkContext._gateway
    parser: Any = spark._jsparkSession.sessionState().sqlParser()
    try:
        with session.unlogged():
            _check_expression(parser.parseExpression(text), gateway, is_parsed=True)
            condition = _empty(spark, columns).select(F.expr(text))
    except (AnalysisException, ParseException) as error:
        raise ValueError(one_line(error.getMessage() or str(error))) from None
    _check_plan(condition, gateway)
    if [field.dataType for field in condition.schema] != [BooleanType()]:
        kinds = ", ".join(field.dataType.simpleString() for field in condition.schema)
        raise ValueError(f"is no condition, but {kinds}")


def _empty(spark: SparkSession, columns: StructType) -> DataFrame:
    """Return a table of no rows with these columns and nothing else: no metadata columns, no plan of its own."""
    java: Any = spark._jsparkSession
    jvm: Any = spark._jvm
    rows = java.createDataFrame(jvm.java.util.ArrayList(), java.parseDataType(columns.json()))
    return DataFrame(rows, spark)


def _check_plan(condition: DataFrame, gateway: Any) -> None:
    frame: Any = condition._jdf
    waiting = [frame.queryExecution().analyzed()]
    while waiting:
        node = waiting.pop()
        waiting += _items(node.children())
        for expression in _items(node.expressions()):
            _check_expression(expression, gateway)


def _check_expression(root: Any, gateway: Any, *, is_parsed: bool = False) -> None:
    """Check an expression; one that is only parsed has no types and no functions yet."""
    waiting = [root]
    while waiting:
        expression = waiting.pop()
        name = expression.getClass().getName()
        if name == f"{_CATALYST}.Literal":
            continue
        kind = name.rpartition(".")[2]
        if reason := _refusal(name, expression, gateway):
            raise ValueError(f"{reason.format(_named(expression))}; {_ALLOWED}")
        children = list(_items(expression.children()))
        waiting += children
        if is_parsed:
            continue
        if kind == "Cast" and _takes_the_time(expression):
            raise ValueError(_CLOCK)
        if not expression.deterministic() and all(child.deterministic() for child in children):
            raise ValueError(f"{_RANDOM.format(_named(expression))}; {_ALLOWED}")


_CLOCK = "the time at which it runs would decide (now, today, tomorrow, yesterday); give a date"
_ALLOWED = "a condition has deterministic functions of the row's own columns alone"


def _refusal(name: str, expression: Any, gateway: Any) -> str | None:
    """Return why a condition has no such expression, None where it may."""
    kind = name.rpartition(".")[2]
    if _FROM_ELSEWHERE.fullmatch(kind):
        return "{} is decided by the session or the time at which it runs"
    if kind == "AesEncrypt":  # by default with a random initialization vector; Spark calls it deterministic
        return _RANDOM
    if kind == "RaiseError":
        return "{} ends the job"
    if name not in _reasons_by_class:
        traits = (trait for trait in _REFUSED if is_instance_of(gateway, expression, f"{_CATALYST}.{trait}"))
        _reasons_by_class[name] = next((_REFUSED[trait] for trait in traits), None)
    return _reasons_by_class[name]


def _takes_the_time(cast: Any) -> bool:
    """Return whether a cast makes a date or time of a constant text like 'now', which Spark's optimizer replaces."""
    target, child = cast.dataType().typeName(), cast.child()
    if not target.startswith(("date", "timestamp")) or not child.foldable() or not child.deterministic():
        return False
    return bool(child.dataType().typeName().startswith("string") and _CLOCK_WORD.match(str(child.eval(None))))


def _named(expression: Any) -> str:
    is_own = _reasons_by_class.get(expression.getClass().getName()) == _REFUSED["UserDefinedExpression"]
    return f"{expression.name() if is_own else expression.prettyName().lower()}()"


def _joined(texts: str) -> str:
    """Return what a row of quoted texts says together."""
    return "".join(single + double for single, double in re.findall(r"'([^']*)'|\"([^\"]*)\"", texts))


def _items(sequence: Any) -> Iterator[Any]:
    for place in range(sequence.size()):
        yield sequence.apply(place)
