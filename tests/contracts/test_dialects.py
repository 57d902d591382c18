"""Spark and Arrow give the same verdict of the same typed rows: random contracts on random rows, and known hard cases.

MLSPARK_DIALECTS=N tries N random contracts instead of the few that every run tries.
"""

import json
import math
import os
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from mlspark.contracts import bounds, check_arrow, check_spark
from mlspark.contracts.column_types import arrow_type, decimal_digits
from mlspark.contracts.contract import ColumnRule, Contract
from mlspark.contracts.own_columns import MALFORMED, RAW, REASONS, SOURCE_FILE

NUM_EXAMPLES = int(os.environ.get("MLSPARK_DIALECTS", "30"))
NUM_ROWS = 60
PATTERNS = (
    "[a-z]+", ".*", "^a$", r"\s*\w", "[^a]", r"\d+", r"(a|A)\d?", r"[\s\w]{1,3}", "a{0,2}.", "(?:x|y)+?b*", r"\S+", ".",
    "é+", "[à-ü]*", r"[^\s]*", r"a\.b|\x41", "", "(|a)*", r"[-.\]]", "..", r"[\w-]+", "^(a|b)?c*$",
)  # fmt: skip
TEXTS = (
    "",
    "a",
    "A",
    "A1",
    "ab",
    "é",
    "ß",
    "\u1f600",
    "😀",
    "a\n",
    "\u2028",
    "\x85",
    "x\x0b",
    "12",
    "٣",
    " ",
    "a.b",
    "-",
    "xyb",
)
NUMBERS = (0, 1, -1, 18, 2.5, 0.1, -0.105, 2**31, 2**53, 2**53 + 1, 1e15, 1e-320, 99999.995, 123456789012345678)
DATES = (bounds.FIRST_DAY - 1, bounds.FIRST_DAY, -1, 0, 1, 18_262, bounds.LAST_DAY, bounds.LAST_DAY + 1)
MICROS = tuple(
    day * 86_400_000_000 + more
    for day in (-719_162, -1, 0, 18_262, 2_932_896, 2_932_897)
    for more in (-1, 0, 1, 123_456)
)
MOMENTS = ("0001-01-01", "1969-12-31", "1970-01-01", "2020-01-01", "9999-12-31")
SOURCES = {
    "smallint": ("smallint", "tinyint", "int", "bigint", "double", "float", "boolean", "decimal(6,2)"),
    "int": ("int", "smallint", "bigint", "double", "float", "decimal(20,1)"),
    "bigint": ("bigint", "int", "double", "float", "decimal(38,0)"),
    "float": ("float", "double", "int", "bigint", "boolean"),
    "double": ("double", "float", "int", "bigint", "decimal(6,2)", "decimal(38,10)"),
    "decimal(6,2)": ("decimal(6,2)", "decimal(10,4)", "int", "bigint", "double", "float", "boolean"),
    "decimal(38,10)": ("decimal(38,10)", "decimal(38,0)", "bigint"),
    "string": ("string",),
    "boolean": ("boolean", "int", "bigint", "double"),
    "date": ("date", "timestamp"),
    "timestamp": ("timestamp", "date"),
    "array<float>": ("array<float>", "array<double>", "array<int>"),
    "array<double>": ("array<double>", "array<float>"),
}


def source_arrow(kind: str) -> pa.DataType:
    if kind == "array<int>":
        return pa.list_(pa.int32())
    return pa.int8() if kind == "tinyint" else arrow_type(kind)


def values_of(kind: str, *, is_cast: bool) -> st.SearchStrategy[Any]:
    """Values of a source's type, as Arrow takes them."""
    bits = {"tinyint": 8, "smallint": 16, "int": 32, "bigint": 64}.get(kind)
    if bits:
        half = 2 ** (bits - 1)
        edges = [
            n for n in (0, 1, 17, 18, -1, 2**24 + 1, 2**53, 2**53 + 1, 2**31, -half, half - 1) if -half <= n < half
        ]
        return st.sampled_from(edges) | st.integers(-half, half - 1) | st.integers(-20, 20)
    if kind in ("float", "double"):
        width = 32 if kind == "float" else 64
        edges = [0.0, -0.0, 1.0, 18.0, 39.5, 2.0**24, 2.0**53, 1e15, math.nan, math.inf, -math.inf, 0.5, 1.25, -1.0]
        more = (
            st.sampled_from([0.1, 5e-324, 1e300, 2.0**53 - 1, 99999.995, 1.555])
            if width == 64
            else st.just(2.0**24 - 1)
        )
        return st.sampled_from(edges) | more | st.floats(width=width)
    if kind.startswith("decimal"):
        digits, scale = decimal_digits(kind)
        whole = st.integers(-(10**digits) + 1, 10**digits - 1) | st.integers(-2000, 2000)
        return (whole | st.just(10**scale)).map(lambda unscaled: bounds.decimal(unscaled, scale))
    if kind == "string":
        return st.sampled_from(TEXTS) | st.text("aA1é\n. x", max_size=4)
    if kind == "boolean":
        return st.booleans()
    if kind == "date":
        # Spark's own cast of a date to a time overflows far beyond the years that it knows.
        far = st.integers(-1_000_000, 3_000_000) if is_cast else st.integers(-(2**31), 2**31 - 1)
        return st.sampled_from(DATES) | far
    if kind == "timestamp":
        return st.sampled_from(MICROS) | st.integers(-(2**62), 2**62)
    element = kind[len("array<") : -1]
    return st.lists(
        values_of(element, is_cast=False) | st.sampled_from([None, 1.0 if element != "int" else 1]), max_size=3
    )


def array_of(values: list[Any], kind: str) -> pa.Array:
    """The values as a column of Arrow; dates and times are counts."""
    if kind == "date":
        return pa.array(values, pa.int32()).cast(pa.date32())
    if kind == "timestamp":
        return pa.array(values, pa.int64()).cast(pa.timestamp("us", "UTC"))
    return pa.array(values, source_arrow(kind))


@st.composite
def columns(draw: st.DrawFn, name: str) -> ColumnRule:
    kind = draw(st.sampled_from(sorted(SOURCES)))
    rule: dict[str, Any] = {"name": name, "type": kind, "nullable": draw(st.booleans())}
    for side in ("min", "max"):
        if draw(st.integers(0, 2)) == 0:
            if kind in ("date", "timestamp"):
                rule[side] = draw(st.sampled_from(MOMENTS))
            elif kind not in ("string", "boolean") and not kind.startswith("array"):
                rule[side] = draw(st.sampled_from(NUMBERS)) * draw(st.sampled_from([1, -1]))
    if kind == "string" and draw(st.booleans()):
        rule["allowed"] = draw(st.lists(st.sampled_from(TEXTS), min_size=3, unique=True))
    if kind == "string" and draw(st.booleans()):
        rule["pattern"] = draw(st.sampled_from(PATTERNS))
    if (kind == "string" or kind.startswith("array")) and draw(st.booleans()):
        rule |= {"min_length": draw(st.integers(0, 1)), "max_length": draw(st.integers(1, 3))}
    try:
        return ColumnRule.model_validate_json(json.dumps(rule))
    except ValidationError:  # a bound that no value of the type satisfies
        return ColumnRule(name=name, type=kind)


def atoms(column: ColumnRule) -> list[str]:
    """Conditions on one column."""
    name, kind = column.name, column.type
    always = [f"{name} is missing", f"{name} is not null"]
    if kind == "string":
        return [
            *always,
            f"{name} <> 'a'",
            f"{name} in ('a', 'é', '😀', 'it''s')",
            f"{name} >= 'b'",
            f"length({name}) < 2",
        ]
    if kind == "boolean":
        return [*always, name, f"not {name}", f"{name} = true"]
    if kind in ("date", "timestamp"):
        return [*always, f"{name} >= '1970-01-01'", f"days({name}) / 2 < 10000.5", f"{name} not in ('2020-01-01')"]
    if kind.startswith("array"):
        return always
    compared = [
        f"{name} {sign} {number!r}" for sign in ("<", "<=", ">", ">=", "=", "!=") for number in (18, -0.105, 2**53 + 1)
    ]
    arithmetic = [] if kind.startswith("decimal") else [f"100 / {name} + 1 >= {name}", f"{name} * {name} - 1e300 < 5"]
    return [*always, *compared, *arithmetic, f"{name} in (1, 2.5, 18)", f"-1 <= {name} < 1e15"]


def pairs(columns: list[ColumnRule]) -> list[str]:
    """Conditions on two columns that compare."""
    found = []
    for left in columns:
        for right in columns:
            rule = f"{left.name} <= {right.name} or {left.name} = {right.name}"
            try:
                Contract.model_validate_json(
                    json.dumps(
                        {
                            "name": "c",
                            "columns": [json.loads(c.model_dump_json()) for c in columns],
                            "rules": [{"name": "r", "expression": rule}],
                        }
                    )
                )
            except ValidationError:
                continue
            found.append(rule)
    return found


@st.composite
def cases(draw: st.DrawFn) -> tuple[Contract, pa.Table]:
    """A contract, and rows in types that are cast to its own."""
    rules = [draw(columns(f"c{number}")) for number in range(draw(st.integers(2, 6)))]
    known = [atom for rule in rules for atom in atoms(rule)] + pairs(rules)
    expressions = st.recursive(
        st.sampled_from(known),
        lambda part: (
            st.tuples(part, st.sampled_from(["and", "or"]), part).map(lambda both: f"({' '.join(both)})")
            | part.map(lambda text: f"(not ({text}))")
        ),
        max_leaves=4,
    )
    named = [{"name": f"r{number}", "expression": draw(expressions)} for number in range(draw(st.integers(0, 4)))]
    contract = Contract.model_validate_json(
        json.dumps({"name": "c", "columns": [json.loads(rule.model_dump_json()) for rule in rules], "rules": named})
    )
    arrays = {}
    for rule in rules:
        kind = draw(st.sampled_from(SOURCES[rule.type]) | st.just(rule.type))
        pool = draw(st.lists(values_of(kind, is_cast=kind != rule.type), min_size=12, max_size=12))
        picked = draw(st.lists(st.integers(-2, 11), min_size=NUM_ROWS, max_size=NUM_ROWS))
        arrays[rule.name] = array_of([None if place < 0 else pool[place] for place in picked], kind)
    return contract, pa.table(arrays)


Verdict = list[list[tuple[str, str]]]


def spark_verdict(spark: SparkSession, table: pa.Table, contract: Contract) -> tuple[Verdict, pa.Table]:
    raw = spark.createDataFrame(table.append_column("row", pa.array(range(table.num_rows)))).coalesce(1)
    missing = F.lit(None).cast("string")
    rows = raw.select(
        *contract.names,
        missing.alias(MALFORMED),
        F.col("row").cast("string").alias(RAW),
        missing.alias(SOURCE_FILE),
    )
    conformed = check_spark.conform(rows, contract).toArrow()
    order = sorted(range(table.num_rows), key=lambda place: int(conformed.column(RAW)[place].as_py()))
    conformed = conformed.take(pa.array(order))
    reasons = [[(reason["column"], reason["rule"]) for reason in row] for row in conformed.column(REASONS).to_pylist()]
    return reasons, conformed.select(contract.names)


def arrow_verdict(table: pa.Table, contract: Contract) -> tuple[Verdict, pa.Table]:
    conformed = check_arrow.conform(table, contract)
    reasons: Verdict = [[] for _ in range(table.num_rows)]
    for broken in conformed.broken:
        reasons[broken.row].append((broken.column, broken.rule))
    return reasons, conformed.rows


def assert_same(spark: SparkSession, table: pa.Table, contract: Contract) -> Verdict:
    """Every row has the same reasons in both dialects, and a good one the same values. Returns the reasons."""
    on_spark, spark_rows = spark_verdict(spark, table, contract)
    on_arrow, arrow_rows = arrow_verdict(table, contract)
    plain = [field.name for field in table.schema if not pa.types.is_nested(field.type)]
    for row, (expected, found) in enumerate(zip(on_spark, on_arrow, strict=True)):
        shown = f"row {row} of {contract.model_dump_json(exclude_defaults=True)}"
        assert found == expected, f"{shown}: {table.select(plain).slice(row, 1).to_string(preview_cols=99)}"
    good = pa.array([not reasons for reasons in on_spark])
    assert arrow_rows.filter(good).to_pylist() == spark_rows.filter(good).to_pylist()
    return on_spark


@settings(
    max_examples=NUM_EXAMPLES,
    derandomize="MLSPARK_DIALECTS" not in os.environ,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)
@given(case=cases())
def test_both_dialects_give_the_same_verdict(spark: SparkSession, case: tuple[Contract, pa.Table]) -> None:
    contract, table = case
    assert_same(spark, table, contract)


def contract_of(kind: str, *rules: str, **column: Any) -> Contract:
    named = [{"name": f"rule_{number}", "expression": rule} for number, rule in enumerate(rules)]
    text = json.dumps({"name": "c", "columns": [{"name": "x", "type": kind, **column}], "rules": named})
    return Contract.model_validate_json(text)


@pytest.mark.parametrize(
    ("contract", "values", "expected"),
    [
        (contract_of("int", "x >= 18"), pa.array([3, 18, None]), ["rule_0", "", ""]),
        (contract_of("double"), pa.array([math.nan, math.inf, None, 1.5]), ["", "finite", "", ""]),
        (contract_of("double", nullable=False), pa.array([math.nan, -math.inf, None]), ["null", "finite", "null"]),
        (contract_of("float", max=2, min=1), pa.array([math.nan, math.inf, 0.5]), ["", "finite", "min"]),
        (contract_of("float", "x < 2", "x is not missing"), pa.array([math.nan, 1.5]), ["rule_1", ""]),
        (contract_of("int", nullable=False), pa.array([39.0, math.nan]), ["", "null"]),
        (contract_of("bigint", max=2**53), pa.array([2**53, 2**53 + 1]), ["", "max"]),
        (contract_of("bigint", "x != 9007199254740993"), pa.array([2**53, 2**53 + 1]), ["", "rule_0"]),
        (contract_of("bigint"), pa.array([2.0**53 - 1, 2.0**53, 1.5, math.nan]), ["", "type", "type", ""]),
        (contract_of("double"), pa.array([2**63 - 1, -(2**63), 2**53 + 1, None]), ["type", "", "type", ""]),
        (contract_of("array<double>"), pa.array([[5, 2**63 - 1], [-(2**63)], [], None]), ["type", "", "", ""]),
        (contract_of("int"), pa.array([39.0, 39.5, -0.0]), ["", "type", ""]),
        (contract_of("int"), pa.array([True, None]), ["", ""]),
        (contract_of("boolean"), pa.array([0, 1, 2]), ["", "", "type"]),
        (contract_of("timestamp"), pa.array([5, None]), ["type", ""]),
        (
            contract_of("decimal(6,2)", min=0.1),
            pa.array(
                [Decimal("0.1000"), Decimal("0.0999"), Decimal("0.09"), Decimal("12345.0000")], pa.decimal128(12, 4)
            ),
            ["", "type", "min", "type"],
        ),
        (
            contract_of("string", pattern="a.b"),
            pa.array(["a\nb", "a\rb", "a\u2028b", "a\x85b", "a😀b"]),
            ["pattern", "", "", "", ""],
        ),
        (contract_of("string", pattern=r"\d\s"), pa.array(["1\x0b", "٣ ", "1\u00a0"]), ["", "pattern", "pattern"]),
        # Spark puts the variable's value in the place of such a text wherever it stands in SQL.
        (contract_of("string", "x != '${env:HOME}'"), pa.array(["${env:HOME}", os.environ["HOME"]]), ["rule_0", ""]),
        (contract_of("string", allowed=["${env:HOME}", "it's"]), pa.array(["${env:HOME}", "it's"]), ["", ""]),
        (contract_of("string", allowed=[]), pa.array(["a", None]), ["allowed", ""]),
        (contract_of("string", max_length=1), pa.array(["😀", "e\u0301"]), ["", "max_length"]),
        (
            contract_of("date"),
            pa.array([bounds.FIRST_DAY - 1, bounds.LAST_DAY], pa.int32()).cast(pa.date32()),
            ["range", ""],
        ),
        (
            contract_of("array<float>", max_length=2),
            pa.array([[1.0, None], [math.nan], [1.0] * 3, []], pa.list_(pa.float32())),
            ["type", "finite", "max_length", ""],
        ),
    ],
)
def test_hard_cases_have_their_reason_in_both(
    spark: SparkSession, contract: Contract, values: pa.Array, expected: list[str]
) -> None:
    reasons = assert_same(spark, pa.table({"x": values}), contract)
    assert [row[0][1] if row else "" for row in reasons] == expected
